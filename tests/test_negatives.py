"""Negatives: how they are made and learned, and what the shipped network does with its like."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mnist_cnn.data import mnist
from mnist_cnn.data.negatives import MNISTWithNegatives, make_negatives, scribble
from mnist_cnn.losses import OutlierExposure
from mnist_cnn.pretrained import Trained, load
from mnist_cnn.reading.reading import THRESHOLD
from tests.helpers.negatives import KINDS, share_read


@pytest.fixture(scope="module")
def shipped() -> Trained:
    return load()


def test_the_same_seed_makes_the_same_images():
    digits = mnist.load_split("mnist", "unused", "train")[0].numpy()[:100]
    first, again, other = (make_negatives(digits, 120, seed) for seed in (0, 0, 1))
    assert first.shape == (120, 28, 28)
    assert first.dtype == np.uint8
    assert (first == again).all()
    assert (first != other).any()


def test_scribbles_fill_most_of_their_sheet_and_stay_on_it():
    rng = np.random.default_rng(0)
    for _ in range(200):
        rows, columns = np.nonzero(np.asarray(scribble(rng)))
        assert 30 <= max(np.ptp(rows), np.ptp(columns)) <= 80


def test_negatives_are_trained_on_and_never_validated_or_tested_on():
    data = MNISTWithNegatives(negatives=300, batch_size=1000)
    data.setup()
    labels = torch.cat([y for _, y in data.train_dataloader()])
    assert (labels == -1).sum() == 300
    for loader in (data.val_dataloader(), data.test_dataloader()):
        assert all((y >= 0).all() for _, y in loader)


def test_the_loss_is_cross_entropy_for_digits_and_that_to_all_classes_for_negatives():
    logits, labels = torch.randn(6, 10), torch.tensor([3, -1, 0, 9, -1, 5])
    digits = labels >= 0
    right = F.cross_entropy(logits[digits], labels[digits], reduction="sum")
    alike = F.cross_entropy(logits[~digits], torch.full((2, 10), 0.1), reduction="sum")
    loss = OutlierExposure(weight=0.5)(logits, labels)
    torch.testing.assert_close(loss, (right + 0.5 * alike) / 6)


@pytest.mark.parametrize("what", ["gradients", "blanks"])
def test_gradients_and_blank_sheets_are_never_read(shipped: Trained, what: str):
    assert share_read(shipped, KINDS[what](np.random.default_rng(1)), 30) == 0


def test_a_speck_of_a_few_pixels_is_no_digit(shipped: Trained):
    sheet = next(itertools.islice(KINDS["blanks"](np.random.default_rng(0)), 82, None))
    assert share_read(shipped, iter([sheet]), 1) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("what", "most"), [("letters", 0.10), ("scribbles", 0.14)])
def test_few_letters_and_scribbles_are_read(shipped: Trained, what: str, most: float):
    assert share_read(shipped, KINDS[what](np.random.default_rng(1)), 200) <= most


def test_the_shipped_network_knows_98_of_100_test_digits(shipped: Trained):
    confidence = shipped(mnist.load_split("mnist", "unused", "test")[0]).max(1).values
    assert (confidence >= THRESHOLD).float().mean() >= 0.98
