"""Synthetic drawings for the page: strokes of digits and signs in rows, some illegible."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from mnist_cnn.data.synthetic.strokes import DIGITS, SIGNS, WIDTHS, Form, spline

Points = NDArray[np.float64]  # (N, 2), x and y as fractions of the sheet's width
RATIO = 3 / 4  # height of the sheet divided by its width
CROSSED = 0.05  # fraction of characters that are crossed out
SCRIBBLE = "~"  # in a text, stands for a scribble: neither a digit nor a sign


def ways(form: Form) -> list[Points]:
    """Return the pen strokes of a form in its unit box."""
    return [spline(way) if len(way) > 2 else way for way in form.smooth] + list(form.straight)


def written(rng: Generator, symbol: str) -> list[Points]:
    """Return the strokes of a character in its unit box; a scribble is a random curve."""
    if symbol == SCRIBBLE:
        return [spline(rng.uniform(0, 1, (int(rng.integers(4, 9)), 2)))]
    forms = DIGITS.get(symbol) or SIGNS[symbol]
    made = ways(forms[rng.integers(len(forms))])
    is_crossed = rng.random() < CROSSED
    return [*made, np.array([[-0.1, 0.7], [1.1, 0.2]])] if is_crossed else made


def drawing(rng: Generator, text: str) -> list[list[list[float]]]:
    """Return the strokes of a text of one or several rows that fill a part of the sheet.

    Some characters touch, and some are crossed out.
    """
    rows = text.split("\n")
    aspect, slant = rng.uniform(0.45, 0.75), rng.normal(0.1, 0.1)
    step = aspect + rng.uniform(0.05, 0.6)  # between characters, in units of their height
    longest = max(map(len, rows))
    most = min(0.9 / (step * longest), 0.9 * RATIO / (1.4 * len(rows)))
    height = most * rng.uniform(0.6, 1)
    left = rng.uniform(0.03, 0.97 - step * longest * height)
    top = rng.uniform(0.03, RATIO - 0.03 - 1.4 * len(rows) * height)
    strokes = []
    for number, row in enumerate(rows):
        for place, symbol in enumerate(row):
            wide = WIDTHS.get(symbol, aspect) * rng.uniform(0.9, 1.1)
            for way in written(rng, symbol):
                x, y = (way + rng.normal(0, 0.01, way.shape)).T
                x = (step * place + wide * x + slant * (0.5 - y)) * height + left
                y = (1.4 * number + y) * height + top
                strokes.append(np.stack([x, y], 1).round(4).tolist())
    return strokes


def any_text(rng: Generator) -> str:
    """Draw a random text: a number, a sum, a decimal, two rows, or digits beside scribbles."""
    digits = "".join(map(str, rng.integers(0, 10, 5)))
    kinds = [
        *(digits[:n] for n in range(1, 6)),
        f"{digits[0]}{rng.choice([*'+-×=/'])}{digits[1:3]}",
        f"{digits[:2]}.{digits[2:4]}",
        f"{digits[:2]}\n{digits[2:4]}",
        f"{digits[:2]}{SCRIBBLE}{digits[2]}",
        f"{digits[0]}{SCRIBBLE * 3}",
    ]
    return str(rng.choice(kinds))
