"""Strokes that are no writing: lines printed on the paper, shadows and rims at the border."""

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.rules.holes import MOST_HOLES, holes
from mnist_cnn.reading.ink import Ink, Mask, breadth

LARGE = 0.015  # what is no speck, as a share of the picture's breadth
LARGEST = 0.25  # height of writing that is one with squared paper, as a share of the shorter side
ACROSS, DOWN = 1.9, 2.6  # length of lines in heights of the writing; a 9 is upright too
ALONG = 0.7  # of the extent of a rim lies along the border, of a digit that is cut off less
FRAMED = 0.6  # of its box is inside a frame, of underlined digits less
EDGE = 2  # pixels of a line beyond its thickness, where it fades


def straight_lines(ink: Ink, mask: Mask) -> NDArray[np.bool_]:
    """Lines that are longer than a digit's strokes, but for where the pen crosses them.

    Ruled and squared paper, underlines, edges of shadows.
    """
    size = writing_size(mask)
    if not size:
        return np.zeros(mask.shape, bool)
    across = _level_lines(ink, mask, ACROSS * size, size)
    turned_ink, turned_mask = (np.ascontiguousarray(each.T) for each in (ink, mask))
    return across | _level_lines(turned_ink, turned_mask, DOWN * size, size).T


def writing_size(mask: Mask) -> float:
    """About the height of writing in pixels, 0 for none: half of all ink is in larger pieces."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    stats[0] = 0
    stats[stats[:, 2] >= 10 * stats[:, 3], 4] = 0  # a line: width and height; area
    none = 0.0
    while stats[:, 4].any():  # nor frames and squared paper
        n = int(np.argmax(stats[:, 2] * stats[:, 3] * (stats[:, 4] > 0)))
        x, y, w, h, _ = stats[n]
        piece = (labels[y : y + h, x : x + w] == n).astype(np.uint8)
        outlines, _ = cv2.findContours(piece, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        if len(holes(piece)) <= MOST_HOLES or cv2.contourArea(outlines[0]) < FRAMED * w * h:
            _, _, above, _ = cv2.connectedComponentsWithStats(piece[: h - h // 3])
            digits = (above[1:, 3] > h / 2).sum()
            if digits > 1 and w < 2 * h and piece[-1 - h // 5 :].any(0).all():
                stats[n, 2:4] = w // digits  # underlined: of one of them
            break
        stats[n, 4] = 0
        if max(w / mask.shape[1], h / mask.shape[0]) > 0.9:
            none = LARGEST * min(mask.shape)
    _, _, wide, high, area = stats[stats[:, 4] > 0].T
    # as writing that lies on its side, but not as a row that touches
    extent = np.where(wide < 2 * high, np.maximum(wide, high), high)
    return float(np.median(np.repeat(extent, area))) if len(area) else none


def _level_lines(ink: Ink, mask: Mask, length: float, size: float) -> NDArray[np.bool_]:
    """Thin strokes, nearly level, of at least this length, but for where the pen crosses them."""
    # thickened, a line that is a few degrees off level is made of shorter level bars
    thick = cv2.dilate(mask, np.ones((5, 3), np.uint8))
    level = np.ones((1, max(9, round(length / 3))), np.uint8)
    bars = cv2.morphologyEx(thick, cv2.MORPH_OPEN, level)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(bars, connectivity=8)
    lines, thickest = np.zeros(mask.shape, np.uint8), 0.0
    for n in np.flatnonzero(stats[:, cv2.CC_STAT_WIDTH] >= length)[1:]:
        x, y, width, height, _ = stats[n]
        line = labels[y : y + height, x : x + width] == n
        # the median passes over the strokes that the line touches; 4 pixels were added above
        thickness = max(1.0, float(np.median(line.sum(0))) - 4)
        if thickness < min(0.3 * size, width / 8):
            # where level strokes lie along it, it goes straight on between the places beside them
            rows, bare = np.arange(height)[:, None], np.flatnonzero(line.sum(0) <= thickness + 5)
            middle = (rows * line).sum(0)[bare] / line.sum(0)[bare]
            line &= np.abs(rows - np.interp(np.arange(width), bare, middle)) <= thickness / 2 + EDGE
            lines[y : y + height, x : x + width] |= line
            thickest = max(thickest, thickness)
    # the pen that crosses a line goes on above and below it
    gap = np.ones((round(thickest) + 6, 3), np.uint8)
    lines &= mask & (1 - cv2.morphologyEx(mask & (1 - lines), cv2.MORPH_CLOSE, gap))
    if not lines.any():
        return lines > 0
    # and is darker than a printed line, but for its edges
    darker = (ink > 1.4 * float(np.median(ink[lines > 0]))).astype(np.uint8)
    return (lines > 0) & (cv2.dilate(darker, np.ones((5, 5), np.uint8)) == 0)


def border_clutter(mask: Mask) -> NDArray[np.bool_]:
    """The strokes that lie along the border, such as a shadow's rim, where others lie off it."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    sides = labels[0], labels[-1], labels[:, 0], labels[:, -1]
    contact = np.array([np.bincount(side, minlength=count) for side in sides])
    extent = stats[:, 2:4].max(1)
    if not (extent[~contact.any(0)] >= LARGE * breadth(mask.shape)).any():
        return np.zeros(mask.shape, bool)
    clutter = contact.max(0) > ALONG * extent
    clutter |= contact[:2].any(0) & contact[2:].any(0)  # across a corner
    clutter[0] = False
    # with its soft edge
    return cv2.dilate(clutter[labels].astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
