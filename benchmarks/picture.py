"""The picture of the records: test accuracy against time."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from mnist_cnn.plots.axes import TRAIN, VAL, percent, titled


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
    if curves:
        axes.plot([], [], ".-", ms=4, lw=1, color=TRAIN, label="validation accuracy by epoch")
    style: dict[str, Any] = {"fmt": "o", "ms": 5.5, "elinewidth": 1.4, "capsize": 2.5}
    points: dict[str, tuple[float, float]] = {}
    for name in seconds:
        time, wide = mean_and_bar(np.asarray(seconds[name]))
        error, high = mean_and_bar(1 - np.asarray(accuracy[name]))
        points[name] = time, error
        axes.errorbar(time, error, high, wide, color=colors[name], **style)
    if any(len(values) > 1 for values in accuracy.values()):
        label = "test accuracy and seconds, mean ± std"
        axes.errorbar([], [], [], [], color=TRAIN, label=label, **style)
    times, errors = zip(*points.values(), strict=True)
    reference, height = level
    axes.axhline(1 - height, color=TRAIN, lw=0.8, ls=":", zorder=0)
    first = min(*times, *(x[0] for x, _ in curves.values()), max(times))
    # what a first epoch is off by is of no interest here
    worst = 2.2 * max(1 - height, *errors)
    axes.set(xlim=(first / 1.8, 2.6 * max(times)), ylim=(worst, min(errors) / 1.35))
    axes.text(
        2.5 * max(times),
        0.985 * (1 - height),
        f"{reference}, {height:.2%}",
        ha="right",
        va="bottom",
        fontsize=8.5,
        color=TRAIN,
    )
    clock = {0.1: "0.1 s", 0.3: "0.3 s", 1: "1 s", 3: "3 s", 10: "10 s", 30: "30 s", 60: "1 min"}
    clock |= {180: "3 min", 600: "10 min", 1800: "30 min", 3600: "1 h", 10_800: "3 h"}
    shares = [b * 10.0**e for e in range(-6, 0) for b in (1, 2, 3, 5)]
    for axis, labels in (
        (axes.xaxis, clock),
        (axes.yaxis, {wrong: percent(1 - wrong) for wrong in shares}),
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
    texts = {name: f"{name}  {1 - error:.2%}" for name, (_, error) in points.items()}
    write_beside(figure, axes, points, texts, colors)
    return figure


def mean_and_bar(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation, which for an axis of logarithms ends before it reaches 0."""
    mean = float(values.mean())
    return mean, min(float(values.std(ddof=1)), 0.9 * mean) if len(values) > 1 else 0.0


def write_beside(
    figure: Figure,
    axes: Axes,
    points: Mapping[str, tuple[float, float]],
    texts: Mapping[str, str],
    colors: Mapping[str, str],
) -> None:
    """Writes a text beside each point, where it hides neither a point, a line nor another text.

    Args:
        points: by name, in the axes' units.
        texts, colors: by name.
    """
    figure.draw_without_rendering()  # it settles where everything lies
    figure.set_layout_engine("none")
    drawn = [line.get_transform().transform_path(line.get_path()) for line in axes.lines]
    for bars in axes.collections:
        drawn += [bars.get_transform().transform_path(path) for path in bars.get_paths()]
    spots: np.ndarray = np.concatenate(
        [path.interpolated(60).vertices for path in drawn if len(path)]
    )
    taken = [text.get_window_extent() for text in axes.texts]
    away = [9, 18, 30, 45]  # points
    sides = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)]
    for name, (x, y) in sorted(points.items(), key=lambda item: item[1]):
        best: tuple[int, Text, Bbox] | None = None
        for distance, (right, up) in itertools.product(away, sides):
            text = axes.annotate(
                texts[name],
                (x, y),
                (right * distance, up * distance),
                textcoords="offset points",
                ha={1: "left", 0: "center", -1: "right"}[right],
                va={1: "bottom", 0: "center", -1: "top"}[up],
                color=colors[name],
                fontsize=9.5,
                fontweight="bold",
            )
            box = text.get_window_extent().padded(3)
            near = box.padded(6)  # a marker reaches farther than the middle of it
            hidden = int(np.all((spots > near.min) & (spots < near.max), axis=1).sum())
            outside = not all(axes.bbox.contains(*corner) for corner in (box.min, box.max))
            faults = hidden + 1000 * (box.count_overlaps(taken) + outside)
            text.remove()
            if best is None or faults < best[0]:
                best = faults, text, box
        assert best is not None
        axes.add_artist(best[1])
        taken.append(best[2])
