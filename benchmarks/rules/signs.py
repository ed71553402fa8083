"""Signs beside digits by their shape: + - × ÷ = / ( ) . , : % $ # and · for what is unknown."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.rules.holes import holes
from benchmarks.rules.shapes import Row, joined
from benchmarks.rules.strokes import Strokes
from mnist_cnn.reading.ink import Mask, stroke_depth, stroke_width
from mnist_cnn.reading.reading import UNKNOWN

TALL = 1.2  # height of strokes and brackets, in heights of the line: a 1 is lower
PEN = 1.3  # half the width of a stroke as a share of the depth where two cross
APART = 0.4  # the circles of a percent sign, in shares of its width and height
CIRCLE = 0.6  # height of one of them, in shares of the sign's: that of digits is greater
LEAN = 0.2  # of a stroke that is no 1, its width by its height


def sign_of(shape: Strokes, size: float, middle: float) -> str | None:
    """The sign that a shape of a line has the form of; None where it may be a digit.

    Args:
        size: the usual height of the line's digits, in pixels.
        middle: of the line at the shape, in pixels from the top.
    """
    level = ((shape.box[1] + shape.box[3]) / 2 - middle) / size  # 0.5 at the foot of the line
    _, _, stats, _ = cv2.connectedComponentsWithStats(shape.mask, connectivity=8)
    stats = stats[stats[:, cv2.CC_STAT_AREA] > 2][1:]
    widths, heights = stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT]
    dashes = (widths > 1.7 * heights) & (heights < 0.3 * size)
    dots = ~dashes & (np.maximum(widths, heights) < 0.38 * size)
    if len(stats) == 2 and dashes.all():
        return "="
    if len(stats) == 2 and dots.all():
        return ":"
    if len(stats) in (2, 3) and dashes.sum() == 1 and dots.sum() == len(stats) - 1:
        return "÷"  # one of the dots may touch the dash
    enclosed = holes(shape.mask)
    if _are_circles(enclosed):
        return "%"
    if len(stats) != 1:
        return UNKNOWN if shape.height < 0.35 * size else None
    if dashes.all():
        return "-" if abs(level) < 0.3 else UNKNOWN
    if shape.extent < 0.55 * size and level > 0.25:
        return "," if shape.height > 1.5 * shape.width or level > 0.62 else "."
    return UNKNOWN if shape.height < 0.35 * size else _stroked(shape, size, len(enclosed))


def _are_circles(middles: NDArray[np.float64]) -> bool:
    """True for the middles (N, 2) of a percent sign: one below the other and to its right."""
    return len(middles) == 2 and bool((middles[1] - middles[0] > APART).all())


def _are_percent(left: Strokes, right: Strokes) -> bool:
    """True where the stroke of a percent sign, or one of its circles, stands apart."""
    lower, higher = sorted((left.height, right.height))
    return lower < CIRCLE * higher and _are_circles(holes(joined([left, right]).mask))


def _stroked(shape: Strokes, size: float, enclosed: int) -> str | None:
    """The sign of strokes as high as digits are, or nearly so, that enclose so many areas."""
    wide = shape.width / shape.height
    if enclosed == 0 and 0.6 < wide < 1.7:
        return _crossed(shape.mask)
    middle = shape.width / 2, shape.height / 2
    if enclosed == 1 and sum(len(_ways(shape.mask, *middle, at)) for at in (0.42, 0.46)) > 13:
        return "#"  # eight ends twice, of which two may meet
    tall = shape.height > TALL * size
    if enclosed >= 2 and tall and wide > 0.35 and _has_stubs(shape.mask):
        return "$"
    if enclosed or not tall or wide > 0.9:
        return None
    return _bent(shape.mask)


def _crossed(mask: Mask) -> str | None:
    """+ or × where two strokes cross in the middle, with four ends."""
    height, width = mask.shape
    depth = stroke_depth(mask)
    # a + crosses in the middle of its width, a 4 beside it
    y0, x0 = round(0.25 * height), round(0.38 * width)
    inner = depth[y0 : height - y0, x0 : width - x0]
    if not inner.size or inner.max() <= 0:
        return None
    y, x = np.add(np.unravel_index(int(inner.argmax()), inner.shape), (y0, x0))
    ways = _ways(mask, x, y, 0.42)
    if len(ways) != 4 or len(_ways(mask, x, y, 0.33)) != 4:
        return None
    if (np.abs(np.diff(ways, append=ways[0] + 360) - 90) > 32).any():
        return None
    off = np.abs((ways + 45) % 90 - 45)  # degrees from level and upright
    rows, columns = np.nonzero(mask)
    beside = (np.abs(rows - y) > PEN * inner.max()) & (np.abs(columns - x) > PEN * inner.max())
    if (off < 22).all():  # a 4 has ink beside its two strokes
        return "+" if beside.mean() < 0.07 else None
    return "×" if (off > 14).all() else None


def _ways(mask: Mask, x: float, y: float, radius: float) -> NDArray[np.float64]:
    """Directions in degrees in which ink crosses an ellipse; none where most of it is ink.

    Args:
        x, y: its middle, in pixels.
        radius: as a share of the sides of the mask.
    """
    height, width = mask.shape
    angles = np.radians(np.arange(0, 360, 5))
    xs = np.round(x + radius * width * np.cos(angles)).astype(int).clip(0, width - 1)
    ys = np.round(y + radius * height * np.sin(angles)).astype(int).clip(0, height - 1)
    on = mask[ys, xs] > 0
    if on.mean() > 0.7:
        return np.empty(0)
    starts = np.flatnonzero(on & ~np.roll(on, 1))
    runs = [int(np.argmin(np.append(np.roll(on, -s), False))) for s in starts]
    return np.array([5 * (s + (n - 1) / 2) for s, n in zip(starts, runs, strict=True)])


def _bent(mask: Mask) -> str | None:
    """/ ( or ) where a single stroke leans or is bent to one side."""
    rows = np.flatnonzero(mask.any(1))
    xs = np.arange(mask.shape[1])
    centres = (mask[rows] * xs).sum(1) / mask[rows].sum(1)
    pen = stroke_width(mask)
    y = (rows - rows.mean()) / len(rows)  # -0.5 to 0.5
    bend, slope, middle = np.polyfit(y, centres / len(rows), 2)
    off = np.abs(np.polyval((bend, slope, middle), y) * len(rows) - centres)
    runs = np.diff(mask, axis=1, prepend=0, append=0).astype(np.int8)
    if np.percentile(off, 90) > 0.75 * pen or ((runs == 1).sum(1) > 1).mean() > 0.1:
        return None
    if abs(bend) > 0.32 and abs(slope) < 0.45:  # the middle lies a 12th of the height off the ends
        return "(" if bend > 0 else ")"
    return "/" if slope < -LEAN and abs(bend) < 0.32 else None


def _has_stubs(mask: Mask) -> bool:
    """True where a single stroke sticks out in the middle, above and below."""
    height, width = mask.shape
    end = max(1, round(0.06 * height))
    ends: list[NDArray[np.int64]] = [np.flatnonzero(m.any(0)) for m in (mask[:end], mask[-end:])]
    narrow = all(np.ptp(each) < 0.3 * width for each in ends)
    return narrow and all(0.25 < each.mean() / width < 0.75 for each in ends)


def _merged(shapes: list[Strokes], are_one: Callable[[Strokes, Strokes], bool]) -> list[Strokes]:
    """Shapes from left to right, neighbours that are one sign joined."""
    found: list[Strokes] = []
    for shape in sorted(shapes, key=lambda shape: shape.box[0]):
        if found and are_one(found[-1], shape):
            found[-1] = joined([found[-1], shape])
        else:
            found.append(shape)
    return found


def told_apart(row: Row) -> tuple[list[Strokes], list[tuple[Strokes, str]]]:
    """The possible digits in a line of writing, and its signs; a space for an empty cell."""
    marks = _merged(row.punctuation, lambda a, b: b.box[0] + 0.4 * b.width < a.box[2])
    shapes = _merged(row.shapes, _are_percent)
    signs = [(mark, UNKNOWN if mark.mask.any() else " ") for mark in marks]
    if len(shapes) + len(marks) < 2:  # nothing to compare it with
        return shapes, signs
    size = float(np.median([shape.height for shape in shapes or marks]))
    digits, signs = [], []
    for shape in (*shapes, *marks):
        beside = [other for other in shapes if other is not shape]
        near = min(beside, key=lambda other: abs(other.box[0] - shape.box[0]), default=shape)
        sign = sign_of(shape, size, (near.box[1] + near.box[3]) / 2)
        if sign == "/":  # a 1 that leans may stand at an end
            left, right = shape.box[0] - size, shape.box[2] + size
            around = [other for other in beside if left < other.box[2] and other.box[0] < right]
            sign = "/" if len({other.box[0] < shape.box[0] for other in around}) == 2 else None
        if sign or any(shape is mark for mark in marks):
            signs.append((shape, sign or UNKNOWN))
        else:
            digits.append(shape)
    return digits, signs
