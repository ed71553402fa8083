"""Candidates for digits in a picture, each as MNIST made its own.

Light is taken as a property of the paper and ink as a share of the light that the paper would have
returned, so that a shadow changes neither; LeCun et al. (1998, section III.A) describe the 28x28
form. Coordinates are (left, top, right, bottom) in pixels, right and bottom exclusive. An ink map
is float32 (height, width) in [0, 1], 0 for paper.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mnist_cnn.reading.cuts import cut
from mnist_cnn.reading.ink import Grey, Ink, Mask, grey_of, resized
from mnist_cnn.reading.picture import MIN_SIDE, load_picture, upright_size
from mnist_cnn.reading.shapes import Row, find_rows, joined
from mnist_cnn.reading.strokes import Box, Strokes, find_ink, holes, stroke_width, two_levels

WIDEST_GAP = 0.2  # in a candidate, as a share of the usual height of the line
WIDEST = 1.5  # a candidate of several parts, as a share of its height
MOST_HOLES = 3  # of 6,000 validation digits none has more, and 8 have 3
# costs, chosen on rows of validation digits: of an end of a candidate at a cut, and there for each
# width of the pen that is cut; of a gap inside, and for each height of the line that it is wide;
# for each height of the line that a candidate is wider than most digits, or lower
CUT, CUT_INK = 0.05, 0.08
GAP, GAP_WIDTH = 0.15, 0.75
WIDE, USUAL_WIDTH = 1.2, 0.9
LOW, USUAL_HEIGHT = 6, 0.5


@dataclass(frozen=True)
class Digit:
    """One digit of a picture."""

    box: Box  # in pixels of the upright picture
    image: NDArray[np.uint8]  # (28, 28), white ink on black, longest side 20, centred by mass
    row: int  # the line of writing that it stands in, from 0 at the top
    place: float  # its middle along the line, as the sheet was rotated, in pixels of the ink map


@dataclass(frozen=True)
class Candidate:
    """A shape that may be a digit: the parts of a line from `first` to before `last`."""

    first: int
    last: int
    digit: Digit
    cost: float  # how unlikely its cuts and gaps are, as the logarithm of a probability, at least 0
    is_mesh: bool  # it encloses more than a digit does


@dataclass(frozen=True)
class Line:
    """A line of writing."""

    parts: int  # their number; digits are made of one or several neighbours
    cuts: set[int]  # the parts that a cut parts from the one before
    candidates: list[Candidate]
    punctuation: list[Digit]  # too small for a digit: points, commas, dashes


@dataclass(frozen=True)
class Sheet:
    """The ink of a picture, layers of (H, W), and the way back to the picture."""

    grey: Grey  # the light, of the sheet as it lies
    ink: Ink
    mask: Mask  # the strokes of the pen
    faint: Mask  # all but the noise
    back: NDArray[np.float64]  # (3, 3), to pixels of the upright picture, in coordinates (x, y, 1)
    size: tuple[int, int]  # width and height of the upright picture

    @classmethod
    def of(cls, image: Image.Image) -> "Sheet":
        """Find the ink of a picture."""
        grey = grey_of(np.asarray(load_picture(image)))
        if max(grey.shape) < MIN_SIDE:
            grey = resized(grey, MIN_SIDE, cv2.INTER_CUBIC)
        size = upright_size(image)
        back = np.diag([size[0] / grey.shape[1], size[1] / grey.shape[0], 1.0])
        return cls(grey, *find_ink(grey), back, size)

    def filled(self) -> list["Sheet"]:
        """The sheet as one that its digits fill, for each of the pens that it may be."""
        return [Sheet(self.grey, *layers, self.back, self.size) for layers in two_levels(self.grey)]

    def rotated(self, degrees: float) -> "Sheet":
        """The sheet, rotated clockwise."""
        height, width = self.ink.shape
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, 1)
        wide, high = (np.abs(turn[:, :2]) @ [width, height]).astype(int)
        turn[:, 2] += (wide - width) / 2, (high - height) / 2
        size = int(wide), int(high)
        ink = cv2.warpAffine(self.ink, turn, size, flags=cv2.INTER_LINEAR)
        mask = cv2.warpAffine(self.mask, turn, size, flags=cv2.INTER_NEAREST)
        faint = cv2.warpAffine(self.faint, turn, size, flags=cv2.INTER_NEAREST)
        back = np.linalg.inv(np.vstack([turn, [0, 0, 1]]))
        return replace(self, ink=ink, mask=mask, faint=faint, back=self.back @ back)

    def lines(self) -> list[Line]:
        """The lines of writing and whatever may be a digit in them; raises as `find_rows`."""
        return [_line(self, row, n) for n, row in enumerate(find_rows(self.ink, self.mask))]

    def digit(self, shape: Strokes, row: int) -> Digit:
        left, top, right, bottom = shape.box
        corners = np.array([(x, y, 1) for x in (left, right) for y in (top, bottom)]).T
        x, y, _ = (self.back @ corners).round(6)
        right_end, bottom_end = np.minimum(self.size, np.ceil([x.max(), y.max()])).astype(int)
        box = max(0, int(x.min())), max(0, int(y.min())), int(right_end), int(bottom_end)
        return Digit(box, mnist_image(self.ink, shape), row, (left + right) / 2)

    def completed(self, shape: Strokes) -> Strokes | None:
        """A shape with what fainter ink joins to it inside its box, or None where there is none."""
        left, top, right, bottom = shape.box
        faint: Mask = self.faint[top:bottom, left:right] | shape.mask
        count, labels = cv2.connectedComponents(faint, connectivity=8)
        kept = np.zeros(count, np.uint8)
        kept[labels[shape.mask > 0]] = 1
        kept[0] = 0
        whole = kept[labels]
        grown = float(whole.sum()) / float(shape.mask.sum())
        return Strokes(shape.box, whole) if 1.04 < grown < 2 else None


def _line(sheet: Sheet, row: Row, number: int) -> Line:
    """The candidates of a line: runs of parts that lie next to each other."""
    parts: list[Strokes] = []
    crossed: list[float | None] = [None]  # ink of the cut before each part; None: there is a gap
    for shape in row.shapes:
        own, cuts = cut(shape, alone=len(row.shapes) == 1)
        parts += own
        crossed += [*cuts, None]
    size = float(np.median([shape.height for shape in row.shapes]))
    candidates = []
    for first in range(len(parts)):
        for last in range(first + 1, len(parts) + 1):
            run = parts[first:last]
            gaps = [
                max(0, after.box[0] - before.box[2]) / size
                for before, after, ink in zip(run, run[1:], crossed[first + 1 : last], strict=False)
                if ink is None
            ]
            shape = joined(run)
            wide = shape.width > WIDEST * max(size, shape.height)
            if last - first > 1 and (wide or sum(gaps) > WIDEST_GAP):
                break
            ends = [ink for ink in (crossed[first], crossed[last]) if ink is not None]
            cost = sum(CUT + CUT_INK * ink for ink in ends)
            cost += sum(GAP + GAP_WIDTH * gap for gap in gaps)
            cost += WIDE * max(0.0, shape.width / size - USUAL_WIDTH)
            cost += LOW * max(0.0, USUAL_HEIGHT - shape.height / size)
            is_mesh = holes(shape.mask) > MOST_HOLES
            candidates.append(Candidate(first, last, sheet.digit(shape, number), cost, is_mesh))
            if (whole := sheet.completed(shape)) is not None:
                digit = sheet.digit(whole, number)
                candidates.append(Candidate(first, last, digit, cost + 0.1, is_mesh))
    cut_before = {n for n in range(len(parts)) if crossed[n] is not None}
    punctuation = [sheet.digit(mark, number) for mark in row.punctuation]
    return Line(len(parts), cut_before, candidates, punctuation)


def mnist_image(ink: Ink, digit: Strokes) -> Grey:
    """The digit as MNIST has it: uint8 (28, 28), longest side 20 px, centred by mass."""
    left, top, right, bottom = digit.box
    own = cv2.dilate(digit.mask, np.ones((3, 3), np.uint8))
    dark = ink[top:bottom, left:right] * own
    pen = float(np.percentile(dark[digit.mask > 0], 80))
    # paper to 0 and pen to 1, as in the bilevel scans that MNIST was made of, but for the edges
    stroke = np.clip((dark / pen - 0.2) / 0.6, 0, 1)
    large = _anti_aliased(stroke, 160)
    thinnest = 160 / 20 * 2.0  # a pen finer than 2 px of 20 is rare in MNIST
    width = stroke_width((large > 0.5).astype(np.uint8))
    if width < thinnest:
        grow = round(thinnest - width) | 1
        pad = grow // 2 + 1
        large = cv2.copyMakeBorder(large, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (grow, grow))
        large = cv2.dilate(large, disc)
        x, y, w, h = cv2.boundingRect((large > 0).astype(np.uint8))
        large = large[y : y + h, x : x + w]
    return centred(_anti_aliased(large, 20))


def _anti_aliased(stroke: Ink, side: int) -> Ink:
    """So that the longer side has the given number of pixels."""
    return resized(stroke, side, cv2.INTER_AREA if side < max(stroke.shape) else cv2.INTER_LINEAR)


def centred(stroke: Ink) -> Grey:
    """(h, w), at most 20 a side -> uint8 (28, 28), its mass centred at (14, 14) as MNIST's is."""
    height, width = stroke.shape
    image = np.zeros((28, 28), np.uint8)
    image[:height, :width] = np.round(stroke * 255)
    moments = cv2.moments(image)
    x = round(14 - moments["m10"] / moments["m00"])
    y = round(14 - moments["m01"] / moments["m00"])
    x, y = min(max(x, 0), 28 - width), min(max(y, 0), 28 - height)
    return np.roll(image, (y, x), (0, 1))
