"""Figures of an evaluation: confusion, images, mistakes, reliability."""

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mnist_cnn.plots.axes import MARK, TRAIN, VAL, finish, titled

DRAWN = 300  # mistakes at most, in a PNG of 1,125 x 12,600 pixels
SERIES = (VAL, MARK)  # colors of groups of writers
CAPTION = 19  # characters that fit above an image


def confusion(matrix: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """A confusion matrix whose mistakes stand out.

    Args:
        matrix: whole numbers (C, C), images of the row's class read as the column's.
    """
    own = np.eye(len(matrix), dtype=bool)
    mistakes = np.ma.masked_array(matrix, own | (matrix == 0))
    most = max(1, matrix[~own].max(initial=0))
    figure = titled(title, (8, 8))
    axes = figure.add_subplot()
    # the diagonal would drown the mistakes on a common scale
    axes.imshow(mistakes, cmap="Reds", vmin=0, vmax=most)
    axes.imshow(np.ma.masked_array(own, ~own), cmap="Blues", vmin=0, vmax=4)
    for row, column in np.argwhere(matrix > 0):
        count = matrix[row, column]
        color = "white" if row != column and count > 0.6 * most else "black"
        axes.text(column, row, f"{count:,}", fontsize=9, color=color, ha="center", va="center")
    slanted = 45 if max(map(len, classes)) > 3 else 0
    axes.set_xticks(range(len(matrix)), classes, rotation=slanted)
    axes.set_yticks(range(len(matrix)), classes)
    axes.set(xlabel="read as", ylabel="label")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def gallery(
    images: np.ndarray, captions: Sequence[str], title: str, columns: int = 8, colors: str = "gray"
) -> Figure:
    """Images beside each other, each under its caption.

    Args:
        images: (K, 28, 28), 0 black to 255 or 1 white; K may be 0.
        captions: K texts; lines that are too long are broken.
    """
    rows = max(1, -(-len(images) // columns))
    captions = [
        "\n".join(line for part in caption.split("\n") for line in textwrap.wrap(part, CAPTION))
        for caption in captions
    ]
    lines = max((caption.count("\n") + 1 for caption in captions), default=1)
    inches, text = 1.25, 0.14 * lines + 0.06  # a cell's width, the height of its caption
    figure = titled(title, (inches * columns, (inches + text) * rows + 0.4))
    # one axes for all: laying out one for each takes seconds
    axes = figure.add_subplot(anchor="N")
    axes.axis("off")
    for k, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = k % columns, (k // columns + 1) * (1 + text / inches) - 1
        axes.imshow(image, cmap=colors, extent=(left + 0.04, left + 0.96, top + 0.96, top + 0.04))
        frame = Rectangle((left + 0.04, top + 0.04), 0.92, 0.92, fill=False, ec=TRAIN, lw=0.4)
        axes.add_patch(frame)
        axes.text(left + 0.5, top, caption, ha="center", va="bottom", fontsize=8)
    axes.set(xlim=(0, columns), ylim=(rows * (1 + text / inches), 0), aspect="equal")
    if len(images) == 0:
        axes.text(columns / 2, rows / 2, "none", ha="center", fontsize=14, color=TRAIN)
    return figure


def mistakes(images: np.ndarray, rows: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """A gallery of misclassified images, each with its index, label, prediction and confidence.

    Args:
        images: (K, 28, 28), 0 black to 255 white; the first DRAWN are drawn.
        rows: `index`, `label`, `prediction` and `confidence` of each, the last from 0 to 1.
    """
    form = "#{index}, {confidence:.1%}\n{label} read as {prediction}"
    captions = [form.format(**row) for row in rows[:DRAWN]]
    if len(images) > DRAWN:
        title += f"; the first {DRAWN} are drawn"
    return gallery(images[:DRAWN], captions, title, columns=6, colors="gray_r")


def reliability(panels: Mapping[str, Sequence[np.ndarray]]) -> Figure:
    """Reliability diagrams: the accuracy of predictions of a given confidence, and their number.

    Args:
        panels: by title, the counts (M,), mean confidence (M,) and accuracy (M,) of M equally wide
            bins of confidence from 0 to 1; means of empty bins are NaN.
    """
    figure = Figure(figsize=(5.4 * len(panels), 6), layout="constrained")
    areas = figure.subplots(
        2, len(panels), squeeze=False, sharex=True, sharey="row", height_ratios=(3, 1)
    )
    for (title, (counts, confidence, accuracy)), upper, lower in zip(
        panels.items(), *areas, strict=True
    ):
        width = 1 / len(counts)
        centres = (np.arange(len(counts)) + 0.5) * width
        upper.plot([0, 1], [0, 1], ls="--", lw=1, color=TRAIN, label="confidence = accuracy")
        upper.bar(centres, accuracy, width * 0.92, color=VAL, alpha=0.8, label="accuracy")
        upper.vlines(confidence, accuracy, confidence, color=MARK, lw=2.5, label="gap")
        upper.plot(confidence, confidence, "o", ms=4, color=MARK, label="mean confidence")
        upper.set(title=title, ylabel="accuracy", ylim=(0, 1.02), xlim=(0, 1))
        upper.legend(frameon=False, fontsize=9)
        bars = lower.bar(centres, counts, width * 0.92, color=TRAIN)
        lower.bar_label(bars, [f"{n:,}" if n else "" for n in counts], fontsize=7)
        lower.set(yscale="log", xlabel="confidence", ylabel="images")
        lower.set_ylim(0.5, max(1, counts.max()) * 6)
        finish(upper, "y")
        finish(lower, "x")
    return figure


def writers(people: pd.DataFrame, chance: np.ndarray, title: str) -> Figure:
    """The accuracy of each writer, the least accurate first.

    Args:
        people: a row for each of G writers: `series` and `acc`, in [0, 1].
        chance: accuracies (G,) of all writers in rising order, had errors fallen on them by chance.
    """
    figure = titled(title, (8.4, 5))
    axes = figure.add_subplot()
    axes.axvspan(0, 0.1, color=MARK, alpha=0.08, lw=0, label="the worst tenth")
    series: Any = list(people.groupby("series")["acc"])  # (name, accuracies), by name

    def draw(accuracies: Any, label: str, **style: Any) -> None:
        share = (np.arange(len(accuracies)) + 0.5) / len(accuracies)
        axes.plot(share, np.sort(accuracies), drawstyle="steps-mid", label=label, **style)

    draw(people["acc"], f"all {len(people):,} writers", color="black", lw=2)
    for (name, accuracies), color in zip(series, SERIES, strict=False):
        draw(accuracies, f"{len(accuracies):,} {name}", color=color, lw=1.3)
    draw(chance, "all, if errors fell by chance", color=TRAIN, lw=1.3, ls="--")
    axes.set(xlabel="share of the writers", ylabel="accuracy on their images")
    imperfect = max(float(np.mean(part < 1)) for _, part in [("", chance), *series])
    axes.set_xlim(0, min(1, max(0.12, 1.1 * imperfect)))  # beyond, every line is at 100 %
    finish(axes, "xy")
    axes.legend(frameon=False, loc="lower right")
    return figure


def corruptions(networks: Mapping[str, Mapping[str, float]], title: str) -> Figure:
    """The accuracy under each corruption, a line for each network.

    Args:
        networks: by name, the accuracies in [0, 1] by the corruption's name, the last their `mean`.
    """
    figure = titled(title, (9.6, 5.4))
    axes = figure.add_subplot()
    names = list(next(iter(networks.values())))
    for (network, values), mark in zip(networks.items(), itertools.cycle("os^DvXP"), strict=False):
        (line,) = axes.plot([values[name] for name in names[:-1]], f"-{mark}", label=network)
        axes.plot(len(names) - 1, values["mean"], mark, color=line.get_color())
    axes.axvline(len(names) - 1.5, color=TRAIN, lw=0.8)
    labels = [name.replace("_", " ") for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=45, ha="right")
    axes.set(ylabel="accuracy")
    finish(axes, "y")
    figure.legend(loc="outside right upper", frameon=False)
    return figure
