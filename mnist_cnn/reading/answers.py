"""Pages of a file, and readings as JSON and text, for the command and the service."""

import itertools
import math
from collections.abc import Sequence
from typing import Annotated

from PIL import Image
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from mnist_cnn.reading.picture import Pages
from mnist_cnn.reading.reading import Reading

Share = Annotated[float, AfterValidator(lambda share: round(share, 6))]
Shares = Annotated[list[Share], BeforeValidator(list)]


class NoPageError(ValueError):
    """A file has fewer pages."""


def page_of(pages: Pages, number: int) -> Image.Image:
    """Return a page of a file, counted from 1.

    Raises:
        NoPageError: there is no such page.
        ValueError: it cannot be read.
    """
    if not 0 < number <= len(pages):
        raise NoPageError(f"page must be 1 to {len(pages)}, got {number}")
    page = pages[number - 1]
    if isinstance(page, ValueError):
        raise page
    return page


class FoundDigit(BaseModel, from_attributes=True, populate_by_name=True):
    """A digit of a picture, or something else that stands there; made of a `Reading`."""

    digit: int | None  # null if the network is unsure, or if it is not a digit
    is_digit: bool  # false for letters, punctuation, scribbles
    # the digit; ? if unsure; if not a digit, one of + - × ÷ = / ( ) . , : % $ # ° or · for any
    # other, or a space for an empty cell
    sign: str = Field(validation_alias="symbol")
    best: int  # the likeliest digit, whatever its confidence
    confidence: Share  # its probability
    probabilities: Shares  # of the digits 0 to 9
    # degrees clockwise by which the picture seems to be rotated, for a lone digit, which is left
    # unread as it does not tell which side is up; else 0
    turned: int
    box: Sequence[int | float]  # left, top, right, bottom in pixels of the upright picture
    row: int  # the line of writing, from 0 at the top
    column: int | None  # of a table or a grid, from 0 at the left


class FoundLine(BaseModel):
    """A line of writing, or a row of a table."""

    text: str  # in the format of `written`
    confidence: Share  # the probability that its digits are right


def rows(readings: Sequence[Reading]) -> list[list[Reading]]:
    """Group the readings by row."""
    return [list(row) for _, row in itertools.groupby(readings, key=lambda each: each.row)]


def confidence(row: Sequence[Reading]) -> float:
    """Return the probability that all digits of a row are right."""
    return math.prod({each.column: each.line for each in row}.values())


def found_lines(readings: Sequence[Reading]) -> list[FoundLine]:
    """Return the rows that are not empty."""
    written_rows = [(written(row), confidence(row)) for row in rows(readings)]
    return [FoundLine(text=text, confidence=p) for text, p in written_rows if text.strip(" |")]


def rotation(readings: Sequence[Reading]) -> int:
    """Return the degrees clockwise by which a picture was rotated to be read."""
    return readings[0].rotation if readings else 0


def written(readings: Sequence[Reading]) -> str:
    """Format the readings as text, one line per row: ? for unsure digits, · for unknown signs.

    Cells of a row are concatenated if each holds at most one digit, else separated by bars.
    """
    lines = []
    for row in rows(readings):
        cells = itertools.groupby(row, key=lambda reading: reading.column)
        texts = ["".join(reading.symbol for reading in cell) for _, cell in cells]
        lines.append(("" if max(map(len, texts)) == 1 else " | ").join(texts))
    return "\n".join(lines)
