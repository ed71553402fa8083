"""Reading of the digits and signs in a picture by a network."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mnist_cnn.config.messages import must_be
from mnist_cnn.data.picture import Source, load_picture, upright_size
from mnist_cnn.data.synthetic.sheet import OTHER, SIGNS, STRIDE, SYMBOLS
from mnist_cnn.detection.decode import Character
from mnist_cnn.detection.find import MARGIN
from mnist_cnn.detection.lines import confidence, evidence, lines, middles, slope_of, split
from mnist_cnn.detection.network import Detector
from mnist_cnn.detection.trained import shipped
from mnist_cnn.reading import ink as inks
from mnist_cnn.reading.grids import Grid, Points, grids
from mnist_cnn.reading.ink import centred, resized
from mnist_cnn.reading.reading import THRESHOLD, UNKNOWN, Reading
from mnist_cnn.reading.views import View, upright

INSIDE = 0.8  # minimum fraction of a grid's characters within one cell; else it is squared paper
Cell = tuple[int, int, int]  # grid, row, column
Net = Callable[[Tensor], Tensor]


def read_digits(
    picture: Source | Image.Image,
    net: Net | None = None,
    threshold: float = THRESHOLD,
    *,
    reader: Detector | None = None,
) -> list[Reading]:
    """Read the digits and signs of a picture, row by row from the top, each from left to right.

    The list is empty if there are none.

    Args:
        picture: a picture, or any source of `load_picture`.
        net: classifier of the digits that the reader finds: returns probabilities (N, 10) of uint8
            images (N, 28, 28), white on black. They are multiplied by the reader's probability that
            a digit is there. By default the reader classifies them.
        threshold: confidence in [0, 1] below which a digit is left unread, and below which the
            least certain digit of a line is. Digits among words are always left unread.
        reader: network that finds the characters, see `load_reader`; by default the shipped one.

    Raises:
        OSError, ValueError: the picture cannot be read, see `load_picture`; or the threshold, the
            net or the reader is invalid.
    """
    check(net, threshold, reader)
    image = picture if isinstance(picture, Image.Image) else load_picture(picture)
    grey = inks.grey_of(np.asarray(load_picture(image)))
    reader = shipped() if reader is None else reader
    seen = upright(reader, grey)
    kept, dropped, left = split(seen.found, seen.ink, seen.best)
    kept = classified(seen, kept, net) if net is not None else kept
    tables, cell_of = placed(seen, kept)
    weights: list[float] = reader.line_weights.tolist()  # type: ignore[operator]  # a buffer
    turn = round(seen.degrees) % 360
    # a lone digit does not tell which side is up: a 6 may be a 9
    lone = turn and sum(each.symbol.isdecimal() for each in kept) == 1
    scale = np.array(upright_size(image)) / grey.shape[::-1]
    readings = []
    for number, cell, line in in_lines(in_rows(seen, kept, tables, cell_of)):
        own = [each for each in line if each]
        sure = confidence(evidence(own, dropped, left), weights) if own else 1.0
        unread = left_unread(own, sure, threshold)
        # other writing there is an illegible digit, and the line right if its guess is
        illegible = [each for each in own if each.is_other] if lead(own) > 0 else []
        sure *= math.prod(each.digit_score for each in illegible)
        for each in line:
            about: dict[str, Any] = {"row": number, "rotation": turn, "line": sure}
            about["is_digit"] = each is not None and (
                each.symbol.isdecimal() or any(each is other for other in illegible)
            )
            about["turned"] = turn if lone and each and each.symbol.isdecimal() else 0
            if cell:
                around = on_picture(seen, cell_in(seen, tables, cell)) * scale
                about |= {"column": cell[2], "cell": tuple(map(tuple, around.round().tolist()))}
            place = on_picture(seen, corners_of(each.box)) * scale if each else around
            is_unread = lone or any(each is digit for digit in unread)
            least = math.inf if is_unread else threshold
            readings.append(reading(seen, each, place, least, about))
    return readings


def check(net: object, threshold: float, reader: object) -> None:
    """Raise ValueError for an invalid argument of `read_digits`."""
    if not 0 <= threshold <= 1:  # NaN is neither
        raise ValueError(must_be("threshold", "in [0, 1]", threshold))
    if net is not None and (not callable(net) or isinstance(net, Detector)):
        what = "a network of 28x28 digits, as load(PATH) gives it"
        raise ValueError(must_be("net", what, type(net).__name__))
    if reader is not None and not hasattr(reader, "line_weights"):
        what = "what load_reader(PATH) gives"
        raise ValueError(must_be("reader", what, type(reader).__name__))


def left_unread(line: Sequence[Character], sure: float, threshold: float) -> list[Character]:
    """Return the digits of a line that are left unread, whatever their scores.

    In words these are all digits. In a line whose digits are right with a probability `sure` below
    the threshold it is the least probable one, or all if there is other writing beside them.
    """
    digits = [each for each in line if each.symbol.isdecimal()]
    if lead(line) < 0 or (sure < threshold and any(each.is_other for each in line)):
        return digits
    return sorted(digits, key=lambda each: each.score)[: sure < threshold]


def lead(line: Sequence[Character]) -> int:
    """Return how many more digits a line has than characters that are neither digits nor signs."""
    kinds = [each.symbol for each in line]
    return sum(map(str.isdecimal, kinds)) - kinds.count(OTHER)


def classified(seen: View, found: Sequence[Character], net: Net) -> list[Character]:
    """Classify the digits among the characters by a network, in one batch."""
    digits = [each for each in found if each.symbol.isdecimal()]
    if not digits:
        return list(found)
    images = np.stack([crop(seen, each) for each in digits])
    with torch.inference_mode():
        chances = net(torch.from_numpy(images)).float().cpu().numpy()
    is_shaped = chances.shape == (len(images), 10)
    if not is_shaped or not ((chances >= 0) & (chances < 1.01)).all():  # NaN is neither
        got = f"numbers up to {chances.max():.3g}" if is_shaped else chances.shape
        raise ValueError(must_be("net", "one that gives probabilities (N, 10)", got))
    own = iter(np.pad(chances, ((0, 0), (0, len(SYMBOLS) - 10))))
    made = []
    for each in found:
        if each.symbol.isdecimal():
            there = each.calibrated(float(each.probabilities[:10].sum()))
            each = replace(each, found=there, probabilities=next(own), weights=(1.0, 0.0))
        made.append(each)
    return made


def crop(seen: View, each: Character) -> NDArray[np.uint8]:
    """Return a character in the format of MNIST: (28, 28), white on black."""
    left, top, right, bottom = (max(0, round(side)) for side in each.box)
    ink = seen.ink[top:bottom, left:right]
    return centred(resized(ink, 20)) if ink.size else np.zeros((28, 28), np.uint8)


def placed(seen: View, found: Sequence[Character]) -> tuple[list[Grid], list[Cell | None]]:
    """Return the grids that the characters are written in, and the cell of each character."""
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


def cell_in(seen: View, tables: Sequence[Grid], cell: Cell) -> Points:
    """Return the corners (4, 2) of a cell in the ink."""
    grid, row, column = cell
    return ((tables[grid].cell(row, column) + 0.5) * STRIDE - MARGIN) / seen.best.zoom


def on_map(seen: View, each: Character) -> tuple[float, float]:
    """Return the centre of a character in the map of ruled lines."""
    left, top, right, bottom = each.box
    x, y = (
        ((a + b) / 2 * seen.best.zoom + MARGIN) / STRIDE - 0.5
        for a, b in ((left, right), (top, bottom))
    )
    return x, y


def fits(seen: View, grid: Grid, each: Character, cell: tuple[int, int] | None) -> bool:
    """Return whether a character is no higher than its cell."""
    x, y = on_map(seen, each)
    half = each.height * seen.best.zoom / STRIDE / 2 * 0.7
    return grid.cell_of(x, y - half) == cell == grid.cell_of(x, y + half)


Item = tuple[Character | None, Cell | None]  # a character, None in an empty cell, and its cell


def in_rows(
    seen: View, found: Sequence[Character], tables: Sequence[Grid], cells: Sequence[Cell | None]
) -> list[list[Item]]:
    """Group characters into rows, from top to bottom, each with its cell in a grid."""
    slope = slope_of(found)
    rows: list[tuple[float, list[Item]]] = []
    free = [each for each, cell in zip(found, cells, strict=True) if cell is None]
    for line in lines(free):
        rows.append((level(middles(line), slope), [(each, None) for each in line]))
    for number, grid in enumerate(tables):
        within: dict[tuple[int, int], list[Character]] = {}
        for each, cell in zip(found, cells, strict=True):
            if cell is not None and cell[0] == number:
                within.setdefault(cell[1:], []).append(each)
        height, width = grid.shape
        for row in range(height):
            items: list[Item] = []
            own = [(number, row, column) for column in range(width)]
            for place in own:
                part = sorted(within.get(place[1:], []), key=lambda each: each.box[0])
                items += [(each, place) for each in part] or [(None, place)]
            # the position of its cells, empty ones included
            corners = np.concatenate([cell_in(seen, tables, cell) for cell in own])
            rows.append((level(corners, slope), items))
    return [items for _, items in sorted(rows, key=lambda row: row[0])]


def in_lines(
    rows: Sequence[Sequence[Item]],
) -> Iterator[tuple[int, Cell | None, list[Character | None]]]:
    """Yield a row's number, a cell and its characters; without cells, those of the whole row."""
    for number, row in enumerate(rows):
        for cell, items in itertools.groupby(row, lambda item: item[1]):
            yield number, cell, [each for each, _ in items]


def level(points: Points, slope: float) -> float:
    """Return the height at the left edge of a line of that slope through points (N, 2)."""
    x, y = points.mean(0)
    return float(y - slope * x)


def corners_of(box: Sequence[float]) -> Points:
    """Return the corners (4, 2) of a box."""
    left, top, right, bottom = box
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def on_picture(seen: View, points: Points) -> Points:
    """Convert points (N, 2) of the ink to pixels of the unrotated picture."""
    return np.pad(points, ((0, 0), (0, 1)), constant_values=1) @ seen.back.T


def reading(
    seen: View, each: Character | None, place: Points, threshold: float, about: dict[str, Any]
) -> Reading:
    """Return the reading of a character, or of an empty cell, with corners `place` (N, 2)."""
    box: Any = tuple(np.concatenate([place.min(0), place.max(0)]).round().astype(int).tolist())
    if each is None:
        none, empty = np.zeros(10, np.float32), np.zeros((28, 28), np.uint8)
        return Reading(None, 0.0, none, box, empty, sign=" ", **about)
    chances = np.array([each.calibrated(float(p)) for p in each.probabilities[:10]], np.float32)
    sure = float(chances.max())
    return Reading(
        int(chances.argmax()) if each.symbol.isdecimal() and sure >= threshold else None,
        sure,
        chances,
        box,
        crop(seen, each),
        sign=each.symbol if each.symbol in SIGNS else UNKNOWN,
        **about,
    )
