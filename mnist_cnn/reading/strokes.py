"""The strokes of a picture: ink without ruled lines, shadows and noise."""

from dataclasses import dataclass

import cv2
import numpy as np

from mnist_cnn.reading.clutter import border_clutter, ruled_lines
from mnist_cnn.reading.ink import (
    FAINTEST,
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

NOISY = 0.01  # standard deviation of the paper's grain, as a share of its light
Box = tuple[int, int, int, int]


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


def stroke_width(mask: Mask) -> float:
    """Mean width of the strokes: points of a bar of width w are w / 4 from its edge on average."""
    return max(1.0, 4 * float(stroke_depth(mask)[mask > 0].mean()) - 1)


def find_ink(grey: Grey) -> tuple[Ink, Mask, Mask]:
    """The ink map of a grey picture, the mask of its pen strokes, and that of all but the noise."""
    if is_light_on_dark(grey):
        grey = 255 - grey
    paper = paper_light(grey, paper_window(shrunk(grey, 500)))
    ink, mask, noise = ink_on(grey, paper)
    if noise > NOISY:  # a pen is wider than the grain of the paper
        ink, mask, noise = ink_on(cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 1.5), paper)
    for found in (ruled_lines, border_clutter):
        out = found(ink, mask)
        if out.any():
            rest = np.where(out, 0, ink)
            less = find_strokes(rest, noise)
            if less.any():
                ink, mask = rest, less
    if _is_gradient(grey, 0.03):  # what is left of it at the border is no ink
        _, labels = cv2.connectedComponents(mask, connectivity=8)
        rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        mask = mask * ~np.isin(labels, rim[rim > 0])
    faint: Mask = (ink > max(FAINTEST, 4 * noise)).astype(np.uint8)
    return ink, mask, faint


def two_levels(grey: Grey) -> tuple[Ink, Mask, Mask] | None:
    """As find_ink, for a picture that a digit fills, so that there is no paper around it.

    The larger of its two levels of light is the paper. None where there are not two.
    """
    smooth = cv2.GaussianBlur(grey, (0, 0), 1)
    _, above = cv2.threshold(smooth, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    sides = [smooth[above == side].astype(np.float32) for side in (0, 1)]
    if not all(side.size for side in sides):
        return None
    apart = float(sides[1].mean() - sides[0].mean())
    if apart < 2.5 * max(float(side.std()) for side in sides) or _is_gradient(grey, 0.3):
        return None
    pen, paper = (float(np.median(side)) for side in sorted(sides, key=len))
    ink = np.clip((paper - smooth.astype(np.float32)) / (paper - pen), 0, 1)
    return ink, (ink > 0.5).astype(np.uint8), (ink > 0.3).astype(np.uint8)


def _is_gradient(grey: Grey, rest: float) -> bool:
    """Whether a surface of second order explains the light, but for this share of its variance."""
    small = cv2.resize(grey, (24, 24), interpolation=cv2.INTER_AREA).astype(np.float64)
    y, x = np.mgrid[-1:1:24j, -1:1:24j].reshape(2, -1)
    surface = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], 1)
    light = small.ravel() - small.mean()
    left = light - surface @ np.linalg.lstsq(surface, light, rcond=None)[0]
    return float(left @ left) <= rest * float(light @ light)
