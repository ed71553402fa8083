"""Connected strokes, joined to the shapes that may be digits, and these in lines of writing."""

import itertools
from collections import Counter
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.rules.frames import Cell, in_grids
from benchmarks.rules.strokes import Strokes
from mnist_cnn.reading.ink import Ink, Mask, breadth, stroke_width

SMALLEST, LOWEST = 0.008, 8  # height of a digit: share of the longer side, and in pixels
BESIDE = 0.7  # of a cell, from its middle: what stands there is read with it
FORM, SINGLE = 3, 0.7  # of so many filled cells this share holds one shape: each is for one digit
MOST_PIECES = 3000  # a picture in more pieces is noise or a page of print
# of an i's dot, in heights of the line: its size, and how far above the i it stands
SMALLEST_DOT, LARGEST_DOT, DOT_GAP = 0.1, 0.35, 0.45
SHADING = 0.15  # ink at the border that may be none
FAINTEST_SHAPE = 0.45  # ink of a shape as a share of the usual one: what is fainter shows through


class TooManyStrokesError(ValueError):
    """A picture has more separate strokes than can be put in lines."""


@dataclass(frozen=True)
class Row:
    """A line of writing: its shapes from left to right, and its punctuation."""

    shapes: list[Strokes]
    punctuation: list[Strokes]
    number: int = 0  # from the top
    column: int | None = None  # of a cell
    is_single: bool = False  # it is one digit, as in the other cells


def find_rows(ink: Ink, mask: Mask) -> list[Row]:
    """The lines of writing from top to bottom.

    Raises:
        TooManyStrokesError: there are more than MOST_PIECES strokes.
    """
    pieces, labels = _pieces(mask)
    if not pieces:
        return []
    # half of all ink is in higher pieces: dots and dashes weigh little
    size = float(np.median(np.concatenate([np.full(p.mask.sum(), p.height) for p in pieces])))
    owner = np.arange(len(pieces) + 1)  # label -> label of the shape that it belongs to
    for label in sorted(range(1, len(pieces) + 1), key=lambda n: pieces[n - 1].extent):
        partner = _partner(label, pieces, labels, size)
        if partner:
            owner[owner == owner[label]] = owner[partner]
    shapes = [joined([pieces[n - 1] for n in np.flatnonzero(owner == o)]) for o in set(owner[1:])]
    smallest = max(LOWEST, SMALLEST * breadth(mask.shape), 0.35 * size)
    is_large = [shape.height >= smallest and _is_written(shape) for shape in shapes]
    large = list(itertools.compress(shapes, is_large))
    if not large:
        return []
    level = float(np.median([_darkness(ink, shape) for shape in large]))
    edges = np.array((0, 0, *mask.shape[::-1]))  # which shading touches
    least = [max(FAINTEST_SHAPE * level, SHADING * (edges == s.box).any()) for s in large]
    lines = _rows([s for s, dark in zip(large, least, strict=True) if _darkness(ink, s) > dark])
    rest = [shape for shape, is_one in zip(shapes, is_large, strict=True) if not is_one]
    small = [s for s in rest if not _is_rule(s, size) and _darkness(ink, s) > 0.7 * level]
    # a comma or a dash that is as high as a low digit makes no line of its own
    low = [row for row in lines if len(row) == 1 and row[0].height < 0.6 * size]
    lines = [row for row in lines if not any(row is each for each in low)]
    for row in low:
        if any(_is_mark(row[0], other) for other in lines):
            small += row
        else:
            lines.append(row)
    rows = [Row(row, [mark for mark in small if _is_mark(mark, row)]) for row in lines]
    return sorted(rows, key=lambda row: np.mean([d.box[1] + d.box[3] for d in row.shapes]))


def _darkness(ink: Ink, shape: Strokes) -> float:
    """The mean ink of a shape."""
    left, top, right, bottom = shape.box
    return float(ink[top:bottom, left:right][shape.mask > 0].mean())


def _rows(shapes: list[Strokes]) -> list[list[Strokes]]:
    """Lines of writing; a shape belongs to that of its left neighbour.

    Neighbours rather than a common height: a line of writing may slope.
    """
    rows: list[list[Strokes]] = []
    for shape in sorted(shapes, key=lambda d: d.box[0] + d.box[2]):
        # the last two: one of them may be a low letter or a raised digit
        shared = [max(_shared_height(last, shape) for last in row[-2:]) for row in rows]
        if max(shared, default=0) > 0.4:
            rows[int(np.argmax(shared))].append(shape)
        else:
            rows.append([shape])
    return rows


def _shared_height(a: Strokes, b: Strokes) -> float:
    overlap = min(a.box[3], b.box[3]) - max(a.box[1], b.box[1])
    return overlap / min(a.height, b.height)


def _is_mark(small: Strokes, row: list[Strokes]) -> bool:
    """True for a point, a comma or a dash of a line of writing.

    It stands beside a digit of the line, at most about a digit's height away.
    """
    left, top, right, bottom = small.box
    apart = [max(d.box[0] - right, left - d.box[2]) / d.height for d in row]
    return min(apart) > -0.05 and any(
        0.25 < ((top + bottom) / 2 - near.box[1]) / near.height < 1.15  # 0 at the digit's top
        and bottom < near.box[3] + 0.35 * near.height
        and min(small.width, small.height) > 0.05 * near.height
        for near, far in zip(row, apart, strict=True)
        if far < 1.2
    )


def _pieces(mask: Mask) -> tuple[list[Strokes], NDArray[np.int32]]:
    """Connected strokes without specks; piece n has label n + 1."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    extent = np.maximum(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT])
    keep = extent >= max(3, SMALLEST / 3 * breadth(mask.shape))
    keep[0] = False
    if keep.sum() > MOST_PIECES:
        raise TooManyStrokesError(
            f"the picture: {keep.sum():,} strokes, over {MOST_PIECES:,}: crop it to the digits"
        )
    pieces = []
    for label in np.flatnonzero(keep):
        left, top, width, height = stats[label, :4].tolist()
        part = labels[top : top + height, left : left + width] == label
        box = left, top, left + width, top + height
        pieces.append(Strokes(box, part.astype(np.uint8)))
    return pieces, (keep.cumsum() * keep).astype(np.int32)[labels]


def _is_rule(piece: Strokes, size: float) -> bool:
    """True for a line under digits or between them."""
    return piece.width > size and piece.height < 0.5 * size and not _is_written(piece)


def _partner(label: int, pieces: list[Strokes], labels: NDArray[np.int32], size: float) -> int:
    """The label of the piece that an incomplete piece belongs to, 0 if it stands alone.

    A 5's flag lies over its body; the halves of a broken 4 nearly touch.
    """
    piece = pieces[label - 1]
    speck = 0.2 * size  # what a digit does not miss; dots lie about
    if piece.height > 0.75 * size or piece.extent < SMALLEST_DOT * size or _is_rule(piece, size):
        return 0
    is_dot = piece.extent < LARGEST_DOT * size
    left, top, right, bottom = piece.box
    reach = max(3, round((DOT_GAP if is_dot else 0.25) * size))
    y, x = max(0, top - reach), max(0, left - reach)
    around = labels[y : bottom + reach, x : right + reach]
    gap = cv2.distanceTransform((around != label).astype(np.uint8), cv2.DIST_L2, 5)
    best, least = 0, float(reach)
    for other in np.setdiff1d(around, (0, label)):
        mate = pieces[other - 1]
        if mate.extent < speck or _is_rule(mate, size):
            continue
        height = max(bottom, mate.box[3]) - min(top, mate.box[1])  # of both
        if height > (1.8 if is_dot else 1.5) * max(size, mate.height):
            continue
        shared = min(right, mate.box[2]) - max(left, mate.box[0])
        is_over = bottom < mate.box[1] + 3  # as a flag, of which little may lie above the body
        stacked = shared > (0.15 if is_over else 0.5) * min(piece.width, mate.width)
        near = float(gap[around == other].min())
        over = is_dot and stacked and bottom <= mate.box[1]
        if not over and (piece.extent < speck or near > 0.25 * size):
            continue
        if near < least and (stacked or near < 0.1 * size):
            best, least = int(other), near
    return best


def joined(pieces: list[Strokes]) -> Strokes:
    lefts, tops, rights, bottoms = zip(*(piece.box for piece in pieces), strict=True)
    box = min(lefts), min(tops), max(rights), max(bottoms)
    mask = np.zeros((box[3] - box[1], box[2] - box[0]), np.uint8)
    for piece in pieces:
        left, top = piece.box[0] - box[0], piece.box[1] - box[1]
        mask[top : top + piece.height, left : left + piece.width] |= piece.mask
    return Strokes(box, mask)


def _is_written(shape: Strokes) -> bool:
    """False for dashes, underlines and filled areas."""
    if shape.width > 3 * shape.height:
        # touching digits are wide too, but no single stroke
        return float(shape.mask.sum()) > 1.7 * shape.width * stroke_width(shape.mask)
    filled = shape.mask.mean()
    return bool(shape.width < 0.6 * shape.height or filled < 0.85)


def by_cells(rows: list[Row], cells: list[Cell]) -> list[Row]:
    """Lines of writing with their numbers, each cell by itself.

    An empty cell is a line with nothing but its box.
    """
    cells = in_grids(cells)
    corners = np.array([cell.corners for cell in cells]).reshape(-1, 4, 2)
    own: dict[tuple[int, int], Row] = {}  # by the cell that it stands in, -1 for none, and its line
    for n, row in enumerate(rows):
        for several, name in ((row.shapes, "shapes"), (row.punctuation, "punctuation")):
            for shape in several:
                middle = np.array([shape.box[0] + shape.box[2], shape.box[1] + shape.box[3]]) / 2
                far = (np.abs(middle - corners.mean(1)) / np.ptp(corners, axis=1)).max(1)
                k = int(np.argmin(far)) if far.min(initial=1) < BESIDE else -1
                getattr(own.setdefault((k, n), Row([], [])), name).append(shape)
    held = Counter(k for (k, _), row in own.items() for _ in row.shapes if k >= 0)
    if len(held) >= FORM and list(held.values()).count(1) >= SINGLE * len(held):
        for k in held:
            inside = [at for at in own if at[0] == k]
            digit = joined([shape for at in inside for shape in own[at].shapes])
            if digit.width < 2 * digit.height:  # not several
                own = {at: row for at, row in own.items() if at not in inside}
                own[k, 0] = Row([digit], [], is_single=True)
    for k in set(range(len(cells))) - {k for k, _ in own}:
        x, y, wide, high = cv2.boundingRect(cells[k].corners.astype(np.float32))
        own[k, 0] = Row([], [Strokes((x, y, x + wide, y + high), np.zeros((high, wide), np.uint8))])
    placed: list[tuple[float, int, int, int, Row]] = []
    for (k, n), row in own.items():
        middles = [(s.box[1] + s.box[3]) / 2 for s in row.shapes + row.punctuation]
        cell = cells[k] if k >= 0 else Cell(np.zeros((4, 2)), -1, float(np.mean(middles)), -1)
        placed.append((cell.level, cell.group, cell.column, n, row))
    placed.sort(key=lambda each: each[:4])
    lines = enumerate(itertools.groupby(placed, key=lambda each: each[:2]))
    return [
        replace(row, number=number, column=column if column >= 0 else None)
        for number, (_, line) in lines
        for _, _, column, _, row in line
    ]
