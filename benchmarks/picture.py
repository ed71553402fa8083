"""The picture of the records: test accuracy against time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from benchmarks.recording import KERAS_ACCURACY, Record
from mnist_cnn.plots.axes import TRAIN, VAL, finish, percent, titled

TITLE = "MNIST: accuracy on the 10,000 test images and time of training"
CLOCK = {0.1: "0.1 s", 0.3: "0.3 s", 1: "1 s", 3: "3 s", 10: "10 s", 30: "30 s", 60: "1 min"}
CLOCK |= {180: "3 min", 600: "10 min", 1800: "30 min", 3600: "1 h", 10_800: "3 h"}  # ticks by s
ERRORS = {b * 10.0**e: percent(1 - b * 10.0**e) for e in range(-6, 0) for b in (1, 2, 3, 5)}


def draw_records(records: Mapping[str, Record], path: Path) -> None:
    """Test accuracy against seconds of training: a point with bars of ± std a network.

    Both axes are logarithmic, that of accuracy in the errors, so that 99.2 % and 99.7 % are as far
    apart as they are hard to reach; more is up. What is only compared with is grey.

    Raises:
        ValueError: there is no record.
    """
    if not records:
        raise ValueError("--plot: no record yet: write one with NAME --write")
    figure = titled(TITLE, (9, 5.4))
    axes = figure.add_subplot()
    axes.set(xscale="log", yscale="log", xlabel="time of training", ylabel="test accuracy")
    line: dict[str, Any] = {"marker": ".", "ms": 4, "lw": 1}
    bars: dict[str, Any] = {"fmt": "o", "ms": 5.5, "elinewidth": 1.4, "capsize": 2.5}
    keras = 1 - KERAS_ACCURACY
    times, errors, starts = [], [], []
    for name, record in records.items():
        if record.get("networks") == 1:  # those of another point, evaluated in another way
            continue
        color = TRAIN if name == "usual" else VAL
        if epochs := record.get("epochs"):
            clock = [epoch["seconds"] for epoch in epochs]
            wrong = [1 - epoch["val/acc"] for epoch in epochs]
            axes.plot(clock, wrong, color=color, alpha=0.45, zorder=1, **line)
            starts.append(clock[0])
        time, wide = mean_and_bar(record["seconds"])
        error, high = mean_and_bar([1 - accuracy for accuracy in record["test/acc"]])
        axes.errorbar(time, error, high, wide, color=color, **bars)
        axes.annotate(
            f"{name}  {1 - error:.2%}",
            (time, error),
            (0, -20 if "networks" in record else 14),  # an ensemble is beside its networks
            textcoords="offset points",
            ha="center",
            color=color,
            fontsize=9.5,
            fontweight="bold",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1},
        )
        times.append(time)
        errors.append(error)
    if starts:
        axes.plot([], [], color=TRAIN, label="validation accuracy by epoch", **line)
    if any(len(record["test/acc"]) > 1 for record in records.values()):
        label = "test accuracy and seconds, mean ± std"
        axes.errorbar([], [], [], [], color=TRAIN, label=label, **bars)
    axes.set_xlim(min(times + starts) / 2.4, 2.6 * max(times))
    # what a first epoch is off by is of no interest here
    axes.set_ylim(2.2 * max(keras, *errors), min(errors) / 1.5)
    axes.axhline(keras, color=TRAIN, lw=0.8, ls=":", zorder=0)
    axes.text(
        *(0.01, 0.985 * keras, f"the Keras tutorial's own script, {KERAS_ACCURACY:.2%}"),
        transform=axes.get_yaxis_transform(),
        ha="left",
        va="bottom",
        fontsize=8.5,
        color=TRAIN,
    )
    label_axes(axes, CLOCK)
    figure.savefig(path, dpi=150)


def label_axes(axes: Axes, across: Mapping[float, str]) -> None:
    """Ticks of both axes, those across by their values, grid and legend."""
    for axis, labels in ((axes.xaxis, across), (axes.yaxis, ERRORS)):
        low, high = sorted(axis.get_view_interval())
        marks = [mark for mark in labels if low <= mark <= high]
        axis.set_ticks(marks, [labels[mark] for mark in marks])
    axes.minorticks_off()
    finish(axes)
    axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1), fontsize=9)


def mean_and_bar(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation, which for an axis of logarithms ends before it reaches 0."""
    mean = float(np.mean(values))
    return mean, min(float(np.std(values, ddof=1)), 0.9 * mean) if len(values) > 1 else 0.0
