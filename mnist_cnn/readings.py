"""Pages of a file, and readings in JSON and as text, as the command and the service give them."""

import itertools
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

    digit: int | None  # null where the network is unsure, or where it is no digit
    is_digit: bool  # false for letters, punctuation, scribbles
    # the digit; ? for an unsure one; of what is no digit + - × ÷ = / ( ) . , : % $ # or · for any
    # other, a space for an empty cell
    sign: str = Field(validation_alias="symbol")
    best: int  # the likeliest digit, whatever its confidence
    confidence: Share  # its probability
    probabilities: Shares  # of the digits 0 to 9
    # degrees clockwise by which the picture seems to be rotated, else 0
    turned: int = Field(validation_alias="rotation")
    box: Sequence[int | float]  # left, top, right, bottom in pixels of the upright picture
    row: int  # the line of writing, from 0 at the top
    column: int | None  # of a table or a grid, from 0 at the left


def written(readings: Sequence[Reading]) -> str:
    """The readings as text, a line for each row: ? for what is unsure, · for an unknown sign.

    Cells of a row stand beside each other where each holds one digit at most, else between bars.
    """
    lines = []
    for _, row in itertools.groupby(readings, key=lambda reading: reading.row):
        cells = itertools.groupby(row, key=lambda reading: reading.column)
        texts = ["".join(reading.symbol for reading in cell) for _, cell in cells]
        lines.append(("" if max(map(len, texts)) == 1 else " | ").join(texts))
    return "\n".join(lines)
