"""The lines and grids that characters stand in."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnist_cnn.detection.decode import Character

Points = NDArray[np.float64]  # (N, 2), x and y
LOW = ".,"  # signs at the foot of a line


@dataclass(frozen=True)
class Placed:
    """A character with its line and, in a grid or a table, its column."""

    character: Character
    row: int
    column: int | None = None


def middles(found: Sequence[Character]) -> Points:
    """The middles (N, 2) of boxes."""
    boxes = np.array([each.box for each in found], np.float64).reshape(-1, 4)
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def slope_of(found: Sequence[Character]) -> float:
    """The slope of the lines of writing, downwards: the median over neighbours that stand level."""
    tall = [each for each in found if each.symbol.isdecimal()]
    if len(tall) < 2:
        return 0.0
    places = middles(tall)
    heights = np.array([each.height for each in tall])
    apart = places[None] - places[:, None]  # [i, j] from i to j
    room = np.maximum(heights[:, None], heights[None])
    beside = (
        (apart[..., 0] > 0.1 * room)
        & (apart[..., 0] < 2.5 * room)
        & (abs(apart[..., 1]) < 0.6 * room)
    )
    slopes = []
    for i in np.flatnonzero(beside.any(1)):
        j = int(np.where(beside[i], apart[i, :, 0], np.inf).argmin())
        slopes.append(apart[i, j, 1] / apart[i, j, 0])
    return float(np.median(slopes)) if slopes else 0.0


def lines(found: Sequence[Character]) -> list[list[Character]]:
    """Characters by line, lines from top to bottom, each from left to right."""
    if not found:
        return []
    slope = slope_of(found)
    places = middles(found)
    level = places[:, 1] - slope * places[:, 0]
    heights = np.array([each.height for each in found])
    tall = np.array([each.symbol.isdecimal() or each.symbol not in ".,:-=°÷" for each in found])
    rows: list[list[int]] = []
    for k in np.argsort(level):
        if not tall[k]:
            continue
        if rows:
            last = rows[-1]
            height = float(np.median(heights[last]))
            if level[k] - float(np.mean(level[last])) < 0.5 * max(
                height, min(heights[k], 2 * height)
            ):
                last.append(int(k))
                continue
        rows.append([int(k)])
    for k in np.flatnonzero(~tall):
        foot = [
            abs(float(np.mean(level[row])) - level[k]) / float(np.median(heights[row]))
            for row in rows
        ]
        if foot and min(foot) < 0.9:
            rows[int(np.argmin(foot))].append(int(k))
    return [[found[k] for k in sorted(row, key=lambda k: places[k, 0])] for row in rows]
