"""Cuts between digits that touch."""

import cv2
import numpy as np
from numpy.typing import NDArray

from mnist_cnn.reading.strokes import Strokes, stroke_width

NARROWEST_PAIR = 1.25  # width of two touching digits as a share of their height


def split_touching(digit: Strokes) -> list[Strokes]:
    """Cuts neighbours apart that touch in one place."""
    if digit.width < NARROWEST_PAIR * digit.height:
        return [digit]
    # a slanting stroke is wider across; a cut through a 0 meets ink twice
    halves = _halves(digit, strokes=1, limit=2.2)
    return [part for half in halves for part in split_touching(half)] if halves else [digit]


def doubtful_halves(digit: Strokes) -> tuple[Strokes, ...]:
    """What a wide digit may be cut into if a reader finds two digits likelier than one."""
    if digit.width < 0.9 * digit.height:
        return ()
    return _halves(digit, strokes=2, limit=3)


def _halves(digit: Strokes, strokes: int, limit: float) -> tuple[Strokes, ...]:
    """Both sides of the cut through the least ink, or nothing.

    A cut meets ink at most so many times, limit times the pen's width in all, and both sides are
    as high as a digit: what it could take of a 2's tail or a 5's flag is low.
    """
    height, width = digit.mask.shape
    rows, columns = np.indices(digit.mask.shape)
    pen = stroke_width(digit.mask)
    apart = int(max(pen / 2, width / 24))
    off_middle = np.abs(np.arange(width) - width / 2) / width
    for slant in (0.0, 0.25, -0.25, 0.5):  # writing leans to the right more often
        shear = np.array([[1, slant, -slant * height / 2], [0, 1, 0]], np.float32)
        upright = cv2.warpAffine(digit.mask, shear, (width, height), flags=cv2.INTER_NEAREST)
        ink = upright.sum(0, dtype=np.int64)
        crossings = (np.diff(upright, axis=0, prepend=0) == 1).sum(0)
        across = columns + slant * (rows - height / 2)
        tried = np.zeros(width, bool)
        for x in np.argsort(ink + 2 * pen * off_middle):
            if crossings[x] <= strokes and ink[x] <= limit * pen and not tried[x]:
                # columns side by side cut alike, and in a large picture there are many
                tried[max(0, x - apart) : x + apart + 1] = True
                first, second = _part(digit, across < x), _part(digit, across >= x)
                if _is_whole(first, height) and _is_whole(second, height):
                    return first, second
    return ()


def _is_whole(part: Strokes, height: int) -> bool:
    """Whether part of touching ink is as high as a digit, with ink all the way down."""
    if part.height < 0.7 * height:
        return False
    thirds = [third.sum() for third in np.array_split(part.mask, 3)]
    return min(thirds) > 0.1 * sum(thirds)


def _part(digit: Strokes, side: NDArray[np.bool_]) -> Strokes:
    """The largest piece of a digit on one side of a cut; it may be empty."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(digit.mask * side, connectivity=8)
    stats[0, cv2.CC_STAT_AREA] = 0
    label = int(stats[:, cv2.CC_STAT_AREA].argmax())
    if label == 0:
        return Strokes((0, 0, 0, 0), np.zeros((0, 0), np.uint8))
    left, top, width, height = (int(n) for n in stats[label, :4])
    x, y = digit.box[0] + left, digit.box[1] + top
    mask = labels[top : top + height, left : left + width] == label
    return Strokes((x, y, x + width, y + height), mask.astype(np.uint8))
