"""Strokes that are no writing: lines printed on the paper, shadows and rims at the border."""

import cv2
import numpy as np
from numpy.typing import NDArray

from mnist_cnn.reading.ink import Ink, Labels, Mask, shrunk

LARGE = 0.015  # what is no speck, as a share of the longer side of the picture


def ruled_lines(ink: Ink, mask: Mask) -> NDArray[np.bool_]:
    """The ruled lines among the strokes, but for the places where the pen crosses them."""
    across = _level_lines(ink, mask, parallels=3)
    # writing has upright strokes beside each other, so it takes more of them to make a grid
    down = _level_lines(np.ascontiguousarray(ink.T), np.ascontiguousarray(mask.T), parallels=6).T
    return across | down


def _level_lines(ink: Ink, mask: Mask, parallels: int) -> NDArray[np.bool_]:
    """Lines, nearly level, from border to border, or long ones among this number of parallels."""
    small = (shrunk(mask * 255, 500) > 60).astype(np.uint8)
    width = small.shape[1]
    # thickened, a line up to 4 degrees off level still holds a level bar
    thick = cv2.dilate(small, np.ones((5, 5), np.uint8))
    bars = cv2.morphologyEx(thick, cv2.MORPH_OPEN, np.ones((1, max(8, width // 6)), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(bars, connectivity=8)
    left, length = stats[:, cv2.CC_STAT_LEFT], stats[:, cv2.CC_STAT_WIDTH]
    thickness = np.full(len(stats), np.inf)
    for n in np.flatnonzero(length > 0.4 * width):
        columns = (labels == n).sum(0)
        # the median passes over the strokes that the line touches; 4 pixels were added above
        thickness[n] = np.median(columns[columns > 0]) - 4
    thin = (thickness < length / 40 + 1) & (np.arange(len(stats)) > 0)
    for n in np.flatnonzero(thin):
        # a row of digits is joined by the thickening alone
        thin[n] = (small & (labels == n)).any(0).sum() > 0.75 * length[n]
    margin = 0.03 * width + 3
    through = thin & (left <= margin) & (left + length >= width - margin)
    long = thin & (length > 0.4 * width)
    ruled = through | long if long.sum() >= parallels else through
    if not ruled.any():
        return np.zeros(mask.shape, bool)
    lines = cv2.resize(ruled[labels].astype(np.uint8), mask.shape[::-1], interpolation=0)
    lines &= mask
    zoom = max(mask.shape) / max(small.shape)
    breadth = int(np.ceil((max(thickness[ruled].max(), 1) + 1) * zoom))
    # a pen stroke goes on above and below the line that it crosses
    bridge = np.ones((breadth + 3, 1), np.uint8)
    crossing = cv2.morphologyEx(mask & ~lines & 1, cv2.MORPH_CLOSE, bridge)
    # and is darker than a printed line, but for its edges
    darker = (ink > 1.4 * float(np.median(ink[lines > 0]))).astype(np.uint8)
    pen = cv2.dilate(darker, np.ones((5, 5), np.uint8))
    return (lines > 0) & (crossing == 0) & (pen == 0)


def border_clutter(ink: Ink, mask: Mask) -> NDArray[np.bool_]:
    """The strokes that are shadows or the paper's edge rather than a digit cut off by the border.

    They lie along the border, or their outline is less sharp than that of the writing. Where
    nothing large lies off the border, nothing is clutter.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    extent = np.maximum(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT])
    large = extent >= LARGE * max(mask.shape)
    large[0] = False
    sides = [labels[0], labels[-1], labels[:, 0], labels[:, -1]]
    contact = np.array([np.bincount(side, minlength=count) / len(side) for side in sides]).max(0)
    if not (contact > 0).any() or not (large & (contact == 0)).any():
        return np.zeros(mask.shape, bool)
    smooth = cv2.GaussianBlur(ink, (0, 0), 1)
    slope = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1))
    inside = cv2.erode((labels > 0).astype(np.uint8), np.ones((3, 3), np.uint8))
    outline = (labels > 0) & (inside == 0)
    # relative to the darkness of each: faint strokes are as sharp as dark ones
    sharpness = _means(slope[outline], labels[outline], count) / np.maximum(
        _means(ink[labels > 0], labels[labels > 0], count), 1e-3
    )
    sharpest = sharpness[large & (contact == 0)].max()
    clutter = (contact > 0.2) | ((contact > 0) & (sharpness < 0.6 * sharpest))
    clutter[0] = False
    # with its soft edge
    return cv2.dilate(clutter[labels].astype(np.uint8), np.ones((5, 5), np.uint8)) > 0


def _means(values: Ink, labels: Labels, count: int) -> NDArray[np.float64]:
    """The mean of the values that have each label, 0 for none."""
    total = np.bincount(labels, values, minlength=count)
    return total / np.maximum(np.bincount(labels, minlength=count), 1)
