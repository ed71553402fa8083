"""Reading of pictures without digits."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from mnist_cnn.data.drawn.negatives import KINDS
from mnist_cnn.reading.reader import read_digits


def fraction_read(drawings: Iterator[Image.Image], n: int) -> float:
    """Return the fraction of n drawings in which a digit is read."""
    readings = [read_digits(drawing) for drawing in itertools.islice(drawings, n)]
    return sum(any(each.digit is not None for each in read) for read in readings) / n


@pytest.mark.parametrize("what", ["gradients", "blanks"])
def test_gradients_and_blank_sheets_are_never_read(what: str):
    assert fraction_read(KINDS[what](np.random.default_rng(1)), 10) == 0


def test_a_speck_of_a_few_pixels_is_no_digit():
    rng = np.random.default_rng(0)
    for _ in range(4):
        sheet = rng.normal(rng.uniform(60, 240), 2, (240, 240)).clip(0, 255)
        y, x = rng.integers(5, 230, 2)
        sheet[y : y + 2, x : x + 3] -= 40
        assert fraction_read(iter([Image.fromarray(sheet.clip(0).astype(np.uint8))]), 1) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("what", "most"), [("letters", 0.1), ("scribbles", 0.2)])
def test_few_letters_and_scribbles_are_read(what: str, most: float):
    assert fraction_read(KINDS[what](np.random.default_rng(1)), 15) <= most
