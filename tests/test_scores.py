"""Metrics of an evaluation against published or hand-computed values."""

import itertools
import math

import pandas as pd
import pytest
import torch
from torch import nn

from mnist_cnn.analysis import scores
from mnist_cnn.analysis.scores import Predictions
from mnist_cnn.data.writers import Writers


def predictions_of(probabilities: list[list[float]], labels: list[int]) -> Predictions:
    return Predictions(torch.tensor(probabilities, dtype=torch.float64).log(), torch.tensor(labels))


@pytest.fixture
def overconfident() -> Predictions:
    """Make predictions with logits three times too large for their accuracy."""
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(4000, 10, generator=generator) * 2
    labels = torch.multinomial(true.softmax(1), 1, generator=generator).flatten()
    return Predictions(3 * true, labels)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [  # R. G. Newcombe, Statistics in Medicine 17 (1998), 857-872, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (0, 20, 0.0, 0.1611),
    ],
)
def test_the_interval_of_an_accuracy_is_wilsons(hits, n, low, high):
    part = scores.proportion(torch.arange(n) < hits)
    assert part["acc_95"] == pytest.approx((low, high), abs=5e-5)
    assert (part["images"], part["errors"], part["acc"]) == (n, n - hits, hits / n)


def test_calibration_error_agrees_with_torchmetrics(overconfident):
    from torchmetrics.functional.classification import multiclass_calibration_error

    other = multiclass_calibration_error(
        overconfident.probabilities, overconfident.labels, num_classes=10, n_bins=15
    )
    measured = scores.calibration(overconfident)
    assert measured["ece"] == pytest.approx(other.item(), abs=1e-6)
    p = overconfident.probabilities.gather(1, overconfident.labels[:, None])
    assert measured["loss"] == pytest.approx(-p.log().mean().item())


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    predictions = predictions_of([[0.75, 0.25], [0.5, 0.5], [1.0, 0.0]], [0, 0, 0])
    counts, confidence, accuracy = scores.bin_confidence(predictions, bins=4)
    assert counts.tolist() == [0, 1, 1, 1]
    assert confidence[1:].tolist() == pytest.approx([0.5, 0.75, 1.0])
    assert accuracy[0].isnan()


def test_scores_of_each_class_agree_with_torchmetrics(overconfident):
    from torchmetrics.functional import classification

    table = pd.DataFrame(scores.summary(overconfident, [str(k) for k in range(10)])["classes"])
    assert table["images"].sum() == 4000
    arguments = (overconfident.predicted, overconfident.labels, 10)
    for metric, theirs in (
        ("precision", classification.multiclass_precision),
        ("recall", classification.multiclass_recall),
        ("f1", classification.multiclass_f1_score),
    ):
        expected = theirs(*arguments, average="none").numpy()
        assert table[metric].to_numpy() == pytest.approx(expected, rel=1e-5)


def test_the_temperature_is_found_that_the_logits_were_scaled_by(overconfident):
    t = scores.fit_temperature(overconfident)
    assert t == pytest.approx(3, rel=0.05)
    least = scores.calibration(overconfident.at_temperature(t))["loss"]
    for other in (0.95 * t, 1.05 * t, 1.0):
        assert scores.calibration(overconfident.at_temperature(other))["loss"] > least


def test_the_most_confident_mistake_comes_first():
    predictions = predictions_of([[0.6, 0.4], [0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], [1, 1, 0, 0])
    assert scores.most_confident_mistakes(predictions).tolist() == [1, 3, 0]


def test_a_mean_of_probabilities_is_finite_where_they_vanish():
    far = scores.average([torch.tensor([[0.0, 2000.0]]), torch.tensor([[0.0, 3000.0]])])
    assert far.tolist() == [[pytest.approx(-2000 - math.log(2)), pytest.approx(0)]]


def test_several_networks_see_nine_shifted_copies_and_their_probabilities_are_averaged():
    x, y = torch.rand(5, 1, 6, 6), torch.arange(5) % 3
    nets = [nn.Sequential(nn.Flatten(), nn.Linear(36, 3)) for _ in range(2)]
    each = scores.predict_batches(nets, [(x[:3], y[:3]), (x[3:], y[3:])], torch.device("cpu"), 1)
    expected = torch.zeros(5, 3, dtype=torch.float64)
    for dx, dy in itertools.product((-1, 0, 1), repeat=2):
        copy = torch.zeros(5, 1, 8, 8)
        copy[..., 1 + dy : 7 + dy, 1 + dx : 7 + dx] = x
        for net in nets:
            expected += net(copy[..., 1:7, 1:7]).double().softmax(1).detach() / 18
    torch.testing.assert_close(scores.ensemble(each).probabilities, expected, rtol=1e-6, atol=0)
    assert torch.equal(each[0].labels, y)


@pytest.mark.parametrize(("size", "close"), [(1, 0.03), (100, 0.1)])
def test_a_bootstrap_over_writers_has_the_width_for_one_image_of_each(size, close):
    hits = torch.arange(10_000) >= 500
    writer = torch.arange(10_000) // size  # the images of each are all right or all wrong
    low, high = scores.bootstrap_interval(hits, writer)
    half = 1.96 * math.sqrt(0.05 * 0.95 / (10_000 / size))
    assert (high - low) / 2 == pytest.approx(half, rel=close)
    assert scores.bootstrap_interval(hits, writer) == (low, high)


def test_two_networks_differ_by_what_one_alone_reads_correctly():
    labels = torch.zeros(65, dtype=torch.int64)
    read = torch.tensor([0] * 3 + [1] * 12 + [0] * 50), torch.tensor([1] * 3 + [0] * 12 + [0] * 50)
    first, second = (Predictions(torch.eye(2)[column], labels) for column in read)
    found = scores.difference(first, second, None)
    assert (found["first_alone_right"], found["second_alone_right"]) == (3, 12)
    assert found["difference"] == pytest.approx(-9 / 65)
    # the binomial test of 3 of 15: twice the sum of C(15, k) / 2^15 for k = 0 to 3
    assert found["mcnemar_p"] == pytest.approx(2 * (1 + 15 + 105 + 455) / 2**15)
    assert scores.difference(first, first, None)["mcnemar_p"] == 1


def test_writers_are_listed_from_the_least_accurate_on():
    known = Writers(torch.tensor([7, 7, 8, 8, 9]), torch.tensor([0, 0, 4, 4, 4]))
    predictions = Predictions(torch.eye(2)[[0, 0, 1, 0, 1]], torch.zeros(5, dtype=torch.int64))
    table = scores.each_writer(predictions, known)
    assert table.to_numpy().tolist() == [[9, 1, 1, 0.0], [8, 2, 1, 0.5], [7, 2, 0, 1.0]]


def test_a_network_that_does_not_take_the_images_is_named():
    batches = [(torch.zeros(3, 64), torch.zeros(3, dtype=torch.int64))]
    with pytest.raises(ValueError, match=r"^the network fails on images \(3, 64\): .*shapes"):
        scores.predict_batches([nn.Linear(784, 10)], batches, torch.device("cpu"))
