"""The strokes of a picture: ink without ruled lines."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mnist_cnn.reading.ink import (
    Grey,
    Ink,
    Mask,
    find_strokes,
    ink_on,
    is_light_on_dark,
    paper_light,
    paper_window,
    shrunk,
    stroke_depth,
)

Box = tuple[int, int, int, int]
Labels = NDArray[Any]  # int32, 0 for paper
SMALLEST = 0.015  # height of a digit as a share of the picture's longer side


@dataclass(frozen=True)
class Strokes:
    """Connected ink, or several such pieces that make up one digit: their box and mask in it."""

    box: Box
    mask: Mask  # (height, width) of the box, 0 or 1

    @property
    def width(self) -> int:
        return self.box[2] - self.box[0]

    @property
    def height(self) -> int:
        return self.box[3] - self.box[1]

    @property
    def extent(self) -> int:
        return max(self.width, self.height)


# --- ink and paper --------------------------------------------------------------------------------


def find_ink(grey: Grey) -> tuple[Ink, Mask]:
    """The ink map of a grey picture and the mask of what is pen stroke in it."""
    if is_light_on_dark(grey):
        grey = 255 - grey
    ink, mask, noise = ink_on(grey, paper_light(grey, paper_window(shrunk(grey, 500))))
    lines = _ruled_lines(ink, mask)
    if lines.any() and (rest := find_strokes(np.where(lines, 0, ink), noise)).any():
        return np.where(lines, 0, ink), rest
    return ink, mask


def _ruled_lines(ink: Ink, mask: Mask) -> NDArray[np.bool_]:
    """The ruled lines among the strokes, but for the places where the pen crosses them."""
    across = _level_lines(ink, mask, parallels=3)
    # writing has upright strokes side by side, so it takes more of them to make a grid
    down = _level_lines(np.ascontiguousarray(ink.T), np.ascontiguousarray(mask.T), parallels=6).T
    return across | down


def _level_lines(ink: Ink, mask: Mask, parallels: int) -> NDArray[np.bool_]:
    """Lines, nearly level, from border to border, or long ones among so many parallels."""
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


def stroke_width(mask: Mask) -> float:
    """Mean width of the strokes: points of a bar of width w are w / 4 from its edge on average."""
    return max(1.0, 4 * float(stroke_depth(mask)[mask > 0].mean()) - 1)
