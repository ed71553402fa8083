"""Figures show what they are given."""

from mnist_cnn import plots

ROWS = [
    {
        "epoch": e,
        "train/loss": 1 / e,
        "train/acc": 0.9,
        "val/loss": 1.1 / e,
        "val/acc": 0.8 + e / 100,
    }
    for e in (1, 2, 3)
]


def test_history_draws_both_curves_and_marks_the_best_epoch():
    figure = plots.history(ROWS, 2, "a run")
    loss, accuracy = figure.axes
    assert list(loss.lines[0].get_ydata()) == [1 / e for e in (1, 2, 3)]
    assert list(accuracy.lines[1].get_ydata()) == [row["val/acc"] for row in ROWS]
    assert "best epoch 2: 0.5500" in [t.get_text() for t in loss.get_legend().get_texts()]
    assert "best epoch 2: 82.00%" in [t.get_text() for t in accuracy.get_legend().get_texts()]


def test_history_draws_a_run_without_validation():
    rows = [{k: v for k, v in row.items() if not k.startswith("val")} for row in ROWS]
    loss, _ = plots.history(rows, None, "a run").axes
    assert [line.get_label() for line in loss.lines] == ["training"]
