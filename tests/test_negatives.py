"""Pictures without digits, and what is read in them."""

import itertools

import numpy as np
import pytest

from tests.helpers.negatives import KINDS, share_read


@pytest.mark.parametrize("what", ["gradients", "blanks"])
def test_gradients_and_blank_sheets_are_never_read(what: str):
    assert share_read(KINDS[what](np.random.default_rng(1)), 30) == 0


def test_a_speck_of_a_few_pixels_is_no_digit():
    sheet = next(itertools.islice(KINDS["blanks"](np.random.default_rng(0)), 82, None))
    assert share_read(iter([sheet]), 1) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("what", "most"), [("letters", 0.1), ("scribbles", 0.2)])
def test_few_letters_and_scribbles_are_read(what: str, most: float):
    assert share_read(KINDS[what](np.random.default_rng(1)), 30) <= most
