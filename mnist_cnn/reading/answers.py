"""Readings and classes as JSON and text, for the command and the service."""

import base64
import io
import itertools
import json
import math
from collections.abc import Sequence
from typing import Annotated

from PIL import Image
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from mnist_cnn.reading.reading import UNKNOWN, Reading

Share = Annotated[float, AfterValidator(lambda share: round(share, 6))]
Shares = Annotated[list[Share], BeforeValidator(list)]


class FoundDigit(BaseModel, from_attributes=True, populate_by_name=True):
    """A digit of a picture, or something else that stands there; made of a `Reading`."""

    digit: int | None  # null if the network is unsure, or if it is not a digit
    is_digit: bool  # false for letters, punctuation, scribbles
    # the digit; ? if unsure; if not a digit, one of + - × ÷ = / ( ) . , : % $ # ° or · for any
    # other, or a space for an empty cell
    sign: str = Field(validation_alias="symbol")
    best: int  # the most likely digit, whatever its confidence
    confidence: Share  # its probability
    probabilities: Shares  # of the digits 0 to 9
    # degrees by which the picture must be rotated clockwise to be read, for a lone digit, which is
    # left unread as it does not tell which side is up; else 0
    turned: int
    box: Sequence[int | float]  # left, top, right, bottom in pixels of the upright picture
    row: int  # the line of writing, from 0 at the top
    column: int | None  # of a table or a grid, from 0 at the left


class FoundLine(BaseModel):
    """A line of writing, or a row of a table."""

    text: str  # in the format of `written`
    confidence: Share  # the probability that its digits are right


class SeenDigit(FoundDigit):
    box: list[float]  # left, top, right, bottom, as fractions of the picture's width and height
    image: str  # its 28x28 bytes in base64, white on black


class Reply(BaseModel):
    """What POST /read returns of any network."""

    pages: int = 1  # of the file
    preview: str | None = None  # the upright picture as a data URL, if asked for


class PictureRead(Reply):
    text: str  # the signs, a line for each row of writing
    rotation: int  # degrees clockwise by which the picture was rotated to be read
    lines: list[FoundLine]  # those of the text that are not empty
    digits: list[SeenDigit]


class FoundClass(BaseModel):
    """A class that a picture may be of."""

    name: str
    probability: Share


class PictureClassified(Reply):
    classes: list[FoundClass]  # the most likely, at most five, the most likely first
    image: str  # what the network sees: a PNG file as a data URL


class DigitsClassified(BaseModel):
    """What POST /classify returns of a network of digits."""

    digits: list[int]  # the most likely of each image
    probabilities: list[list[float]]  # for each image, of the digits 0 to 9


class ImagesClassified(BaseModel):
    """The same of any other network."""

    classes: list[list[FoundClass]]  # for each image the most likely, at most five


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

    Cells of a row are concatenated if each holds at most one character, else separated by bars.
    """
    lines = []
    for row in rows(readings):
        cells = itertools.groupby(row, key=lambda reading: reading.column)
        texts = ["".join(reading.symbol for reading in cell) for _, cell in cells]
        lines.append(("" if max(map(len, texts)) == 1 else " | ").join(texts))
    return "\n".join(lines)


def in_words(readings: Sequence[Reading]) -> str:
    """Format the readings row by row, then each digit's confidence, or the doubt about it."""
    remarks = []
    for reading in readings:
        if not reading.is_digit and reading.sign != UNKNOWN:
            continue
        remark = f"{reading.confidence:.0%}" if reading.is_digit else "no digit"
        if reading.is_digit and reading.digit is None:
            remark = f"{reading.best}? {remark}"
        remarks.append(remark)
    if turn := rotation(readings):
        remarks.append(f"turned by {turn}° clockwise")
    text = written(readings).replace("\n", " / ")
    return f"{text} ({', '.join(remarks)})" if remarks else "no digit found"


def as_url(picture: Image.Image, kind: str) -> str:
    """Return a picture as a data URL of a PNG or a JPEG file."""
    file = io.BytesIO()
    picture.save(file, kind, quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def constants(**values: object) -> str:
    """Return a script for the page that defines constants; it may stand in HTML."""
    texts = {name: json.dumps(value).replace("<", "\\u003c") for name, value in values.items()}
    return "".join(f"const {name} = {text};\n" for name, text in texts.items())
