"""The lines that characters stand in, and what tells of errors in a line."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from mnist_cnn.data.synthetic.sheet import STRIDE
from mnist_cnn.data.synthetic.strokes import Array
from mnist_cnn.detection.decode import Character
from mnist_cnn.detection.find import MARGIN, Found

Points = NDArray[np.float64]  # (N, 2), x and y
RULED = 0.4  # the probability from which ink is a ruled line's
INKED = 0.4  # of the pen's ink is written
KEPT = 0.3  # the probability from which a character is read
LEAST = 0.02  # the least probability of which the logarithm counts
TALL = 0.5  # of a line's height are its digits, or more


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


def unexplained(ink: Array, found: Sequence[Character], best: Found) -> Array:
    """Where in ink (H, W) something is written that is neither a character nor a ruled line."""
    left = (ink > INKED).astype(np.uint8)
    rules = cv2.dilate((best.rules > RULED).astype(np.uint8), np.ones((3, 3), np.uint8))
    scale = best.zoom / STRIDE
    matrix = np.array([[scale, 0, MARGIN / STRIDE - 0.5], [0, scale, MARGIN / STRIDE - 0.5]])
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    left[cv2.warpAffine(rules, matrix, ink.shape[::-1], flags=flags) > 0] = 0
    for each in found:
        rim = 0.1 * each.height
        x0, y0, x1, y1 = each.box
        own = np.s_[
            max(0, round(y0 - rim)) : round(y1 + rim), max(0, round(x0 - rim)) : round(x1 + rim)
        ]
        left[own] = 0
    return left


def split(found: Sequence[Character]) -> tuple[list[Character], list[Character]]:
    """Characters that are probable enough to be read, and the others."""
    kept: list[Character] = []
    dropped: list[Character] = []
    for each in found:
        (kept if each.score > KEPT else dropped).append(each)
    return kept, dropped


def band(line: Sequence[Character]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of where more digits of a line would stand."""
    tall = [each for each in line if each.symbol.isdecimal()] or line
    top, bottom = (float(np.median([each.box[k] for each in tall])) for k in (1, 3))
    beside = 0.8 * (bottom - top)
    left, right = min(each.box[0] for each in line), max(each.box[2] for each in line)
    return left - beside, top, right + beside, bottom


def evidence(
    line: Sequence[Character], dropped: Sequence[Character], left: Array
) -> NDArray[np.float64]:
    """Return what tells of errors in the digits of a line (EVIDENCE,), each the more the greater.

    The negative logarithms of its digits' scores, and of the least scores at any zoom; that of the
    chance that no sign is a digit; the score of the likeliest digit that was dropped; ink that
    nothing explains, in quarters of a squared height; the number of digits, in tens.

    Args:
        line: its characters.
        dropped: those of the whole page that are not probable enough.
        left: ink that nothing explains, see `unexplained`.
    """
    digits = [each for each in line if each.symbol.isdecimal()]
    signs = [each for each in line if not each.symbol.isdecimal()]
    x0, y0, x1, y1 = band(line)
    height = max(1.0, y1 - y0)
    beside = [0.0]
    for each in dropped:
        x, y = (each.box[0] + each.box[2]) / 2, (each.box[1] + each.box[3]) / 2
        if x0 < x < x1 and y0 < y < y1 and each.height > TALL * height:
            beside.append(each.digit_score)
    part = left[max(0, round(y0)) : max(0, round(y1)), max(0, round(x0)) : max(0, round(x1))]
    return np.array(
        [
            -sum(np.log(each.score) for each in digits),
            -sum(np.log(max(each.least, LEAST)) for each in digits),
            -sum(np.log(max(1 - each.digit_score, LEAST)) for each in signs),
            max(beside),
            min(1.0, 4 * float(part.sum()) / height**2),
            0.1 * len(digits),
        ]
    )


def confidence(of: NDArray[np.float64], weights: Sequence[float]) -> float:
    """Return the probability that the digits of a line are right, by evidence (EVIDENCE,)."""
    return float(1 / (1 + np.exp(-(of @ np.array(weights[:-1]) + weights[-1]))))
