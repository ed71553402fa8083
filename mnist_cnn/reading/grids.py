"""Grids of cells, found in the map of ruled lines."""

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mnist_cnn.data.synthetic.strokes import Array, Points
from mnist_cnn.detection.lines import RULED

LEAST_SIDE = 4  # minimum side of a cell, in cells of the map
RECTANGLE = 0.75  # minimum fraction of its rectangle that a cell fills, in perspective too
BESIDE = 0.4  # maximum offset of the next cell, as a fraction of a side
LEAST_CELLS = 4


@dataclass(frozen=True)
class Grid:
    """Cells in rows and columns, and the homography from (column, row) to points of the map."""

    shape: tuple[int, int]  # rows, columns
    place: NDArray[np.float64]  # (3, 3), from (column, row, 1) to cells of the map

    def cell_of(self, x: float, y: float) -> tuple[int, int] | None:
        """Return the row and column of a point, or None outside."""
        try:
            u, v, w = np.linalg.solve(self.place, [x, y, 1.0])
        except np.linalg.LinAlgError:  # fitted to cells of which most are in one row
            return None
        with np.errstate(all="ignore"):  # at infinity w is 0
            column, row = np.floor([u / w, v / w])
        is_inside = 0 <= row < self.shape[0] and 0 <= column < self.shape[1]
        return (int(row), int(column)) if is_inside else None

    def cell(self, row: int, column: int) -> Points:
        """Return the corners (4, 2) of a cell, clockwise from the upper left."""
        unit = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float64)
        return cv2.perspectiveTransform(unit[None] + (column, row), self.place)[0]


def cells(rules: Array) -> Points:
    """Return the corners (N, 4, 2) of areas enclosed by lines, clockwise from the upper left."""
    mask = (rules > RULED).astype(np.uint8)
    contours, levels = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    found = []
    for contour, (*_, parent) in zip(
        contours, levels[0] if levels is not None else (), strict=True
    ):
        if parent < 0:
            continue
        hull = cv2.convexHull(contour)[:, 0].astype(np.float64)
        _, (a, b), _ = cv2.minAreaRect(hull.astype(np.float32))
        if min(a, b) < LEAST_SIDE or cv2.contourArea(contour) < RECTANGLE * a * b:
            continue
        total, apart = hull.sum(1), hull[:, 0] - hull[:, 1]
        ends = hull[[total.argmin(), apart.argmax(), total.argmax(), apart.argmin()]]
        found.append(ends)
    return np.array(found, np.float64).reshape(-1, 4, 2)


def grids(rules: Array) -> list[Grid]:
    """Find the grids in a map of ruled lines (h, w), in cells of the map, the largest first."""
    corners = cells(rules)
    middle = corners.mean(1)
    right = (corners[:, 1] - corners[:, 0] + corners[:, 2] - corners[:, 3]) / 2
    down = (corners[:, 3] - corners[:, 0] + corners[:, 2] - corners[:, 1]) / 2
    thick = 2.0  # of a line, in cells of the map
    right *= 1 + thick / np.linalg.norm(right, axis=1, keepdims=True)
    down *= 1 + thick / np.linalg.norm(down, axis=1, keepdims=True)
    beside: list[list[tuple[int, int, int]]] = [[] for _ in middle]
    for k in range(len(middle)):
        for way, step in ((right, (1, 0)), (down, (0, 1))):
            apart = np.linalg.norm(middle - middle[k] - way[k], axis=1) / np.linalg.norm(way[k])
            n = int(apart.argmin())
            alike = 0.6 < np.linalg.norm(way[n]) / np.linalg.norm(way[k]) < 1.6
            if n != k and apart[n] < BESIDE and alike:
                beside[k].append((n, *step))
                beside[n].append((k, -step[0], -step[1]))
    places: dict[int, tuple[int, int]] = {}
    made = []
    for k in range(len(middle)):
        if k in places:
            continue
        own, queue = {k: (0, 0)}, deque([k])
        while queue:
            n = queue.popleft()
            for other, x, y in beside[n]:
                if other not in own:
                    own[other] = own[n][0] + x, own[n][1] + y
                    queue.append(other)
        places |= own
        if len(own) >= LEAST_CELLS and (grid := fitted(corners, own)) is not None:
            made.append((len(own), grid))
    return [grid for _, grid in sorted(made, key=lambda each: -each[0])]


def fitted(corners: Points, own: dict[int, tuple[int, int]]) -> Grid | None:
    """Fit a grid to cells whose columns and rows are known."""
    keys = list(own)
    at = np.array([own[k] for k in keys], np.float64)
    at -= at.min(0)
    columns, rows = (at.max(0) + 1).astype(int).tolist()
    plane = at + 0.5
    ends = corners[keys].mean(1)
    if min(columns, rows) == 1:  # the centres of a single row are collinear, its corners are not
        unit = np.array([(0.06, 0.06), (0.94, 0.06), (0.94, 0.94), (0.06, 0.94)])
        plane = (at[:, None] + unit).reshape(-1, 2)
        ends = corners[keys].reshape(-1, 2)
    place, _ = cv2.findHomography(plane, ends, cv2.RANSAC, 2.0)
    return None if place is None else Grid((rows, columns), np.asarray(place, np.float64))
