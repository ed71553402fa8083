"""Lines of characters, and evidence of errors in a line."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.special import expit

from mnist_cnn.data.synthetic.sheet import OTHER, SIGNS, STRIDE, SYMBOLS, Box
from mnist_cnn.data.synthetic.strokes import Array, Points
from mnist_cnn.detection.decode import Character
from mnist_cnn.detection.find import Found

RULED = 0.4  # probability above which ink belongs to a ruled line
INKED = 0.4  # ink above which a pixel is written, as a fraction of the pen's
PROBABLE = 0.5  # score above which a character is read
KEPT = 0.3  # score above which one that is no sign is read where nothing else explains its ink
BARE = 0.5  # minimum fraction of such a character's ink that nothing else explains
RIM = 0.1  # margin around a character's box, as a fraction of its height
LEAST = 0.02  # lower bound of probabilities in logarithms
ASIDE = ".,:°%"  # signs whose centres are not at half the height of a line
TALL = 0.5  # minimum height of a line's digits, as a fraction of the line's height


def middles(found: Sequence[Character]) -> Points:
    """Return the centres (N, 2) of boxes."""
    boxes = np.array([each.box for each in found], np.float64).reshape(-1, 4)
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def slope_of(found: Sequence[Character]) -> float:
    """Return the slope of the lines of writing, downwards: the median over level neighbours."""
    tall = [each for each in found if each.symbol not in ASIDE]
    if len(tall) < 2:
        return 0.0
    heights, places = np.array([each.height for each in tall]), middles(tall)
    slopes = []
    for height, place in zip(heights, places, strict=True):  # all at once would take N x N numbers
        x, y = (places - place).T
        room = np.maximum(heights, height)
        beside = (x > 0.1 * room) & (x < 2.5 * room) & (abs(y) < 0.6 * room)
        if beside.any():
            closest = np.where(beside, x, np.inf).argmin()
            slopes.append(y[closest] / x[closest])
    return float(np.median(slopes)) if slopes else 0.0


def leaning(digits: Sequence[Character]) -> float:
    """Return the median angle, up to 45 degrees, from nearest neighbours to the closest axis."""
    if len(digits) < 3:
        return 0.0
    places = middles(digits)
    _, nearest = cKDTree(places).query(places, 2)  # the first is the digit itself
    x, y = (places[nearest[:, 1]] - places[nearest[:, 0]]).T
    angles = np.degrees(np.arctan2(y, x)) % 90
    return float(np.median(np.minimum(angles, 90 - angles)))


def lines(found: Sequence[Character]) -> list[list[Character]]:
    """Group characters into lines, from top to bottom, each from left to right.

    Signs lower than digits, such as a dot or a dash, are left out where no row of others is near.
    """
    if not found:
        return []
    slope = slope_of(found)
    places = middles(found)
    level = places[:, 1] - slope * places[:, 0]
    heights = np.array([each.height for each in found])
    tall = np.array([each.symbol not in ".,:-=°÷" for each in found])
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
    """Return a mask of ink (H, W) that belongs to neither a character nor a ruled line."""
    left = (ink > INKED).astype(np.uint8)
    rules = cv2.dilate((best.rules > RULED).astype(np.uint8), np.ones((3, 3), np.uint8))
    scale = best.zoom / STRIDE
    x, y = best.on_map(np.array([0.5, 0.5])).tolist()  # the centre of the first pixel
    matrix = np.array([[scale, 0, x], [0, scale, y]])
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    left[cv2.warpAffine(rules, matrix, ink.shape[::-1], flags=flags) > 0] = 0
    for each in found:
        left[inside(each.box, RIM * each.height)] = 0
    return left


def split(
    found: Sequence[Character], ink: Array, best: Found
) -> tuple[list[Character], list[Character], Array]:
    """Split characters into those that are read and the rest; also return the unexplained ink.

    Less probable characters are read where no other explains their ink, those below KEPT only
    beside digits. So a stroke of a 6 is not read as a 1 beside it.

    Args:
        found: characters of the ink.
        ink: (H, W) in [0, 1].
        best: the result at one zoom, with its ruled lines.
    """
    kept = [each for each in found if each.score > PROBABLE]
    dropped: list[Character] = []
    left = unexplained(ink, kept, best)
    digits = [each for each in kept if each.symbol.isdecimal()]
    for each in sorted((c for c in found if c.score <= PROBABLE), key=lambda c: -c.score):
        own = inside(each.box)
        is_bare = left[own].sum() > BARE * (ink[own] > INKED).sum()
        is_writing = each.score > KEPT or any(beside(each, digit) for digit in digits)
        if is_bare and is_writing and each.symbol not in SIGNS:
            kept.append(each)
            if each.symbol.isdecimal():
                digits.append(each)
            left[inside(each.box, RIM * each.height)] = 0
        else:
            dropped.append(each)
    return [*kept, *unknown(left, digits)], dropped, left


def unknown(left: Array, digits: Sequence[Character]) -> list[Character]:
    """Return undetected writing of any kind that is beside digits and as tall as they are."""
    _, _, boxes, _ = cv2.connectedComponentsWithStats(left)
    least = TALL * min((each.height for each in digits), default=np.inf)
    found = []
    for x, y, w, h, _ in boxes[1:][boxes[1:, 3] > least].tolist():  # without thousands of dots
        chances = np.eye(len(SYMBOLS), dtype=np.float32)[SYMBOLS.index(OTHER)]
        each = Character((x, y, x + w, y + h), KEPT, chances, least=0.0)
        if any(beside(each, digit) for digit in digits):
            found.append(each)
    return found


def beside(one: Character, other: Character) -> bool:
    """Return whether two characters may be neighbours in a line: as high, level and close."""
    (x0, y0, x1, y1), (u0, v0, u1, v1) = one.box, other.box
    high = max(one.height, other.height)
    is_level = min(y1, v1) - max(y0, v0) > TALL * high
    return is_level and max(x0, u0) - min(x1, u1) < high


def inside(box: Box, rim: float = 0.0) -> tuple[slice, slice]:
    """Return the slices of the pixels of a box, with a margin of `rim` pixels."""
    left, top, right, bottom = box
    rows = slice(max(0, round(top - rim)), max(0, round(bottom + rim)))
    return rows, slice(max(0, round(left - rim)), max(0, round(right + rim)))


def band(line: Sequence[Character]) -> Box:
    """Return the box where more digits of a line would stand."""
    tall = [each for each in line if each.symbol.isdecimal()] or line
    top, bottom = (float(np.median([each.box[k] for each in tall])) for k in (1, 3))
    room = 0.8 * (bottom - top)
    left, right = min(each.box[0] for each in line), max(each.box[2] for each in line)
    return left - room, top, right + room, bottom


def within(box: Box, of: Box) -> bool:
    """Return whether a box is in a line's band `of` and tall enough for one of its digits."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    is_tall = box[3] - box[1] > TALL * (of[3] - of[1])
    return of[0] < x < of[2] and of[1] < y < of[3] and is_tall


def evidence(
    line: Sequence[Character], dropped: Sequence[Character], left: Array
) -> NDArray[np.float64]:
    """Return evidence (EVIDENCE,) of errors in a line's digits; the greater, the more doubtful.

    The negative log-probabilities of its digits' scores, of their lowest scores at any zoom, and of
    no sign being a digit; the score of the most likely dropped digit; unexplained ink, in quarters
    of the squared height.

    Args:
        line: characters of the line.
        dropped: characters of the whole page that are not probable enough.
        left: unexplained ink, see `unexplained`.
    """
    digits = [each for each in line if each.symbol.isdecimal()]
    signs = [each for each in line if not each.symbol.isdecimal()]
    own = band(line)
    height = max(1.0, own[3] - own[1])
    weak = [each.digit_score for each in dropped if within(each.box, own)]
    return np.array(
        [
            -sum(np.log(each.score) for each in digits),
            -sum(np.log(max(each.least, LEAST)) for each in digits),
            -sum(np.log(max(1 - each.digit_score, LEAST)) for each in signs),
            max(weak, default=0.0),
            min(1.0, 4 * float(left[inside(own)].sum()) / height**2),
        ]
    )


def confidence(of: NDArray[np.float64], weights: Sequence[float]) -> float:
    """Return the probability that the digits of a line are right, from evidence (EVIDENCE,)."""
    return float(expit(of @ np.array(weights[:-1]) + weights[-1]))
