"""Pictures of accuracies against what they cost: python -m benchmarks.records --plot, and front."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from benchmarks.recording import KERAS_ACCURACY, Record
from mnist_cnn.plots.axes import TRAIN, VAL, finish, percent, titled

TITLE = "MNIST: accuracy on the 10,000 test images and "
CLOCK = {0.1: "0.1 s", 0.3: "0.3 s", 1: "1 s", 3: "3 s", 10: "10 s", 30: "30 s", 60: "1 min"}
CLOCK |= {180: "3 min", 600: "10 min", 1800: "30 min", 3600: "1 h", 10_800: "3 h"}  # ticks by s
ERRORS = {b * 10.0**e: percent(1 - b * 10.0**e) for e in range(-6, 0) for b in (1, 2, 3, 5)}


class Point(NamedTuple):
    """A network: its name, costs and test accuracies of its runs, and where its label stands."""

    name: str
    costs: Sequence[float]
    accuracies: Sequence[float]
    offset: tuple[int, int]  # of the label, in points
    color: str = VAL


def draw_points(cost: str, points: Iterable[Point], ticks: Mapping[float, str]) -> Figure:
    """Test accuracy against a cost: a point with bars of ± std a network.

    Both axes are logarithmic, that of accuracy in the errors, so that 99.2 % and 99.7 % are as far
    apart as they are hard to reach; more is up.
    """
    figure = titled(TITLE + cost, (9, 5.4))
    axes = figure.add_subplot()
    axes.set(xscale="log", yscale="log", xlabel=cost, ylabel="test accuracy")
    for name, costs, accuracies, offset, color in points:
        x, wide = mean_and_bar(costs)
        error, high = mean_and_bar([1 - accuracy for accuracy in accuracies])
        axes.errorbar(x, error, high, wide, fmt="o", ms=5.5, capsize=2.5, color=color)
        side: Any = {"ha": "center" if offset[0] == 0 else "right", "va": "center", "fontsize": 9}
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}
        label = ("\n" if offset[0] else "  ").join((name, f"{1 - error:.2%}"))
        axes.annotate(
            label, (x, error), offset, textcoords="offset points", color=color, bbox=box, **side
        )
    axes.margins(0.2, 0.15)  # for the names
    axes.invert_yaxis()
    for axis, labels in ((axes.xaxis, ticks), (axes.yaxis, ERRORS)):
        low, high = sorted(axis.get_view_interval())
        marks = [mark for mark in labels if low <= mark <= high]
        axis.set_ticks(marks, [labels[mark] for mark in marks])
    axes.minorticks_off()
    finish(axes)
    axes.set_axisbelow(True)
    return figure


def mean_and_bar(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation, which for an axis of logarithms ends before it reaches 0."""
    mean = statistics.mean(values)
    return mean, min(statistics.stdev(values), 0.9 * mean) if len(values) > 1 else 0.0


def draw_records(records: Mapping[str, Record], path: Path) -> None:
    """Draws the records by time of training, and their validation accuracy by epoch.

    The usual recipe, which is only compared with, is grey.
    """
    points = [
        # an ensemble is beside its networks
        Point(name, record["seconds"], record["test/acc"], (0, -18 if "networks" in record else 14))
        for name, record in records.items()
        if record.get("networks") != 1  # those of another point, evaluated in another way
    ]
    grey = [p._replace(color=TRAIN) if p.name == "usual" else p for p in points]
    figure = draw_points("time of training", grey, CLOCK)
    (axes,) = figure.axes
    limits = axes.axis()  # how far off the first epochs are is of no interest
    for record in records.values():
        epochs = pd.DataFrame(record.get("epochs", ()), columns=["seconds", "val/acc"])
        line = (epochs["seconds"], 1 - epochs["val/acc"])
        axes.plot(*line, color=VAL, alpha=0.45, zorder=1, marker=".", ms=4, lw=1)
    axes.axis(limits)
    axes.axhline(1 - KERAS_ACCURACY, color=TRAIN, lw=0.8, ls=":", zorder=0)
    text = f"the Keras tutorial's own script, {KERAS_ACCURACY:.2%}"
    place = axes.get_yaxis_transform()
    axes.text(0.01, 0.985 * (1 - KERAS_ACCURACY), text, transform=place, fontsize=8.5, color=TRAIN)
    figure.savefig(path, dpi=150)
