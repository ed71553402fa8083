"""Places where digits that touch may be cut apart.

Over-segmentation as of LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998,
section V: more cuts than there are digits; the reader chooses among what lies between them.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.rules.strokes import Strokes
from mnist_cnn.reading.ink import Ink, stroke_width

HEIGHT = 40  # of the strokes that cuts are looked for in, in pixels
SWAY = 14  # how far a cut may end beside its start, in such pixels
NARROWEST = 0.7  # width of what may be several digits as a share of its height
NARROWEST_ALONE = 1.35
DEAREST = 3.2  # ink that a cut may cross, in widths of the pen
MOST = 12  # cuts of one shape


def cut(shape: Strokes, alone: bool) -> tuple[list[Strokes], list[float]]:
    """The parts of a shape, from the left, and the ink that each cut between two crosses.

    That ink is in widths of the pen; a shape without cuts is its own only part.

    Args:
        alone: nothing else stands in its line, so that its width says more than it does in a row.
    """
    height, width = shape.mask.shape
    if width < (NARROWEST_ALONE if alone else NARROWEST) * height:
        return [shape], []
    zoom = HEIGHT / height
    size = max(1, round(width * zoom)), HEIGHT
    small: Ink = cv2.resize(shape.mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    pen = max(1.0, stroke_width(shape.mask) * zoom)
    paths, costs = _cheapest_paths(small / pen)
    chosen = _chosen(small, paths, costs)
    if not chosen:
        return [shape], []
    chosen.sort(key=lambda k: float(paths[k].mean()))
    right = sum(np.arange(small.shape[1]) >= paths[k][:, None] for k in chosen)
    side = cv2.resize(np.asarray(right, np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    parts, crossed = [], []
    for n in range(len(chosen) + 1):
        part = _tidied(shape, side == n)
        if part is not None:
            parts.append(part)
            crossed.append(float(costs[chosen[n]]) if n < len(chosen) else 0.0)
    return parts, crossed[:-1]


def _cheapest_paths(ink: Ink) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """From each column at the top the way down through the least ink: columns (W, H), ink (W,)."""
    height, width = ink.shape
    padded = np.pad(ink, ((0, 0), (SWAY, SWAY)), constant_values=0)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * SWAY + 1, axis=1)  # (H, W, 29)
    total = np.full((width, 2 * SWAY + 1), np.inf)
    total[:, SWAY] = windows[0, :, SWAY]
    steps = np.zeros((height, width, 2 * SWAY + 1), np.int8)
    sideways = 0.03  # so that straight ways are preferred
    for y in range(1, height):
        beside = np.full((3, *total.shape), np.inf)
        beside[0, :, 1:] = total[:, :-1] + sideways
        beside[1] = total
        beside[2, :, :-1] = total[:, 1:] + sideways
        steps[y] = beside.argmin(0) - 1
        total = beside.min(0) + windows[y]
    at = total.argmin(1)
    costs = total[np.arange(width), at]
    paths = np.empty((width, height), np.int64)
    for y in range(height - 1, -1, -1):
        paths[:, y] = np.arange(width) + at - SWAY
        at = at + steps[y, np.arange(width), at]
    return paths, costs


def _chosen(small: Ink, paths: NDArray[np.int64], costs: NDArray[np.float64]) -> list[int]:
    """The cheapest of the paths, apart from each other, with some ink on both sides."""
    before = np.pad(small.cumsum(1), ((0, 0), (1, 0)))  # ink of a row left of each column
    rows = np.arange(HEIGHT)
    left = np.array([before[rows, path.clip(0, small.shape[1])].sum() for path in paths])
    share = left / small.sum()
    chosen: list[int] = []
    for k in np.argsort(costs, kind="stable"):
        if costs[k] > DEAREST or len(chosen) == MOST:
            break
        apart = all(np.abs(paths[k] - paths[other]).mean() > HEIGHT / 6 for other in chosen)
        if 0.05 < share[k] < 0.95 and apart:
            chosen.append(int(k))
    return chosen


def _tidied(shape: Strokes, side: NDArray[np.bool_]) -> Strokes | None:
    """The strokes between two cuts, without slivers of the neighbours; None if that is nothing."""
    own = shape.mask * side.astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(own, connectivity=8)
    area = stats[:, cv2.CC_STAT_AREA].copy()
    area[0] = 0
    if not area.any():
        return None
    own = (area >= 0.12 * area.sum())[labels].astype(np.uint8)
    x, y, width, height = cv2.boundingRect(own)
    left, top = shape.box[0] + x, shape.box[1] + y
    return Strokes((left, top, left + width, top + height), own[y : y + height, x : x + width])
