"""Read the digits and signs of a picture with a network that finds characters."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from mnist_cnn.data.synthetic.sheet import OTHER, SIGNS, STRIDE
from mnist_cnn.detection.decode import Character
from mnist_cnn.detection.find import MARGIN
from mnist_cnn.detection.lines import confidence, evidence, lines, split
from mnist_cnn.reading import ink as inks
from mnist_cnn.reading.digits import centred
from mnist_cnn.reading.frames import Box
from mnist_cnn.reading.grids import Grid, grids
from mnist_cnn.reading.ink import resized
from mnist_cnn.reading.picture import Source, load_picture, upright_size
from mnist_cnn.reading.reader import THRESHOLD, Reading
from mnist_cnn.reading.signs import UNKNOWN
from mnist_cnn.reading.views import View, upright

INSIDE = 0.8  # of the characters on a grid stand each in one cell, else it is squared paper
Cell = tuple[int, int, int]  # grid, row, column


def read_characters(
    picture: Source | Image.Image, net: nn.Module, threshold: float = THRESHOLD
) -> list[Reading]:
    """Read the digits and signs of a picture; an empty list where there is none.

    Args:
        picture: a picture, or what `load_picture` takes; rows are read from top to bottom, each
            from left to right.
        net: a `detection.network.Detector`.
        threshold: the confidence below which a digit is left unread, in [0, 1].

    Raises:
        OSError, ValueError: it cannot be read, see `load_picture`; or the threshold is none.
    """
    if not 0 <= threshold <= 1:  # NaN is neither
        raise ValueError(f"threshold must be in [0, 1], got {threshold}")
    image = load_picture(picture)
    grey = inks.grey_of(np.asarray(image))
    seen = upright(net, grey)
    kept, dropped, left = split(seen.found, seen.ink, seen.best)
    tables, cell_of = placed(seen, kept)
    # a lone digit does not tell which side is up: a 6 may be a 9
    lone = round(seen.degrees) % 360 and sum(each.symbol.isdecimal() for each in kept) == 1
    weights: list[float] = net.line_weights.tolist()  # type: ignore[operator]  # a buffer
    scale = np.tile(np.array(upright_size(image)) / grey.shape[::-1], 2)
    readings = []
    for number, row in enumerate(in_rows(kept, tables, cell_of)):
        own = [each for each, _ in row if each]
        sure = confidence(evidence(own, dropped, left), weights) if own else 1.0
        digits = sum(each.symbol.isdecimal() for each in own)
        others = sum(each.symbol == OTHER for each in own)
        # in a line of digits what is none and no sign is a digit that cannot be made out
        unclear = digits > others
        # of words none is, nor of a doubtful line with other writing; of another one all are but
        # what is least probable
        is_word = others > digits or (sure < threshold and any(map(is_other, own)))
        least = math.inf if lone or is_word else threshold
        weakest = min((c for c in own if c.symbol.isdecimal()), key=lambda c: c.score, default=None)
        for each, column in row:
            is_digit = each is not None and (
                each.symbol.isdecimal() or (unclear and is_other(each))
            )
            about: dict[str, Any] = {"row": number, "column": column, "line": sure}
            about["is_candidate"] = is_digit
            box = tuple(np.array(place_of(seen, each) if each else (0, 0, 0, 0)) * scale)
            is_doubtful = each is weakest and sure < threshold
            readings.append(reading(seen, each, box, math.inf if is_doubtful else least, about))
    return readings


def is_other(each: Character) -> bool:
    """True of writing that the network found to be neither a digit nor a sign."""
    return each.symbol == OTHER and each.least > 0


def placed(seen: View, found: Sequence[Character]) -> tuple[list[Grid], list[Cell | None]]:
    """The grids that the characters are written in, and the cell of each character."""
    cells: list[Cell | None] = [None] * len(found)
    kept: list[Grid] = []
    for grid in grids(seen.best.rules):
        own = [
            None if cells[k] else grid.cell_of(*on_map(seen, each)) for k, each in enumerate(found)
        ]
        inside = [k for k, cell in enumerate(own) if cell is not None]
        whole = sum(fits(seen, grid, found[k], own[k]) for k in inside)
        if not inside or whole < INSIDE * len(inside):
            continue
        for k in inside:
            cells[k] = (len(kept), *own[k])  # type: ignore[misc]  # inside has a cell
        kept.append(grid)
    return kept, cells


def on_map(seen: View, each: Character) -> tuple[float, float]:
    """The middle of a character in the map of ruled lines."""
    left, top, right, bottom = each.box
    x, y = (
        ((a + b) / 2 * seen.best.zoom + MARGIN) / STRIDE - 0.5
        for a, b in ((left, right), (top, bottom))
    )
    return x, y


def fits(seen: View, grid: Grid, each: Character, cell: tuple[int, int] | None) -> bool:
    """True where a character is no higher than its cell."""
    x, y = on_map(seen, each)
    half = each.height * seen.best.zoom / STRIDE / 2 * 0.7
    return grid.cell_of(x, y - half) == cell == grid.cell_of(x, y + half)


Item = tuple[Character | None, int | None]  # a character, None in an empty cell, and its column


def in_rows(
    found: Sequence[Character], tables: Sequence[Grid], cells: Sequence[Cell | None]
) -> list[list[Item]]:
    """Characters by row, from top to bottom, each with its column in a grid."""
    rows: list[tuple[float, list[Item]]] = []
    free = [each for each, cell in zip(found, cells, strict=True) if cell is None]
    for line in lines(free):
        rows.append((level(line, 0.0), [(each, None) for each in line]))
    for number, grid in enumerate(tables):
        within: dict[tuple[int, int], list[Character]] = {}
        for each, cell in zip(found, cells, strict=True):
            if cell is not None and cell[0] == number:
                within.setdefault(cell[1:], []).append(each)
        height, width = grid.shape
        last = min(level([each], 0.0) for part in within.values() for each in part)
        for row in range(height):
            items: list[Item] = []
            for column in range(width):
                part = sorted(within.get((row, column), []), key=lambda each: each.box[0])
                items += [(each, column) for each in part] or [(None, column)]
            last = level([each for each, _ in items if each], last)
            rows.append((last, items))
    return [items for _, items in sorted(rows, key=lambda row: row[0])]


def level(line: Sequence[Character], empty: float) -> float:
    """The height at which a line stands; an empty one stands at the given height."""
    return float(np.mean([each.box[1] + each.box[3] for each in line])) if line else empty


def place_of(seen: View, each: Character) -> tuple[float, ...]:
    """The box of a character in pixels of the picture as it lies."""
    left, top, right, bottom = each.box
    corners = np.array([(x, y, 1) for x in (left, right) for y in (top, bottom)]).T
    x, y = seen.back @ corners
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def reading(
    seen: View, each: Character | None, box: Box, threshold: float, about: dict[str, Any]
) -> Reading:
    """The reading of a character, or of an empty cell."""
    empty = np.zeros((28, 28), np.uint8)
    if each is None:
        none = np.zeros(10, np.float32)
        return Reading(None, 0.0, none, box, empty, sign=" ", **about)
    chances = np.array([each.calibrated(float(p)) for p in each.probabilities[:10]], np.float32)
    sure = float(chances.max())
    left, top, right, bottom = (max(0, round(side)) for side in each.box)
    ink = seen.ink[top:bottom, left:right]
    return Reading(
        int(chances.argmax()) if each.symbol.isdecimal() and sure >= threshold else None,
        sure,
        chances,
        tuple(round(side) for side in box),  # type: ignore[arg-type]  # four sides
        centred(resized(ink, 20)) if ink.size and ink.max() > 0 else empty,
        rotation=round(seen.degrees) % 360,
        sign=each.symbol if each.symbol in SIGNS else UNKNOWN,
        **about,
    )
