"""The picture of the records: test accuracy against time."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mnist_cnn.plots.axes import TRAIN, VAL, percent, titled

CLOCK = {0.1: "0.1 s", 0.3: "0.3 s", 1: "1 s", 3: "3 s", 10: "10 s", 30: "30 s", 60: "1 min"}
CLOCK |= {180: "3 min", 600: "10 min", 1800: "30 min", 3600: "1 h", 10_800: "3 h"}  # ticks by s
ERRORS = [b * 10.0**e for e in range(-6, 0) for b in (1, 2, 3, 5)]  # ticks


def tradeoff(
    seconds: Mapping[str, Sequence[float]],
    accuracy: Mapping[str, Sequence[float]],
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    level: tuple[str, float],
    grey: Collection[str],
    title: str,
) -> Figure:
    """Test accuracy against seconds of training: a point with bars of ± std a network.

    Both axes are logarithmic, that of accuracy in the errors, so that 99.2 % and 99.7 % are as far
    apart as they are hard to reach; more is up.

    Args:
        seconds, accuracy: by the network's name, of each of its runs; accuracy below 1.
        curves: by name, the seconds and the validation accuracy of each epoch, where known.
        level: the name and the accuracy of what is not known to the second: a line across.
        grey: the names of those to compare with.
        title: what they are.
    """
    figure = titled(title, (9, 5.4))
    axes = figure.add_subplot()
    axes.set(xscale="log", yscale="log", xlabel="time of training", ylabel="test accuracy")
    colors = {name: TRAIN if name in grey else VAL for name in seconds}
    for name, (x, y) in curves.items():
        axes.plot(x, 1 - np.asarray(y), ".-", ms=4, lw=1, color=colors[name], alpha=0.45, zorder=1)
    style: dict[str, Any] = {"fmt": "o", "ms": 5.5, "elinewidth": 1.4, "capsize": 2.5}
    times, errors = [], []
    for name, color in colors.items():
        time, wide = mean_and_bar(np.asarray(seconds[name]))
        error, high = mean_and_bar(1 - np.asarray(accuracy[name]))
        axes.errorbar(time, error, high, wide, color=color, **style)
        axes.annotate(
            f"{name}  {1 - error:.2%}",
            (time, error),
            (0, 14),
            textcoords="offset points",
            ha="center",
            color=color,
            fontsize=9.5,
            fontweight="bold",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1},
        )
        times.append(time)
        errors.append(error)
    if curves:
        axes.plot([], [], ".-", ms=4, lw=1, color=TRAIN, label="validation accuracy by epoch")
    if any(len(values) > 1 for values in accuracy.values()):
        label = "test accuracy and seconds, mean ± std"
        axes.errorbar([], [], [], [], color=TRAIN, label=label, **style)
    first = min(*times, *(x[0] for x, _ in curves.values()), max(times))
    # what a first epoch is off by is of no interest here
    worst = 2.2 * max(1 - level[1], *errors)
    axes.set(xlim=(first / 2.4, 2.6 * max(times)), ylim=(worst, min(errors) / 1.5))
    draw_level(axes, *level)
    finish_axes(axes)
    return figure


def mean_and_bar(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation, which for an axis of logarithms ends before it reaches 0."""
    mean = float(values.mean())
    return mean, min(float(values.std(ddof=1)), 0.9 * mean) if len(values) > 1 else 0.0


def draw_level(axes: Axes, name: str, accuracy: float) -> None:
    """A dotted line across, with its name at the right."""
    axes.axhline(1 - accuracy, color=TRAIN, lw=0.8, ls=":", zorder=0)
    place = (0.99, 0.985 * (1 - accuracy))
    axes.text(
        *place,
        f"{name}, {accuracy:.2%}",
        transform=axes.get_yaxis_transform(),
        ha="right",
        va="bottom",
        fontsize=8.5,
        color=TRAIN,
    )


def finish_axes(axes: Axes) -> None:
    """Ticks of both axes, grid and legend."""
    for axis, labels in (
        (axes.xaxis, CLOCK),
        (axes.yaxis, {wrong: percent(1 - wrong) for wrong in ERRORS}),
    ):
        low, high = sorted(axis.get_view_interval())
        marks = [mark for mark in labels if low <= mark <= high]
        axis.set_ticks(marks, [labels[mark] for mark in marks])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1), fontsize=9)
