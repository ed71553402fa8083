"""Printed and drawn forms: boxes, tables and grids, each cell of which is read by itself."""

import itertools
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.rules.clutter import writing_size
from mnist_cnn.reading.ink import Mask

Contour = NDArray[Any]  # int32 (N, 1, 2)
Corners = NDArray[Any]  # float
Box = tuple[int, int, int, int]

LENGTH = 0.75  # of the straight strokes that make frames, in heights of the writing
RECTANGLE = 0.82  # of a cell's smallest rectangle is the cell; of a circle's are 0.79
SLACK = 0.2  # of a cell, by which a digit in it may cross its frame
COVERED = 0.45  # of what a frame encloses are its cells
WHOLE = 0.85  # of the rows and columns of a grid are cells
UNLIKE = 0.35  # of a grid's usual cell, by which one that is no whole cell differs from all others
MARGIN = 0.06  # of a cell, in which the frame may bulge
INSIDE = 0.2  # height of what is written in a cell, as a share of the cell's, at least
LARGEST = 0.5  # what is larger, as a share of the picture, frames the sheet


@dataclass(frozen=True)
class Cell:
    """The inside of a frame."""

    corners: Corners  # (4, 2), x and y in pixels of the ink map
    group: int  # cells that are drawn together have the same
    level: float = 0  # the height of the middle of its row
    column: int = 0


def find_frames(mask: Mask, written: Mask, ruled: Mask) -> tuple[NDArray[np.bool_], list[Cell]]:
    """The strokes that are frames, (H, W), and the cells within; of a circle there is one cell.

    Something must be written in one of the cells that are drawn together: the loops of a digit hold
    nothing.

    Args:
        mask: all strokes.
        written: of those darker ones without straight lines.
        ruled: these lines.
    """
    length = max(9, round(LENGTH * writing_size(written)))
    lines = _straight(mask & ~_digits(written, length) & 1, length)
    # outlines, and the holes in each
    contours, tree = cv2.findContours(lines, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    frame = np.zeros(mask.shape, np.uint8)
    cells: list[Cell] = []
    groups: dict[int, list[Contour]] = {}
    for n, hole in enumerate(contours):
        if tree[0, n, 3] >= 0 and cv2.contourArea(hole) > length**2 and _is_rectangle(hole):
            groups.setdefault(int(tree[0, n, 3]), []).append(hole)
    for outline, holes in groups.items():
        if sum(map(cv2.contourArea, holes)) < COVERED * cv2.contourArea(contours[outline]):
            continue  # sketched strokes enclose a little here and there
        small = [hole for hole in holes if cv2.contourArea(hole) < LARGEST * mask.size]
        found = [Cell(cv2.boxPoints(cv2.minAreaRect(hole)), outline) for hole in small]
        x, y, w, h = cv2.boundingRect(contours[outline])
        part = slice(y, y + h), slice(x, x + w)
        within = _inside(holes, in_grids(found), (x, y, w, h))
        empty = (ruled[part] & within).sum() < 0.3 * (written[part] & within).sum()
        if empty and _is_form(written[part], within, holes, (x, y)):
            outer = np.zeros((h, w), np.uint8)
            cv2.drawContours(outer, contours, outline, 1, -1, offset=(-x, -y))
            frame[part] |= outer & ~within & 1
            cells += found
    return (frame & mask) > 0, cells


def _inside(holes: list[Contour], cells: list[Cell], box: Box) -> Mask:
    """The ink within a frame's holes and cells, in a box: x, y, width, height."""
    # a stroke that touches the frame is a notch of the hole, not of its hull; but there, near its
    # border, a frame that is drawn by hand bulges
    x, y, w, h = box
    hulls = [*map(cv2.convexHull, holes), *(c.corners.round().astype(np.int32) for c in cells)]
    side = np.median([min(cv2.boundingRect(hull)[2:]) for hull in hulls])
    within: Mask = np.zeros((h, w), np.uint8)
    for hull in hulls:  # some overlap
        cv2.fillConvexPoly(within, hull - (x, y), 1)
    within = cv2.erode(within, np.ones((2 * round(MARGIN * side) + 1,) * 2, np.uint8))
    cv2.drawContours(within, holes, -1, 1, -1, offset=(-x, -y))
    return cv2.erode(within, np.ones((3, 3), np.uint8))


def _is_rectangle(hole: Contour) -> bool:
    _, sides, _ = cv2.minAreaRect(hole)
    return cv2.contourArea(cv2.convexHull(hole)) > RECTANGLE * sides[0] * sides[1] > max(sides)


def _straight(mask: Mask, length: int) -> Mask:
    """The level and the upright strokes, and dotted ones, a little thicker."""
    level, upright = (np.ones(size, np.uint8) for size in ((1, length), (length, 1)))
    along = cv2.dilate(mask, np.ones((3, 5), np.uint8))
    down = cv2.dilate(mask, np.ones((5, 3), np.uint8))
    lines = cv2.morphologyEx(along, cv2.MORPH_OPEN, level)
    lines = cv2.morphologyEx(lines, cv2.MORPH_CLOSE, level)  # where a digit crosses them
    others = cv2.morphologyEx(down, cv2.MORPH_OPEN, upright)
    return cv2.bitwise_or(lines, cv2.morphologyEx(others, cv2.MORPH_CLOSE, upright))


def _digits(written: Mask, length: int) -> Mask:
    """The strokes that are no part of a frame: about as high as writing, and not upright."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(written, connectivity=8)
    wide, high = stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT]
    lone = (high < 2 * length) & (wide < 2 * length) & (wide > 0.3 * high)
    lone &= (high > 0.9 * length) & (stats[:, cv2.CC_STAT_AREA] > 0.18 * wide * high)
    digits = lone[labels].astype(np.uint8)
    for n in np.flatnonzero(lone):  # without the frame's upright strokes that they touch
        x, y, w, h, _ = stats[n]
        digits[y : y + h, x : x + w] *= ~(labels[y : y + h, x : x + w] == n).all(0)
    return cv2.dilate(digits, np.ones((3, 3), np.uint8))


def _is_form(written: Mask, within: Mask, holes: list[Contour], origin: tuple[int, int]) -> bool:
    """True where something is as high as writing, and nearly all of that stands in one cell.

    On squared paper digits are written across the lines, which break there.
    """
    boxes = np.array([cv2.boundingRect(hole) for hole in holes]) - (*origin, 0, 0)
    x, y, wide, high = boxes.T
    _, labels, stats, _ = cv2.connectedComponentsWithStats(written, connectivity=8)
    inside = np.bincount(labels[within > 0], minlength=len(stats))
    filled, across = np.zeros(len(holes), int), 0
    for n, (left, top, width, height, area) in enumerate(stats.tolist()):
        is_high = INSIDE * np.median(high) < height < 2.5 * np.median(high)
        if n == 0 or not is_high or inside[n] < 0.5 * area:  # the rest of a frame
            continue
        slack = SLACK * np.minimum(wide, high)
        level = (x - slack <= left) & (left + width <= x + wide + slack)
        held = level & (y - slack <= top) & (top + height <= y + high + slack)
        filled, across = filled + held, across + (not held.any())
    sizes = [(wide * high)[which] for which in (filled > 0, filled == 0)]
    broken = all(map(len, sizes)) and np.median(sizes[0]) > 1.6 * np.median(sizes[1])
    return bool(filled.sum() > 4 * across and not broken)


def in_grids(cells: list[Cell]) -> list[Cell]:
    """The cells of grids, the few that are missing among them, with their rows and columns."""
    placed = []
    for number, group in itertools.groupby(cells, key=lambda cell: cell.group):
        corners = np.array([cell.corners for cell in group])
        # of the sides of each cell those that are nearer to level
        sides = np.diff(corners[:, :3], axis=1).reshape(-1, 2)
        sides = sides[np.abs(sides[:, 0]) > np.abs(sides[:, 1])]
        slope = float(np.median(sides[:, 1] / sides[:, 0])) if len(sides) else 0.0
        middles = corners.mean(1) @ np.array([[1, -slope], [slope, 1]])
        sizes = np.ptp(corners, axis=1)
        usual = np.median(sizes, axis=0)
        # a stroke may part a cell, or a rule between two be missed: no others are as those are
        alike = np.stack([_alike(*each) for each in zip(middles.T, sizes.T, usual, strict=True)])
        whole = (alike > np.median(alike, axis=1, keepdims=True) / 2).all(0)
        corners, (across, down) = corners[whole], middles[whole].T
        rows, columns = _ranks(down, 0.5 * usual[1]), _ranks(across, 0.5 * usual[0])
        if not WHOLE <= len(corners) / ((rows.max() + 1) * (columns.max() + 1)) <= 1:
            continue  # squared paper, of which parts are found, or many rules are missed
        known = dict(zip(zip(rows[::-1], columns[::-1], strict=True), corners[::-1], strict=True))
        for row in range(rows.max() + 1):
            level = float(corners[rows == row, :, 1].mean())
            for column in range(columns.max() + 1):
                own = known.get((row, column))
                if own is None:  # as the first of its column
                    far = down[rows == row].mean() - down[columns == column][0]
                    own = corners[columns == column][0] + far * np.array([-slope, 1])
                placed.append(Cell(own, number, level, column))
    return placed


def _alike(middles: Corners, sizes: Corners, usual: float) -> NDArray[np.int64]:
    """For each cell how many stand and are as large as it along one axis, itself among them."""
    each = zip(middles, sizes, strict=True)
    unlike = (np.abs(middles - own) / usual + np.abs(size / sizes - 1) for own, size in each)
    return np.array([(apart < UNLIKE).sum() for apart in unlike])


def _ranks(places: NDArray[np.float64], apart: float) -> NDArray[np.int64]:
    """The rank of each place, from 0; places that are less far apart share theirs."""
    order = np.argsort(places)
    ranks = np.empty(len(places), np.int64)
    ranks[order] = np.concatenate([[0], np.cumsum(np.diff(places[order]) > apart)])
    return ranks
