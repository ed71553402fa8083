"""Figures show what they are given."""

import io
import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mnist_cnn.plots import evaluation, training

ROWS = pd.DataFrame({"epoch": [1, 2, 3], "train/acc": 0.9})
ROWS["train/loss"], ROWS["val/loss"] = 1 / ROWS["epoch"], 1.1 / ROWS["epoch"]
ROWS = ROWS.assign(**{"val/acc": 0.8 + ROWS["epoch"] / 100}).to_dict("records")


def test_history_draws_both_curves_and_marks_the_best_epoch():
    figure = training.history(ROWS, 2, "a run")
    loss, accuracy = figure.axes
    assert np.asarray(loss.lines[0].get_ydata()).tolist() == [1 / e for e in (1, 2, 3)]
    assert np.asarray(accuracy.lines[1].get_ydata()).tolist() == [row["val/acc"] for row in ROWS]
    for axes, best in ((loss, "best epoch 2: 0.5500"), (accuracy, "best epoch 2: 82.00%")):
        assert best in axes.get_legend_handles_labels()[1]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_a_confusion_matrix_shows_each_count():
    figure = evaluation.confusion(np.array([[1200, 3], [0, 7]]), "ab", "two classes")
    assert texts(figure) == ["1,200", "3", "7"]  # no mistake, no number
    assert texts(evaluation.confusion(np.array([[5, 0], [0, 0]]), "ab", "")) == ["5"]


def mistake(index: int, label: str, prediction: str, confidence: float) -> dict[str, Any]:
    return {"index": index, "label": label, "prediction": prediction, "confidence": confidence}


def test_long_names_of_classes_do_not_overlap() -> None:
    names = ["Ankle boot", "T-shirt/top"] * 3
    images = np.zeros((7, 28, 28), np.uint8)
    found = [mistake(69_999, *read, 1.0) for read in zip(names, names[::-1], strict=True)]
    figure = evaluation.mistakes(images, [*found, mistake(947, "8", "9", 0.995)], "clothes")
    assert texts(figure)[0] == "#69999, 100.0%\nAnkle boot read as\nT-shirt/top"
    assert texts(figure)[-1] == "#947, 99.5%\n8 read as 9"
    assert len(figure.axes[0].images) == 7
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts[:6]]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_a_picture_of_mistakes_has_at_most_300_however_many_there_are() -> None:
    n = 5000
    images = np.zeros((n, 28, 28), np.uint8)
    figure = evaluation.mistakes(images, [mistake(0, "7", "7", 0.5)] * n, "many")
    assert len(figure.axes[0].images) == 300
    assert figure.get_size_inches()[1] < 90
    assert figure.get_suptitle() == "many; the first 300 are drawn"


def test_a_title_is_written_as_it_is_and_fits() -> None:
    title = "outputs/$a$_b: " + "long " * 40
    figure = training.history(ROWS, None, title)
    figure.savefig(io.BytesIO())
    box = figure._suptitle.get_window_extent()  # type: ignore[attr-defined]
    assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1
    assert "$a$_b" in figure.get_suptitle()


def test_images_of_a_gallery_do_not_overlap_and_lie_inside_it():
    figure = evaluation.gallery(np.zeros((11, 28, 28)), ["x"] * 11, "", columns=4)
    axes = figure.axes[0]
    boxes = [image.get_extent() for image in axes.images]
    for k, (left, right, bottom, top) in enumerate(boxes):
        assert 0 <= left < right <= axes.get_xlim()[1]
        assert 0 <= top < bottom <= axes.get_ylim()[0]
        for other in boxes[k + 1 :]:
            assert right <= other[0] or other[1] <= left or bottom <= other[3]


def test_a_reliability_diagram_shows_accuracy_and_count_of_each_bin_that_has_any():
    counts = np.array([0, 4, 96])
    figure = evaluation.reliability(
        {"": (counts, np.array([np.nan, 0.6, 0.9]), np.array([np.nan, 0.5, 1]))}
    )
    upper, lower = figure.axes
    bars = [bar for bar in upper.patches if isinstance(bar, Rectangle)]
    assert [bar.get_height() for bar in bars] == pytest.approx([np.nan, 0.5, 1], nan_ok=True)
    assert [text.get_text() for text in lower.texts] == ["", "4", "96"]


def test_writers_are_drawn_from_the_least_accurate_on_beside_what_chance_gives():
    chance = np.array([0.8, 0.9, 1, 1, 1])
    series = ["employees"] * 2 + ["students"] * 3
    people = pd.DataFrame({"series": series, "acc": [1, 0.9, 1, 0.5, 1]})
    axes = evaluation.writers(people, chance, "two series").axes[0]
    lines = {str(line.get_label()): line for line in axes.lines}
    assert np.asarray(lines["all 5 writers"].get_ydata()).tolist() == [0.5, 0.9, 1, 1, 1]
    assert np.asarray(lines["3 students"].get_ydata()).tolist() == [0.5, 1, 1]
    assert (
        np.asarray(lines["all, if errors fell by chance"].get_ydata()).tolist() == chance.tolist()
    )
    assert axes.get_xlim()[1] < 1  # beyond, nobody errs
