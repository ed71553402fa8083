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

from benchmarks.elsewhere import centred
from benchmarks.rules.cuts import cut
from benchmarks.rules.frames import Box, Cell
from benchmarks.rules.holes import MOST_HOLES, holes
from benchmarks.rules.shapes import Row, by_cells, find_rows, joined
from benchmarks.rules.signs import sign_of, told_apart
from benchmarks.rules.strokes import MIN_SIDE, Strokes, fillings, find_ink, find_sheet
from mnist_cnn.data.picture import load_picture, upright_size
from mnist_cnn.reading.ink import Grey, Ink, Mask, grey_of, resized, stroke_width

WIDEST_GAP = 0.2  # in a candidate, as a share of the usual height of the line
WIDEST = 1.8  # a candidate of several parts, as a share of its height
# costs, chosen on rows of validation digits: of an end of a candidate at a cut, and there for each
# width of the pen that is cut; of a gap inside, and for each height of the line that it is wide;
# for each height of the line that a candidate is wider than most digits, or lower
CUT, CUT_INK = 0.05, 0.08
GAP, GAP_WIDTH = 0.15, 0.75
WIDE, USUAL_WIDTH = 1.2, 0.9
LOW, USUAL_HEIGHT = 6, 0.5
SHARP = 0.2  # by which the edges of strokes are sharpened, which the lens has blurred
PENS = 2.0, 4.0  # widths in pixels of 20: finer and wider pens are rare in MNIST


@dataclass(frozen=True)
class Digit:
    """One digit of a picture."""

    box: Box  # in pixels of the upright picture
    image: NDArray[np.uint8]  # (28, 28), white ink on black, longest side 20, centred by mass
    row: int  # the line of writing that it stands in, from 0 at the top
    place: float  # its middle along the line, as the sheet was rotated, in pixels of the ink map
    column: int | None = None  # of a table or a grid, from 0 at the left
    sign: str | None = None  # of what is no digit; a space for an empty cell


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
    signs: list[Digit]  # what is no digit: points, commas, dashes, brackets, empty cells


@dataclass(frozen=True)
class Sheet:
    """The ink of a picture, layers of (H, W), and the way back to the picture."""

    grey: Grey  # the light, of the sheet as it lies
    ink: Ink
    mask: Mask  # the strokes of the pen
    cells: list[Cell]  # of forms and tables
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

    def on_table(self) -> "Sheet | None":
        """The sheet by itself that the picture shows on a table; None where it shows none."""
        if (corners := find_sheet(self.grey)) is None:
            return None
        width, height = np.linalg.norm(corners[[1, 3]] - corners[0], axis=1).round()
        ends = np.array([(0, 0), (width, 0), (0, height)], np.float32)
        turn = cv2.getAffineTransform(corners[[0, 1, 3]], ends)
        grey = cv2.warpAffine(self.grey, turn, (int(width), int(height)))
        back = self.back @ np.linalg.inv(np.vstack([turn, [0, 0, 1]]))
        return Sheet(grey, *find_ink(grey), back, self.size)

    def rotated(self, degrees: float) -> "Sheet":
        """The sheet, rotated clockwise."""
        height, width = self.ink.shape
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, 1)
        wide, high = (np.abs(turn[:, :2]) @ [width, height]).astype(int)
        turn[:, 2] += (wide - width) / 2, (high - height) / 2
        size = int(wide), int(high)
        ink = cv2.warpAffine(self.ink, turn, size, flags=cv2.INTER_LINEAR)
        mask = cv2.warpAffine(self.mask, turn, size, flags=cv2.INTER_NEAREST)
        back = self.back @ np.linalg.inv(np.vstack([turn, [0, 0, 1]]))
        cells = [Cell(c.corners @ turn[:, :2].T + turn[:, 2], c.group) for c in self.cells]
        return replace(self, ink=ink, mask=mask, cells=cells, back=back)

    def rows(self) -> list[Row]:
        """The lines of writing, each cell by itself; raises as `find_rows`."""
        return by_cells(find_rows(self.ink, self.mask), self.cells)

    def box(self, box: Box) -> Box:
        """A box of the ink map in pixels of the upright picture."""
        left, top, right, bottom = box
        corners = np.array([(x, y, 1) for x in (left, right) for y in (top, bottom)]).T
        x, y, _ = (self.back @ corners).round(6)
        right_end, bottom_end = np.minimum(self.size, np.ceil([x.max(), y.max()])).astype(int)
        return max(0, int(x.min())), max(0, int(y.min())), int(right_end), int(bottom_end)

    def digit(self, shape: Strokes, row: Row, sign: str | None = None) -> Digit:
        """A shape of a line as the network sees it."""
        place = (shape.box[0] + shape.box[2]) / 2
        image = mnist_image(self.ink, shape) if shape.mask.any() else np.zeros((28, 28), np.uint8)
        return Digit(self.box(shape.box), image, row.number, place, row.column, sign)

    def plain(self) -> list[Digit]:
        """All that is darker, or all that is lighter, as one digit."""
        found = []
        for ink in fillings(self.grey):
            x, y, width, height = cv2.boundingRect(ink)
            small = resized(ink[y : y + height, x : x + width].astype(np.float32), 20)
            if len(holes((small > 0.5).astype(np.uint8))) <= MOST_HOLES:
                box = self.box((x, y, x + width, y + height))
                found.append(Digit(box, centred(small), 0, x + width / 2))
        return found


def line_of(sheet: Sheet, row: Row) -> Line:
    """The candidates in a line of writing: runs of parts that lie next to each other."""
    parts: list[Strokes] = []
    crossed: list[float | None] = [None]  # ink of the cut before each part; None: there is a gap
    shapes, told = told_apart(row)
    signs = [sheet.digit(shape, row, sign) for shape, sign in told]
    beside = [sign.place for sign in signs]
    for shape in shapes:
        own, cuts = ([shape], []) if row.is_single else cut(shape, alone=len(shapes) == 1)
        parts += own
        crossed += [*cuts, None]
    size = float(np.median([shape.height for shape in shapes])) if shapes else 0
    middle = float(np.median([sum(shape.box[1::2]) / 2 for shape in shapes])) if shapes else 0
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
            ends = run[0].box[0] + run[0].width / 2, run[-1].box[2] - run[-1].width / 2
            apart = any(ends[0] < place < ends[1] for place in beside)
            if last - first > 1 and (wide or apart or sum(gaps) > WIDEST_GAP):
                break
            cut_ends = [ink for ink in (crossed[first], crossed[last]) if ink is not None]
            sign = sign_of(shape, size, middle) if cut_ends and last - first == 1 else None
            cost = sum(CUT + CUT_INK * ink for ink in cut_ends)
            cost += sum(GAP + GAP_WIDTH * gap for gap in gaps)
            if sign not in ("+", "-"):  # a digit may touch these
                sign = None
                cost += WIDE * max(0.0, shape.width / size - USUAL_WIDTH)
                cost += LOW * max(0.0, USUAL_HEIGHT - shape.height / size)
            is_mesh = len(holes(shape.mask)) > MOST_HOLES
            candidates.append(Candidate(first, last, sheet.digit(shape, row, sign), cost, is_mesh))
    cut_before = {n for n in range(len(parts)) if crossed[n] is not None}
    return Line(len(parts), cut_before, candidates, signs)


def mnist_image(ink: Ink, digit: Strokes) -> Grey:
    """The digit as MNIST has it: uint8 (28, 28), longest side 20 px, centred by mass."""
    left, top, right, bottom = digit.box
    own = cv2.dilate(digit.mask, np.ones((3, 3), np.uint8))
    dark = ink[top:bottom, left:right] * own
    blurred = cv2.GaussianBlur(dark, (0, 0), 1, None, 0, cv2.BORDER_CONSTANT)
    dark = cv2.addWeighted(dark, 1 + SHARP, blurred, -SHARP, 0)
    pen = float(np.percentile(dark[digit.mask > 0], 80))
    # paper to 0 and pen to 1, as in the bilevel scans that MNIST was made of, but for the edges
    stroke = np.clip((dark / pen - 0.2) / 0.6, 0, 1)
    large = resized(stroke, 160)
    width = stroke_width((large > 0.5).astype(np.uint8))
    finest, widest = (160 / 20 * pixels for pixels in PENS)
    usual = min(max(width, finest), widest)
    if width != usual:
        change = round(abs(usual - width)) | 1
        pad = change // 2 + 1
        large = cv2.copyMakeBorder(large, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (change, change))
        large = cv2.dilate(large, disc) if width < usual else cv2.erode(large, disc)
        x, y, w, h = cv2.boundingRect((large > 0).astype(np.uint8))
        large = large[y : y + h, x : x + w]
    return centred(resized(large, 20))
