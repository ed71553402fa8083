"""A reading in JSON, as the command and the service give it."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

Share = Annotated[float, AfterValidator(lambda share: round(share, 6))]
Shares = Annotated[list[Share], BeforeValidator(list)]


class FoundDigit(BaseModel, from_attributes=True, populate_by_name=True):
    """A digit of a picture, or something else that stands there; made of a `Reading`."""

    digit: int | None  # null where the network is unsure, or where it is no digit
    is_digit: bool  # false for letters, punctuation, scribbles
    # the digit; ? for an unsure one; of what is no digit + - × ÷ = / ( ) . , : or · for any
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
