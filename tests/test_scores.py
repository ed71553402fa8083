"""The figures of an evaluation against published or hand-computed values."""

import math

import numpy as np
import pytest
import torch

from mnist_cnn.analysis import by_writer, scores
from mnist_cnn.analysis.scores import Predictions
from mnist_cnn.data.writers import Writers


def predictions_of(probabilities: list[list[float]], labels: list[int]) -> Predictions:
    return Predictions(torch.tensor(probabilities, dtype=torch.float64).log(), torch.tensor(labels))


@pytest.fixture
def overconfident() -> Predictions:
    """Logits three times too large for how often they are right."""
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


def test_a_confidence_on_an_edge_belongs_to_the_bin_below_and_every_prediction_to_one_bin():
    predictions = predictions_of([[0.75, 0.25], [0.5, 0.5], [1.0, 0.0]], [0, 0, 0])
    counts, confidence, accuracy = scores.bin_confidence(predictions, bins=4)
    assert counts.tolist() == [0, 1, 1, 1]
    assert confidence[1:].tolist() == pytest.approx([0.5, 0.75, 1.0])
    assert accuracy[0].isnan()


def test_scores_of_each_class_agree_with_torchmetrics(overconfident):
    from torchmetrics.functional import classification

    matrix = scores.confusion_matrix(overconfident)
    table = scores.class_table(matrix.numpy(), [str(k) for k in range(10)])
    assert table["images"].sum() == 4000
    arguments = (overconfident.predicted, overconfident.labels, 10)
    assert torch.equal(matrix, classification.multiclass_confusion_matrix(*arguments))
    for metric, theirs in (
        ("precision", classification.multiclass_precision),
        ("recall", classification.multiclass_recall),
        ("f1", classification.multiclass_f1_score),
    ):
        expected = theirs(*arguments, average="none").numpy()
        assert table[metric].to_numpy() == pytest.approx(expected, rel=1e-5)


def test_a_class_that_never_comes_up_scores_zero_instead_of_nan():
    table = scores.class_table(np.array([[3, 0], [0, 0]]), ["a", "b"])
    assert table.to_numpy().tolist() == [["a", 3, 1, 1, 1], ["b", 0, 0, 0, 0]]


def test_the_temperature_is_found_that_the_logits_were_scaled_by(overconfident):
    t = scores.fit_temperature(overconfident)
    assert t == pytest.approx(3, rel=0.05)
    least = scores.calibration(overconfident.at_temperature(t))["loss"]
    for other in (0.95 * t, 1.05 * t, 1.0):
        assert scores.calibration(overconfident.at_temperature(other))["loss"] > least
    cooler = overconfident.at_temperature(t)
    assert torch.equal(cooler.predicted, overconfident.predicted)
    assert (cooler.confidence < overconfident.confidence).all()


def test_the_most_confident_mistake_comes_first():
    predictions = predictions_of([[0.6, 0.4], [0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], [1, 1, 0, 0])
    assert scores.most_confident_mistakes(predictions).tolist() == [1, 3, 0]


def test_a_mean_of_probabilities_is_finite_where_they_vanish():
    far = scores.average([torch.tensor([[0.0, 2000.0]]), torch.tensor([[0.0, 3000.0]])])
    assert far.tolist() == [[pytest.approx(-2000 - math.log(2)), pytest.approx(0)]]


def test_a_bootstrap_over_single_images_has_the_width_of_the_normal_interval():
    hits = torch.arange(10_000) >= 500
    low, high = by_writer.bootstrap_interval(hits, torch.arange(10_000))
    half = 1.96 * math.sqrt(0.05 * 0.95 / 10_000)
    assert (low, high) == pytest.approx((0.95 - half, 0.95 + half), abs=2e-4)


def test_a_bootstrap_over_writers_is_as_wide_as_for_one_image_of_each():
    hits = torch.arange(10_000) >= 500
    together = torch.arange(10_000) // 100  # each writer's 100 images are all right or all wrong
    low, high = by_writer.bootstrap_interval(hits, together)
    half = 1.96 * math.sqrt(0.05 * 0.95 / 100)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    assert by_writer.bootstrap_interval(hits, together) == (low, high)


def test_two_networks_differ_by_what_one_alone_reads_correctly():
    labels = torch.zeros(65, dtype=torch.int64)
    read = torch.tensor([0] * 3 + [1] * 12 + [0] * 50), torch.tensor([1] * 3 + [0] * 12 + [0] * 50)
    first, second = (Predictions(torch.eye(2)[column], labels) for column in read)
    found = by_writer.difference(first, second, None)
    assert (found["first_alone_right"], found["second_alone_right"]) == (3, 12)
    assert found["difference"] == pytest.approx(-9 / 65)
    # the binomial test of 3 of 15: twice the sum of C(15, k) / 2^15 for k = 0 to 3
    assert found["mcnemar_p"] == pytest.approx(2 * (1 + 15 + 105 + 455) / 2**15)
    assert by_writer.difference(first, first, None)["mcnemar_p"] == 1


def test_writers_are_listed_from_the_least_accurate_on():
    known = Writers(torch.tensor([7, 7, 8, 8, 9]), torch.tensor([0, 0, 4, 4, 4]))
    predictions = Predictions(torch.eye(2)[[0, 0, 1, 0, 1]], torch.zeros(5, dtype=torch.int64))
    table = by_writer.each_writer(predictions, known)
    assert table.to_numpy().tolist() == [
        [9, "students", 1, 1, 0.0],
        [8, "students", 2, 1, 0.5],
        [7, "employees", 2, 0, 1.0],
    ]
