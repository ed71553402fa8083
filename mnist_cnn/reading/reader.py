"""What a network reads in a picture, and a picture of what it saw."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mnist_cnn.reading.digits import Digit, find_digits
from mnist_cnn.reading.picture import load_picture, upright_size
from mnist_cnn.reading.strokes import Box

# of 2,891 digits on synthetic photographs of validation digits, 0.5 % stay unread and 1.4 % of the
# others are misread; at 0.8 it is 1.7 % and 0.9 %, but more than half of those unread were right
SURE = 0.60

Net = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Reading:
    """One digit of a picture and what it was taken for.

    Attributes:
        digit: 0 to 9, or None where the network is unsure.
        confidence: the greatest of the probabilities.
        probabilities: of the digits 0 to 9, float32 (10,).
        box: (left, top, right, bottom) in pixels of the upright picture.
        image: uint8 (28, 28), what the network saw.
        row: the line of writing, from 0 at the top.
    """

    digit: int | None
    confidence: float
    probabilities: NDArray[np.float32]
    box: Box
    image: NDArray[np.uint8]
    row: int

    @property
    def best(self) -> int:
        """The likeliest digit, sure or not."""
        return int(self.probabilities.argmax())


def read_digits(image: Image.Image, net: Net, sure: float = SURE) -> list[Reading]:
    """Reads the digits of a picture in one batch; an empty list where there is none.

    Args:
        image: any picture; rows are read from top to bottom, each from left to right.
        net: probabilities (N, 10) of uint8 images (N, 28, 28).
        sure: the confidence below which a digit is left unread, in [0, 1].
    """
    digits = find_digits(image)
    candidates = [each for digit in digits for each in (digit, *digit.halves)]
    if not candidates:
        return []
    with torch.inference_mode():
        batch = net(torch.from_numpy(np.stack([each.image for each in candidates])))  # (N, 10)
    readings = iter(
        _reading(each, row, sure)
        for each, row in zip(candidates, batch.float().cpu().numpy(), strict=True)
    )
    chosen: list[Reading] = []
    for digit in digits:
        whole, halves = next(readings), [next(readings) for _ in digit.halves]
        # neighbours that touch look like no digit, and the parts of one digit like none either
        doubtful = whole.digit is None and halves
        cut = doubtful and all(half.digit is not None for half in halves)
        chosen += halves if cut else [whole]
    return chosen


def _reading(digit: Digit, probabilities: NDArray[np.float32], sure: float) -> Reading:
    best = int(probabilities.argmax())
    confidence = float(probabilities[best])
    return Reading(
        digit=best if confidence >= sure else None,
        confidence=confidence,
        probabilities=probabilities,
        box=digit.box,
        image=digit.image,
        row=digit.row,
    )


def written(readings: Sequence[Reading]) -> str:
    """The readings as text: a line for each row, ? for what is unsure."""
    lines: dict[int, str] = {}
    for reading in readings:
        sign = "?" if reading.digit is None else str(reading.digit)
        lines[reading.row] = lines.get(reading.row, "") + sign
    return "\n".join(lines[row] for row in sorted(lines))


def draw_readings(image: Image.Image, readings: Sequence[Reading]) -> Image.Image:
    """The picture with a box and a reading for each digit; below it, what the network saw."""
    width, highest = 1000, 4000
    picture = load_picture(image).convert("RGB")
    upright = upright_size(image)
    zoom = min(width / upright[0], highest / upright[1])
    height = max(1, round(upright[1] * zoom))
    picture = picture.resize((max(1, round(upright[0] * zoom)), height))
    tile, gap = 84, 34
    columns = width // tile
    strips = -(-len(readings) // columns)
    sheet = Image.new("RGB", (width, height + strips * (tile + gap)), "white")
    sheet.paste(picture, (0, 0))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(20)
    for number, reading in enumerate(readings):
        colour = "#c03000" if reading.digit is None else "#007a3d"
        left, top, right, bottom = (round(side * zoom) for side in reading.box)
        draw.rectangle((left - 3, top - 3, right + 2, bottom + 2), outline=colour, width=3)
        label = f"{reading.best}{'?' if reading.digit is None else ''}"
        place = (left, max(0, top - 28))
        draw.rectangle(draw.textbbox(place, label, font), fill="white")
        draw.text(place, label, colour, font)
        x, y = number % columns * tile, height + number // columns * (tile + gap)
        seen = Image.fromarray(reading.image).resize((tile - 4, tile - 4), Image.Resampling.NEAREST)
        sheet.paste(seen, (x + 2, y + gap - 4))
        draw.text((x + 4, y + 6), f"{label} {reading.confidence:.0%}", colour, font)
    if not readings:
        draw.text((12, 12), "no digit found", "#c03000", font)
    return sheet
