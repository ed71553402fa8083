"""The content of figures."""

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mnist_cnn.callbacks.pictures import draw_test
from mnist_cnn.metrics import EpochMetrics
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


def test_history_draws_a_metric_without_a_stage_beside_those_that_have_one():
    rows = [{**row, "loss": 3.0} for row in ROWS]
    loss, accuracy = training.history(rows, None, "a run").axes
    drawn = [line.get_label() for axes in (loss, accuracy) for line in axes.lines]
    assert drawn == ["loss", "train/loss", "val/loss", "train/acc", "val/acc"]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_a_confusion_matrix_shows_each_count():
    figure = evaluation.confusion(np.array([[1200, 3], [0, 7]]), "ab", "two classes")
    assert texts(figure) == ["1,200", "3", "7"]  # zeros are not labelled


def test_a_class_without_a_name_is_shown_by_its_number(monkeypatch):
    drawn: list = []
    monkeypatch.setattr(evaluation, "confusion", lambda *args: drawn.append(args))
    epoch = EpochMetrics()
    epoch.add(torch.tensor(0.0), torch.eye(10)[[8, 9, 1]], torch.tensor([0, 6, 1]))
    trainer: Any = SimpleNamespace(world_size=1, is_global_zero=True)
    trainer.datamodule = SimpleNamespace(classes=list("abcdefg"))
    draw_test(trainer, SimpleNamespace(epoch_metrics={"test": epoch}))
    ((matrix, classes, *_),) = drawn
    assert classes == [*"abcdefg", "7", "8", "9"]
    assert matrix.sum() == matrix[0, 8] + matrix[6, 9] + matrix[1, 1] == 3


def test_a_title_is_written_as_it_is_and_fits() -> None:
    title = "outputs/$a$_b: " + "long " * 40
    figure = training.history(ROWS, None, title)
    figure.savefig(io.BytesIO())
    box = figure._suptitle.get_window_extent()  # type: ignore[attr-defined]  # noqa: SLF001
    assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1
    assert "$a$_b" in figure.get_suptitle()


@pytest.mark.parametrize("caption", ["x", "#69999\nAnkle boot read as\nT-shirt/top"])
def test_images_of_a_gallery_and_captions_do_not_overlap_and_lie_inside_it(caption):
    captions = [caption] * 11
    figure = evaluation.gallery(np.zeros((len(captions), 28, 28)), captions, "", columns=4)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    assert texts(figure) == captions
    boxes = [item.get_window_extent() for item in (*axes.images, *axes.texts)]
    for k, box in enumerate(boxes):
        assert axes.bbox.x0 <= box.x0 < box.x1 <= axes.bbox.x1
        assert axes.bbox.y0 <= box.y0 < box.y1 <= axes.bbox.y1 + 1
        assert not any(box.overlaps(other) for other in boxes[k + 1 :])


def test_a_gallery_shows_colours_as_they_are_and_keeps_the_form_of_a_picture():
    red = np.zeros((1, 10, 20, 3), np.uint8)
    red[..., 0] = 255
    figure = evaluation.gallery(red, ["red"], "", columns=1)
    figure.draw_without_rendering()
    (image,) = figure.axes[0].images
    assert np.asarray(image.get_array())[5, 5].tolist() == [255, 0, 0]
    left, right, bottom, top = image.get_extent()
    assert right - left == pytest.approx(2 * abs(top - bottom))
    grey = evaluation.gallery(np.full((1, 2, 2), 100, np.uint8), ["grey"], "", columns=1)
    assert grey.axes[0].images[0].get_clim() == (0, 255)  # not stretched


def test_no_name_is_read_as_a_formula():
    names, title = ["$1_$", "$5_$"], "$a_$"
    rows = [{"epoch": 1, "val/$f1_$": 0.5}, {"epoch": 2, "$b_$": 0.5}]
    for figure in (
        evaluation.confusion(np.eye(2, dtype=int), names, title),
        evaluation.gallery(np.zeros((2, 4, 4)), names, title),
        evaluation.reliability(np.ones(1), np.ones(1), np.ones(1), title),
        evaluation.writers(np.ones(2), title),
        training.history(rows, 1, title),
    ):
        figure.savefig(io.BytesIO())  # $1_$ is an invalid formula


def test_a_reliability_diagram_shows_accuracy_and_count_of_each_bin_that_has_any():
    counts = np.array([0, 4, 96])
    confidence, accuracy = np.array([np.nan, 0.6, 0.9]), np.array([np.nan, 0.5, 1])
    figure = evaluation.reliability(counts, confidence, accuracy, "")
    bars = [bar for bar in figure.axes[0].patches if isinstance(bar, Rectangle)]
    assert [bar.get_height() for bar in bars] == pytest.approx([np.nan, 0.5, 1], nan_ok=True)
    assert texts(figure) == ["", "4", "96"]
