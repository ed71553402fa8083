"""Any picture -> the digits in it, each as MNIST made its own.

Light is taken as a property of the paper and ink as a share of the light that the paper would have
returned, so that a shadow changes neither; LeCun et al. (1998, section III.A) describe the 28x28
form. Coordinates are (left, top, right, bottom) in pixels, right and bottom exclusive. An ink map
is float32 (height, width) in [0, 1], 0 for paper.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mnist_cnn.reading.ink import Grey, Ink
from mnist_cnn.reading.picture import MIN_SIDE, load_picture, upright_size
from mnist_cnn.reading.pieces import join_pieces
from mnist_cnn.reading.strokes import Box, Strokes, find_ink, stroke_width
from mnist_cnn.reading.touching import doubtful_halves


@dataclass(frozen=True)
class Digit:
    """One digit of a picture.

    Attributes:
        box: where it is in the upright picture, in pixels.
        image: uint8 (28, 28), white ink on black, longest side 20, centred by mass.
        row: the line of writing that it stands in, from 0 at the top.
        halves: the two digits that it may be instead, where its shape does not decide; or none.
    """

    box: Box
    image: NDArray[np.uint8]
    row: int
    halves: "tuple[Digit, ...]" = ()


def find_digits(image: Image.Image) -> list[Digit]:
    """The digits of a picture, rows from top to bottom, each from left to right; may be none.

    Boxes are in pixels of the picture given, after the rotation that its EXIF asks for.
    """
    picture = load_picture(image)
    grey = np.asarray(picture.convert("L"))
    zoom = MIN_SIDE / max(grey.shape)
    if zoom > 1:
        enlarged = max(1, round(grey.shape[1] * zoom)), max(1, round(grey.shape[0] * zoom))
        grey = cv2.resize(grey, enlarged, interpolation=cv2.INTER_CUBIC)
    ink, mask = find_ink(grey)
    rows = _rows(join_pieces(ink, mask))
    size, target = grey.shape[::-1], upright_size(image)

    def made(digit: Strokes, row: int, halves: tuple[Digit, ...] = ()) -> Digit:
        return Digit(_scaled(digit.box, size, target), _mnist_image(ink, digit), row, halves)

    return [
        made(digit, row, tuple(made(half, row) for half in doubtful_halves(digit)))
        for row, digits in enumerate(rows)
        for digit in digits
    ]


def _rows(digits: list[Strokes]) -> list[list[Strokes]]:
    """Lines of writing, from the top; a digit belongs to the line of its left neighbour.

    Neighbours rather than a common height: a line of writing may slope.
    """
    rows: list[list[Strokes]] = []
    for digit in sorted(digits, key=lambda d: d.box[0] + d.box[2]):

        def shared(row: list[Strokes], digit: Strokes = digit) -> float:
            last = row[-1]
            overlap = min(last.box[3], digit.box[3]) - max(last.box[1], digit.box[1])
            return overlap / min(last.height, digit.height)

        row = max(rows, key=shared, default=None)
        if row is not None and shared(row) > 0.4:
            row.append(digit)
        else:
            rows.append([digit])
    return sorted(rows, key=lambda row: float(np.mean([d.box[1] + d.box[3] for d in row])))


# --- the form of MNIST ----------------------------------------------------------------------------


def _mnist_image(ink: Ink, digit: Strokes) -> Grey:
    """The digit as MNIST has it: uint8 (28, 28), longest side 20 px, centred by mass."""
    left, top, right, bottom = digit.box
    own = cv2.dilate(digit.mask, np.ones((3, 3), np.uint8))
    dark = ink[top:bottom, left:right] * own
    pen = float(np.percentile(dark[digit.mask > 0], 80))
    # paper to 0 and pen to 1, as in the bilevel scans that MNIST was made of, but for the edges
    stroke = np.clip((dark / pen - 0.2) / 0.6, 0, 1)
    large = _resized(stroke, 160)
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
    return _centred(_resized(large, 20))


def _resized(stroke: Ink, side: int) -> Ink:
    """So that the longer side has the given number of pixels, anti-aliased."""
    height, width = stroke.shape
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(stroke, size, interpolation=how)


def _centred(stroke: Ink) -> Grey:
    """(h, w), at most 20 a side -> uint8 (28, 28), its mass centred at (14, 14) as MNIST's is."""
    height, width = stroke.shape
    image = np.zeros((28, 28), np.uint8)
    image[:height, :width] = np.round(stroke * 255)
    moments = cv2.moments(image)
    x = round(14 - moments["m10"] / moments["m00"])
    y = round(14 - moments["m01"] / moments["m00"])
    x, y = min(max(x, 0), 28 - width), min(max(y, 0), 28 - height)
    return np.roll(image, (y, x), (0, 1))


def _scaled(box: Box, size: tuple[int, ...], target: tuple[int, int]) -> Box:
    """A box of a picture of one (width, height) in a picture of another, inside it."""
    (width, height), (wide, high) = size, target
    left, right = box[0] * wide / width, box[2] * wide / width
    top, bottom = box[1] * high / height, box[3] * high / height
    return (
        int(left),
        int(top),
        min(wide, int(np.ceil(right))),
        min(high, int(np.ceil(bottom))),
    )
