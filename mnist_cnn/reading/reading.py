"""What is read in a picture: digits, signs, and how sure they are."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 0.75  # confidence below which a digit is left unread
UNKNOWN = "·"  # a sign, a letter or a drawing that has no symbol of its own
Box = tuple[int, int, int, int]  # left, top, right, bottom; right and bottom exclusive
Corners = tuple[tuple[float, float], ...]  # (x, y), clockwise from the upper left


@dataclass(frozen=True)
class Reading:
    """One digit of a picture and what it was taken for, or something else that stands there."""

    digit: int | None  # None where the reader is unsure, or where it is no digit
    confidence: float  # the greatest of the probabilities
    # (10,): of each digit that it stands there; the rest is the probability that none does
    probabilities: NDArray[np.float32]
    # in pixels of the picture as it lies, of a file as `load_picture` gives it; an empty cell's own
    box: Box
    image: NDArray[np.uint8]  # (28, 28), white on black, as MNIST has its digits
    row: int  # the line of writing, from 0 at the top
    is_digit: bool = True  # although it may be illegible; False for signs and empty cells
    rotation: int = 0  # degrees clockwise by which the picture was rotated to be read
    # the same of a lone digit, which is left unread: it does not tell which side is up; else 0
    turned: int = 0
    column: int | None = None  # of a table or a grid, from 0 at the left
    sign: str = UNKNOWN  # of what is no digit, one of `sheet.SIGNS`; a space for an empty cell
    cell: Corners | None = None  # the same, in pixels of the picture
    line: float = (
        1.0  # the probability that the digits of its line, in a table of its cell, are right
    )

    @property
    def best(self) -> int:
        """The likeliest digit, whatever its confidence."""
        return int(self.probabilities.argmax())

    @property
    def symbol(self) -> str:
        """The digit; ? where the reader is unsure which; the sign where it is none."""
        if self.digit is not None:
            return str(self.digit)
        return "?" if self.is_digit else self.sign
