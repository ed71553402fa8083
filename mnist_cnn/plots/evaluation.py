"""Figures of an evaluation: confusion, images, reliability, writers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mnist_cnn.plots.axes import MARK, TRAIN, VAL, finish, titled, without_math


@without_math
def confusion(matrix: np.ndarray, classes: Sequence[str], title: str, inches: float = 8) -> Figure:
    """Plot a confusion matrix, colored by mistakes alone, as the hits would dominate.

    Args:
        matrix: integers (C, C); row i and column j count images of class i predicted as j.
    """
    mistakes = np.where(np.eye(len(matrix), dtype=bool), 0, matrix)
    most = max(1, mistakes.max())
    figure = titled(title, (inches, inches))
    axes = figure.add_subplot()
    axes.imshow(mistakes, cmap="Reds", vmin=0, vmax=most)
    for row, column in np.argwhere(matrix > 0):
        color = "white" if mistakes[row, column] > 0.6 * most else "black"
        text = f"{matrix[row, column]:,}"
        axes.text(column, row, text, fontsize=9, color=color, ha="center", va="center")
    axes.set_xticks(range(len(matrix)), classes, rotation=45 if max(map(len, classes)) > 3 else 0)
    axes.set_yticks(range(len(matrix)), classes)
    axes.set(xlabel="read as", ylabel="label")
    return figure


@without_math
def gallery(
    images: np.ndarray, captions: Sequence[str], title: str, columns: int = 8, colors: str = "gray"
) -> Figure:
    """Plot images in a grid, each under its caption.

    Args:
        images: (K, H, W), or in colour (K, H, W, 3); uint8, or float in [0, 1]; K may be 0.
        captions: K texts of equally many lines.
    """
    rows = max(1, -(-len(images) // columns))
    text = 0.14 * (1 + max((caption.count("\n") for caption in captions), default=0))
    figure = titled(title, (1.25 * columns, 1.25 * (1 + text) * rows + 0.4))
    # a single axes: laying out one per image takes seconds
    axes = figure.add_subplot(anchor="N")
    height, width = 0.46 * np.array(images.shape[1:3]) / max(images.shape[1:3])
    white = 255 if images.dtype == np.uint8 else 1
    for k, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = k % columns, k // columns * (1 + text) + text
        x, y = left + 0.5, top + 0.5
        extent = (x - width, x + width, y + height, y - height)
        axes.imshow(image, cmap=colors, vmin=0, vmax=white, extent=extent)
        axes.text(left + 0.5, top, caption, ha="center", va="bottom", fontsize=8)
    axes.set(xlim=(0, columns), ylim=(rows * (1 + text), 0), aspect="equal")
    axes.axis("off")
    return figure


def mistakes(
    images: np.ndarray,
    wrong: Sequence[Mapping[str, Any]],
    title: str,
    *,
    white_on_black: bool,
    columns: int = 6,
) -> Figure:
    """Plot images with their label and prediction.

    Args:
        images: uint8 (K, C, H, W), in colour with C=3 or 4.
        wrong: K mistakes, see `scores.list_mistakes`.
        white_on_black: plot them inverted, for print.
    """
    form = "#{index}, {confidence:.1%}\n{label} read\nas {prediction}"
    if wrong and "file" in wrong[0]:
        form = "{name}\n{label} read\nas {prediction}, {confidence:.0%}"
    names = [Path(mistake.get("file", "")).name[-20:] for mistake in wrong]
    captions = [form.format(name=name, **m) for name, m in zip(names, wrong, strict=True)]
    shown = np.moveaxis(images, 1, -1) if images.shape[1] in (3, 4) else images[:, 0]
    colors = "gray_r" if white_on_black else "gray"
    return gallery(shown, captions, title, columns=columns, colors=colors)


@without_math
def reliability(
    counts: np.ndarray, confidence: np.ndarray, accuracy: np.ndarray, title: str
) -> Figure:
    """Plot a reliability diagram: the accuracy and the number of predictions by confidence.

    Args:
        counts, confidence, accuracy: (M,) for M equally wide bins of confidence in [0, 1]; means
            of empty bins are NaN.
    """
    figure = titled(title, (6.4, 6))
    axes = figure.add_subplot()
    width = 1 / len(counts)
    axes.plot([0, 1], [0, 1], ls="--", lw=1, color=TRAIN, label="confidence = accuracy")
    bars = axes.bar((np.arange(len(counts)) + 0.5) * width, accuracy, width * 0.92, color=VAL)
    axes.bar_label(bars, [f"{n:,}" if n else "" for n in counts], fontsize=7, padding=4)
    axes.plot(confidence, accuracy, "o", ms=4, color=MARK, label="mean confidence")
    axes.set(xlabel="confidence", ylabel="accuracy", ylim=(0, 1.06), xlim=(0, 1))
    axes.legend(frameon=False, fontsize=9)
    finish(axes, "xy")
    return figure


@without_math
def writers(accuracies: np.ndarray, title: str) -> Figure:
    """Plot the accuracy of each writer, the least accurate first.

    Args:
        accuracies: (G,) of G writers, in [0, 1], in ascending order.
    """
    figure = titled(title, (8.4, 5))
    axes = figure.add_subplot()
    share = (np.arange(len(accuracies)) + 0.5) / len(accuracies)
    axes.axvspan(0, 0.1, color=MARK, alpha=0.08, lw=0, label="the worst tenth")
    axes.plot(share, accuracies, color=VAL, drawstyle="steps-mid", label="writers")
    axes.set(xlabel="share of the writers", ylabel="accuracy on their images")
    finish(axes, "xy")
    axes.legend(frameon=False, loc="lower right")
    return figure
