"""The strokes of a picture: ink without ruled lines, shadows and noise."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.rules.clutter import border_clutter, straight_lines
from benchmarks.rules.frames import Box, Cell, Corners, find_frames
from mnist_cnn.reading import ink as inks
from mnist_cnn.reading.ink import FAINTEST, Grey, Ink, Mask, ink_on, shrunk

SMOOTH_SIDE = 500  # pixels of the picture in which smoothness is looked for
MIN_SIDE = 400  # smaller pictures are enlarged: thresholds then cut between pixels
MOST_CORNERS = 2  # of a picture that a digit fills are ink: no digit reaches more
LEAST, MOST, FILLED = 0.1, 0.9, 0.85  # of the picture is a sheet on a table; of its rectangle
INSET = 0.02  # of its sides is left out with the edges
NOISY = 0.01  # standard deviation of the paper's grain, as a share of its light


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


def find_ink(grey: Grey) -> tuple[Ink, Mask, list[Cell]]:
    """The ink map of a grey picture, the mask of its pen strokes, and cells."""
    if inks.is_smooth(grey, SMOOTH_SIDE):
        return np.zeros(grey.shape, np.float32), np.zeros(grey.shape, np.uint8), []
    if inks.is_light_on_dark(grey):
        grey = 255 - grey
    paper = inks.paper_light(grey)
    ink, mask, noise = ink_on(grey, paper)
    if noise > NOISY:  # a pen is wider than the grain of the paper
        ink, mask, noise = ink_on(cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 1.5), paper)
    lines = straight_lines(ink, mask).astype(np.uint8) & mask
    # printed rules are fainter than the pen
    pen = float(np.median(ink[mask > 0])) if mask.any() else 1.0
    rules = ink > max(FAINTEST, 4 * noise, 0.2 * pen)
    frame, cells = find_frames(rules.astype(np.uint8), mask - lines, lines)
    ink, mask = _without(frame, ink, mask, noise)
    ink, mask = _without(border_clutter(mask), ink, mask, noise)
    ink, mask = _without(straight_lines(ink, mask), ink, mask, noise)
    return ink, mask, cells


def _without(out: NDArray[np.bool_], ink: Ink, mask: Mask, noise: float) -> tuple[Ink, Mask]:
    """The ink and the mask without what is no writing; as they are where nothing would be left."""
    rest = np.where(out, 0, ink) if out.any() else ink
    less = mask if rest is ink else inks.find_strokes(rest, noise)
    return (rest, less) if less.any() else (ink, mask)


def find_sheet(grey: Grey) -> Corners | None:
    """The corners (4, 2) of a sheet on a darker or lighter table, from the upper left; or None."""
    small = cv2.medianBlur(shrunk(grey, 200), 5)
    _, sheet = cv2.threshold(small, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    sheet ^= np.uint8(np.median(sheet[[0, -1]]))  # the table is at the border
    outlines, _ = cv2.findContours(sheet, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    outline = max(outlines, key=cv2.contourArea, default=np.zeros((1, 1, 2), np.int32))
    corners = cv2.boxPoints(cv2.minAreaRect(outline))
    area = cv2.contourArea(outline)
    if not LEAST < area / small.size < MOST or area < FILLED * cv2.contourArea(corners):
        return None
    corners += INSET * (corners.mean(0) - corners)
    return np.roll(corners, -corners.sum(1).argmin(), 0) * (grey.shape[1] / small.shape[1])


def fillings(grey: Grey) -> list[Mask]:
    """The possible ink of a picture that one digit fills: its darker part, its lighter part.

    None where there are not two levels of light.
    """
    small = cv2.GaussianBlur(shrunk(grey, MIN_SIDE), (0, 0), 1)
    split, above = cv2.threshold(small, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    sides = [small[above == side].astype(np.float32) for side in (0, 1)]
    if not all(side.size for side in sides):
        return []
    apart = float(sides[1].mean() - sides[0].mean())
    spread = max(0.5, *(float(side.std()) for side in sides))
    # the two halves of noise are 2.65 apart, those of an even gradient 3.5
    if apart < 2.7 * spread or _is_gradient(small, 0.1 if apart > 5 * spread else 0.25):
        return []
    light: Mask = (grey > split).astype(np.uint8)
    corners = light[[0, 0, -1, -1], [0, -1, 0, -1]].sum()
    return [ink for ink, n in ((1 - light, 4 - corners), (light, corners)) if n <= MOST_CORNERS]


def _is_gradient(grey: Grey, rest: float) -> bool:
    """True where a surface of second order explains the light, but for this share of it."""
    small = cv2.resize(grey, (24, 24), interpolation=cv2.INTER_AREA).astype(np.float64)
    y, x = np.mgrid[-1:1:24j, -1:1:24j].reshape(2, -1)
    surface = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], 1)
    light = small.ravel() - small.mean()
    left = light - surface @ np.linalg.lstsq(surface, light, rcond=None)[0]
    return float(left @ left) <= rest * float(light @ light)
