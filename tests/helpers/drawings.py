"""Drawings as people make them on the page: strokes of digits and signs in rows, some unclear."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from mnist_cnn.data.synthetic.strokes import DIGITS, SIGNS, WIDTHS, Form, spline

Points = NDArray[np.float64]  # (N, 2), x and y in shares of the sheet's width
RATIO = 3 / 4  # height of the sheet by its width
CROSSED = 0.05  # of characters are crossed out
SCRIBBLE = "~"  # in a text, what is neither a digit nor a sign


def ways(form: Form) -> list[Points]:
    """The strokes of a form in its unit box, as a pen draws them."""
    return [spline(way) if len(way) > 2 else way for way in form.smooth] + list(form.straight)


def written(rng: Generator, symbol: str) -> list[Points]:
    """The strokes of a character in its unit box; a scribble is a curve through some places."""
    if symbol == SCRIBBLE:
        return [spline(rng.uniform(0, 1, (int(rng.integers(4, 9)), 2)))]
    forms = DIGITS.get(symbol) or SIGNS[symbol]
    made = ways(forms[rng.integers(len(forms))])
    is_crossed = rng.random() < CROSSED
    return [*made, np.array([[-0.1, 0.7], [1.1, 0.2]])] if is_crossed else made


def drawing(rng: Generator, text: str) -> list[list[list[float]]]:
    """Strokes of a text, of one row or several, that fill a part of the sheet.

    Some characters touch, and some are crossed out.
    """
    rows = text.split("\n")
    aspect, slant = rng.uniform(0.45, 0.75), rng.normal(0.1, 0.1)
    step = aspect + rng.uniform(0.05, 0.6)  # from one character to the next, by their height
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
    """A number, a sum, a price, a date, two rows, or digits beside scribbles."""
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
