"""Readings of a picture: digits and signs, with their probabilities."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 0.75  # confidence below which a digit is left unread
UNKNOWN = "·"  # a sign, a letter or a drawing that has no symbol of its own
Box = tuple[int, int, int, int]
Corners = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Reading:
    """A digit of a picture and its reading, or something else that stands there.

    Attributes:
        digit: None if the reader is unsure, or if it is not a digit.
        confidence: the greatest of the probabilities.
        probabilities: of the ten digits (10,). Each is calibrated by itself, so their sum is not
            the probability that a digit is there.
        box: left, top, right and bottom, of an empty cell too; right and bottom are exclusive. In
            pixels of the array or PIL image, or of a file's picture as `load_picture` returns it;
            upright by its EXIF data, without the reader's own rotation.
        image: (28, 28), white on black, in the format of MNIST.
        row: the line of writing, from 0 at the top.
        is_digit: True also for an illegible digit, False for signs and empty cells.
        rotation: degrees clockwise by which the picture was rotated to be read.
        turned: the rotation of a lone digit, which is left unread as it does not tell which side is
            up; else 0.
        column: of a table or a grid, from 0 at the left.
        sign: one of `sheet.SIGNS` if it is not a digit; a space for an empty cell.
        cell: corners (x, y) of its cell in a grid, clockwise from the upper left, in pixels of the
            picture.
        line: probability that the digits of its line, or of its table cell, are right.
    """

    digit: int | None
    confidence: float
    probabilities: NDArray[np.float32]
    box: Box
    image: NDArray[np.uint8]
    row: int
    is_digit: bool = True
    rotation: int = 0
    turned: int = 0
    column: int | None = None
    sign: str = UNKNOWN
    cell: Corners | None = None
    line: float = 1.0

    @property
    def best(self) -> int:
        """The most likely digit, whatever its confidence."""
        return int(self.probabilities.argmax())

    @property
    def symbol(self) -> str:
        """The digit; ? if the reader is unsure which; the sign if it is not a digit."""
        if self.digit is not None:
            return str(self.digit)
        return "?" if self.is_digit else self.sign
