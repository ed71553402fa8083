"""The view of a picture in which its writing stands upright and dark on light."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import nn

from mnist_cnn.data.synthetic.sheet import SIGNS
from mnist_cnn.data.synthetic.strokes import Array
from mnist_cnn.detection.decode import Character
from mnist_cnn.detection.find import LOWEST, SCALES, Found, find, reduced, scales
from mnist_cnn.detection.lines import KEPT, TALL, leaning, slope_of, unexplained
from mnist_cnn.reading import ink as inks

LIKELY = 0.8  # minimum mean score for which no other view is tried
LEANING = 20  # maximum angle in degrees from neighbours to the nearest axis, of an upright view
SPARE = 0.5  # missed characters for each found one, from which other views are tried
MANY = 20  # letters that are a page of text; up to 9 are found in digits upside down
TINY = 100  # pixels of the longer side below which a picture is enlarged
TRIED = 400  # pixels of the longer side on which other views are tried
SEVERAL = 2  # characters of the other ink: a single one may be the paper around a blot
BETTER = 1.3  # factor by which another view must explain more than the picture as it lies
STEEP = 8  # degrees of slope from which a view is turned once more
ANGLES = (0, 90, 270, 45, 315, 135, 225, 180)  # in this order; the first of the best is taken


@dataclass(frozen=True)
class View:
    """The characters of a picture that was turned."""

    found: list[Character]  # in pixels of the turned ink
    best: Found  # at the zoom that explains most
    ink: Array  # (H, W), turned
    degrees: float  # clockwise
    back: NDArray[np.float64]  # (2, 3), to pixels of the picture

    @property
    def kept(self) -> list[Character]:
        """The characters that are likely enough to count."""
        return [each for each in self.found if each.score > KEPT]

    @property
    def is_plain(self) -> bool:
        """True if digits, or letters with or without them, are certain, level and most of it."""
        kept = self.kept
        digits = [each for each in kept if each.symbol.isdecimal()]
        letters = [each for each in kept if each.symbol not in SIGNS]  # these look alike turned
        # a few may be digits upside down
        is_page = len(letters) >= MANY
        return self.stands(digits, kept) or (is_page and self.stands(letters, kept))

    def stands(self, told: list[Character], kept: list[Character]) -> bool:
        """Return whether characters are mostly certain and level, and few others are missed.

        Args:
            told: characters that look different when they are turned.
            kept: all that are likely enough to count.
        """
        if not told or float(np.mean([each.score for each in told])) < LIKELY:
            return False
        if leaning(told) > LEANING:
            return False
        missed = unexplained(self.ink, kept, self.best)
        height = float(np.median([each.height for each in told]))
        _, _, parts, _ = cv2.connectedComponentsWithStats(missed)
        longest = parts[1:, 2:4].max(1)
        alike = (longest > TALL * height) & (longest < 2 * height)  # as large as digits are
        return int(alike.sum()) < SPARE * len(kept)


def ink_of(grey: Array, light: bool) -> tuple[Array, float]:
    """Return the ink (H, W) of a grey picture relative to the pen's, and the width of its strokes.

    Args:
        grey: uint8 (H, W).
        light: it is lighter than the paper.
    """
    if inks.is_smooth(grey) or min(grey.shape) < LOWEST:
        return np.zeros(grey.shape, np.float32), 1.0
    grey = 255 - grey if light else grey
    ink, mask, _ = inks.ink_on(grey, inks.paper_light(grey))
    dark = float(np.percentile(ink[mask > 0], 70)) if mask.any() else 1.0
    ink = np.clip(ink / max(dark, inks.FAINTEST), 0, 1).astype(np.float32)
    return ink, inks.stroke_width(mask)


def rotated(ink: Array, degrees: float) -> tuple[Array, NDArray[np.float64]]:
    """Return ink rotated clockwise, and the matrix (2, 3) back to its pixels."""
    height, width = ink.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, 1)
    wide, high = np.ceil(np.abs(turn[:, :2]) @ [width, height]).astype(int)
    turn[:, 2] += (wide - width) / 2, (high - height) / 2
    turned = cv2.warpAffine(ink, turn, (int(wide), int(high)), flags=cv2.INTER_LINEAR)
    return turned, np.asarray(cv2.invertAffineTransform(turn), np.float64)


def view(net: nn.Module, ink: Array, pen: float, degrees: float = 0) -> View:
    """Return what the network finds in ink that is rotated clockwise."""
    turned, back = rotated(ink, degrees) if degrees else (ink, np.eye(2, 3))
    return View(*find(net, turned, pen), turned, degrees, back)


def enlarged(net: nn.Module, grey: Array, zoom: int) -> View:
    """Return the view of a tiny picture, enlarged and padded by half its size on each side."""
    large = cv2.resize(grey, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    room = max(large.shape) // 2
    paper = float(np.median(border))
    sides = room, room, room, room
    padded = cv2.copyMakeBorder(large, *sides, cv2.BORDER_CONSTANT, value=paper)
    seen = upright(net, padded)
    back = np.array([[1 / zoom, 0, -room / zoom], [0, 1 / zoom, -room / zoom]])
    return replace(seen, back=back @ np.vstack([seen.back, [0, 0, 1]]))


def upright(net: nn.Module, grey: Array) -> View:
    """Return the view of a grey picture of which the network explains most.

    It is the picture as it lies if that `is_plain`: others cost several passes over a small copy.
    """
    if (longest := max(grey.shape)) < TINY:
        return enlarged(net, grey, -(-TINY // longest))
    light = inks.is_light_on_dark(grey)
    usual = ink_of(grey, light)
    plain = view(net, *usual)
    if plain.is_plain:
        return plain
    chosen: tuple[Array, float, float] | None = None
    most = BETTER * max(1.0, plain.best.weight)
    inverse = ink_of(grey, not light)
    other = view(net, *inverse)  # in full, as the picture as it lies: a small copy loses writing
    if other.best.weight > most and len(other.kept) >= SEVERAL:
        if other.is_plain:
            return other
        chosen, most = (*inverse, 0), other.best.weight
    for whole, angles, least in ((usual, ANGLES[1:], 1), (inverse, ANGLES[:3], SEVERAL)):
        small, _, fine = reduced(whole[0], TRIED, whole[1])
        for degrees in angles:
            tried = scales(net, rotated(small, degrees)[0], fine, SCALES[::2])
            best = max(tried.values(), key=lambda one: one.weight)
            count = sum(each.score > KEPT for each in best.characters)
            if best.weight > most and count >= least:
                chosen, most = (*whole, degrees), best.weight
    if chosen is None:
        return plain
    again = view(net, *chosen)
    slope = float(np.degrees(np.arctan(slope_of(again.found))))
    return view(net, *chosen[:2], chosen[2] - slope) if abs(slope) > STEEP else again
