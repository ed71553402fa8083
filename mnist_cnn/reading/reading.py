"""Readings of a picture: digits and signs, with their probabilities."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 0.75  # confidence below which a digit is left unread
UNKNOWN = "·"  # a sign, a letter or a drawing that has no symbol of its own
Box = tuple[int, int, int, int]  # left, top, right, bottom; right and bottom exclusive
Corners = tuple[tuple[float, float], ...]  # (x, y), clockwise from the upper left


@dataclass(frozen=True)
class Reading:
    """A digit of a picture and its reading, or something else that stands there."""

    digit: int | None  # None if the reader is unsure, or if it is not a digit
    confidence: float  # the greatest of the probabilities
    # (10,), that each digit is there, each calibrated by itself: their sum is not that one is there
    probabilities: NDArray[np.float32]
    # in pixels of the unrotated image or array, of a file as `load_picture` loads it; or an empty
    # cell's
    box: Box
    image: NDArray[np.uint8]  # (28, 28), white on black, as MNIST has its digits
    row: int  # the line of writing, from 0 at the top
    is_digit: bool = True  # also if it is illegible; False for signs and empty cells
    rotation: int = 0  # degrees clockwise by which the picture was rotated to be read
    # the same for a lone digit, left unread as it does not tell which side is up; else 0
    turned: int = 0
    column: int | None = None  # of a table or a grid, from 0 at the left
    sign: str = UNKNOWN  # if not a digit, one of `sheet.SIGNS`; a space for an empty cell
    cell: Corners | None = None  # corners of its cell in a grid, in pixels of the picture
    line: float = 1.0  # probability that the digits of its line, or of its table cell, are right

    @property
    def best(self) -> int:
        """The likeliest digit, whatever its confidence."""
        return int(self.probabilities.argmax())

    @property
    def symbol(self) -> str:
        """The digit; ? if the reader is unsure which; the sign if it is not a digit."""
        if self.digit is not None:
            return str(self.digit)
        return "?" if self.is_digit else self.sign
