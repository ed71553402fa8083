"""The strokes of a picture: ink without ruled lines, shadows and noise."""

from dataclasses import dataclass

import cv2
import numpy as np

from mnist_cnn.reading import ink as inks
from mnist_cnn.reading.clutter import border_clutter, ruled_lines
from mnist_cnn.reading.ink import FAINTEST, Grey, Ink, Mask, ink_on, shrunk
from mnist_cnn.reading.picture import MIN_SIDE

LIGHTEST = 16  # how much lighter than its ground a light pen must be somewhere, of 255
SMOOTH = 0.15  # of the range of light: what changes less over a 20th of the side has no edges
PINPRICK = 0.001  # area of what is no hole in a stroke, as a share of the squared height
MOST_CORNERS = 2  # of a picture that a digit fills are ink: no digit reaches more
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


def holes(mask: Mask) -> int:
    """The number of areas of paper that the strokes enclose, without pinpricks."""
    paper = cv2.copyMakeBorder(1 - mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    _, _, stats, _ = cv2.connectedComponentsWithStats(paper, connectivity=4)
    # the first is the ink; the paper around counts as one
    large = stats[1:, cv2.CC_STAT_AREA] >= PINPRICK * max(mask.shape) ** 2
    return int(large.sum()) - 1


def stroke_width(mask: Mask) -> float:
    """Mean width of the strokes: points of a bar of width w are w / 4 from its edge on average."""
    return max(1.0, 4 * float(inks.stroke_depth(mask)[mask > 0].mean()) - 1)


def find_ink(grey: Grey) -> tuple[Ink, Mask, Mask]:
    """The ink map of a grey picture, the mask of its pen strokes, and that of all but the noise."""
    if _is_smooth(grey):
        none = np.zeros(grey.shape, np.uint8)
        return none.astype(np.float32), none, none
    is_light = inks.is_light_on_dark(grey)
    if is_light:
        grey = 255 - grey
    paper = inks.paper_light(grey, inks.paper_window(shrunk(grey, 500)))
    ink, mask, noise = ink_on(grey, paper)
    if noise > NOISY:  # a pen is wider than the grain of the paper
        ink, mask, noise = ink_on(cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 1.5), paper)
    for found in (ruled_lines, border_clutter):
        out = found(ink, mask)
        if out.any():
            rest = np.where(out, 0, ink)
            less = inks.find_strokes(rest, noise)
            if less.any():
                ink, mask = rest, less
    if _is_gradient(grey, 0.03):  # what is left of it at the border is no ink
        mask = mask - inks.from_border(mask)
    if is_light:  # on a light sheet, where a share of the light that is missing says little
        _, labels = cv2.connectedComponents(mask, connectivity=8)
        mask = mask & np.isin(labels, labels[paper - grey > LIGHTEST]).astype(np.uint8)
    faint: Mask = (ink > max(FAINTEST, 4 * noise)).astype(np.uint8)
    return ink, mask, faint


def two_levels(grey: Grey) -> list[tuple[Ink, Mask, Mask]]:
    """The same for a picture that its digits fill, so that there is hardly any paper around.

    One of its two levels of light is the pen's, and reaches the border: the darker, the lighter, or
    either. Nothing is found where there are not two.
    """
    small = cv2.GaussianBlur(shrunk(grey, MIN_SIDE), (0, 0), 1)
    _, above = cv2.threshold(small, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    sides = [small[above == side].astype(np.float32) for side in (0, 1)]
    if not all(side.size for side in sides):
        return []
    apart = float(sides[1].mean() - sides[0].mean())
    spread = max(0.5, *(float(side.std()) for side in sides))
    # the two halves of noise are 2.65 apart, those of an even gradient 3.5
    if apart < 2.7 * spread or _is_gradient(small, 0.1 if apart > 5 * spread else 0.25):
        return []
    border = np.concatenate([above[0], above[-1], above[:, 0], above[:, -1]])
    corners = above[[0, 0, -1, -1], [0, -1, 0, -1]]
    levels = [float(np.median(side)) for side in sides]
    smooth = cv2.GaussianBlur(grey, (0, 0), 1).astype(np.float32)
    found = []
    for pen, paper in ((0, 1), (1, 0)):
        if (border == pen).any() and (corners == pen).sum() <= MOST_CORNERS:
            ink = np.clip((levels[paper] - smooth) / (levels[paper] - levels[pen]), 0, 1)
            found.append((ink, (ink > 0.5).astype(np.uint8), (ink > 0.3).astype(np.uint8)))
    return found


def _is_smooth(grey: Grey) -> bool:
    """True where the light changes too little over any short way for the edge of a stroke."""
    small = cv2.GaussianBlur(shrunk(grey, 500), (0, 0), 1)
    near = np.ones((max(small.shape) // 20,) * 2, np.uint8)
    change = cv2.subtract(cv2.dilate(small, near), cv2.erode(small, near))
    return float(change.max()) < SMOOTH * (float(small.max()) - float(small.min()))


def _is_gradient(grey: Grey, rest: float) -> bool:
    """True where a surface of second order explains the light, but for this share of it."""
    small = cv2.resize(grey, (24, 24), interpolation=cv2.INTER_AREA).astype(np.float64)
    y, x = np.mgrid[-1:1:24j, -1:1:24j].reshape(2, -1)
    surface = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], 1)
    light = small.ravel() - small.mean()
    left = light - surface @ np.linalg.lstsq(surface, light, rcond=None)[0]
    return float(left @ left) <= rest * float(light @ light)
