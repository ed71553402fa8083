"""Pure functions: numbers in, matplotlib Figure out. No global state of pyplot is touched."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

TRAIN, VAL, MARK = "#8c8c8c", "#0b62a4", "#c1272d"


def history(rows: Sequence[Mapping[str, float]], best_epoch: int | None, title: str) -> Figure:
    """Loss and accuracy by epoch, training and validation, with the best epoch marked.

    Args:
        rows: one per epoch: `epoch` (from 1), `lr`, and any of `train/loss`, `train/acc`,
            `val/loss`, `val/acc`.
        best_epoch: the epoch whose checkpoint was kept, or None.
        title: what the run was.
    """
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    figure.suptitle(title, fontsize=11)
    for axes, metric, name in zip(
        figure.subplots(1, 2), ("loss", "acc"), ("cross-entropy", "accuracy"), strict=True
    ):
        for stage, label, color in (("train", "training", TRAIN), ("val", "validation", VAL)):
            points = [
                (r["epoch"], r[f"{stage}/{metric}"]) for r in rows if f"{stage}/{metric}" in r
            ]
            if points:
                axes.plot(
                    *zip(*points, strict=True), "o-", ms=3.5, lw=1.6, color=color, label=label
                )
        best = next((r for r in rows if r["epoch"] == best_epoch), None)
        if best and f"val/{metric}" in best:
            value = best[f"val/{metric}"]
            axes.axvline(best["epoch"], color=MARK, lw=0.8, ls=":")
            shown = f"{value:.2%}" if metric == "acc" else f"{value:.4f}"
            axes.plot(
                best["epoch"],
                value,
                "o",
                ms=8,
                mfc="none",
                color=MARK,
                label=f"best epoch {best_epoch}: {shown}",
            )
        axes.set(xlabel="epoch", title=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if metric == "acc":
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    return figure


def confusion(matrix: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """A confusion matrix whose mistakes stand out, with recall by row and precision by column.

    Args:
        matrix: whole numbers (C, C), images of the row's class read as the column's.
        classes: the C names.
        title: what was evaluated.
    """
    n = len(matrix)
    mistakes = matrix * (1 - np.eye(n, dtype=matrix.dtype))
    with np.errstate(invalid="ignore"):
        recall = matrix.diagonal() / matrix.sum(1)
        precision = matrix.diagonal() / matrix.sum(0)
    figure = Figure(figsize=(8.4, 8), layout="constrained")
    figure.suptitle(title, fontsize=11)
    axes = figure.add_subplot()
    # the diagonal would drown the mistakes on a common scale
    axes.imshow(np.ma.masked_equal(mistakes, 0), cmap="Reds", vmin=0, vmax=max(1, mistakes.max()))
    axes.imshow(
        np.ma.masked_where(~np.eye(n, dtype=bool), np.ones((n, n))), cmap="Blues", vmin=0, vmax=4
    )
    for row, column in np.argwhere(matrix > 0):
        count = matrix[row, column]
        dark = row != column and count > 0.6 * mistakes.max()
        axes.text(
            *(column, row, f"{count:,}"),
            ha="center",
            va="center",
            fontsize=9,
            color="white" if dark else "black",
            fontweight="bold" if row == column else "normal",
        )
    for k in range(n):
        for place, value in (((n, k), recall[k]), ((k, n), precision[k])):
            axes.text(
                *place,
                "-" if np.isnan(value) else f"{value:.1%}",
                ha="center",
                va="center",
                fontsize=8.5,
                color=VAL,
            )
    slanted = 45 if max(map(len, classes)) > 3 else 0
    axes.set_xticks(range(n + 1), [*classes, "recall"], rotation=slanted)
    axes.set_yticks(range(n + 1), [*classes, "precision"])
    axes.set(xlabel="read as", ylabel="label", xlim=(-0.5, n + 0.5), ylim=(n + 0.5, -0.5))
    axes.hlines(n - 0.5, -0.5, n + 0.5, color=TRAIN, lw=0.8)
    axes.vlines(n - 0.5, -0.5, n + 0.5, color=TRAIN, lw=0.8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def gallery(
    images: np.ndarray, captions: Sequence[str], title: str, columns: int = 8, colors: str = "gray"
) -> Figure:
    """Images side by side, each under its caption.

    Args:
        images: (K, 28, 28), 0 black to 255 or 1 white; K may be 0.
        captions: K texts of one or two lines.
        title: what they are.
        columns: images of a row.
        colors: a color map of matplotlib's.
    """
    rows = max(1, -(-len(images) // columns))
    lines = max((caption.count("\n") + 1 for caption in captions), default=1)
    inches, text = 1.25, 0.14 * lines + 0.06  # a cell's width, the height of its caption
    figure = Figure(figsize=(inches * columns, (inches + text) * rows + 0.4), layout="constrained")
    figure.suptitle(title, fontsize=11)
    # one axes for all: laying out one for each takes seconds
    axes = figure.add_subplot()
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


def mistakes(
    images: np.ndarray,
    index: Sequence[int],
    label: Sequence[str],
    prediction: Sequence[str],
    confidence: Sequence[float],
    title: str,
) -> Figure:
    """A gallery of wrongly read images: which one, its label, what it was read as, how surely.

    Args:
        images: (K, 28, 28), 0 black to 255 white.
        index, label, prediction, confidence: K each; confidence from 0 to 1.
        title: what they are.
    """
    captions = [
        f"#{i}\n{truth} read as {said}, {p:.1%}"
        for i, truth, said, p in zip(index, label, prediction, confidence, strict=True)
    ]
    return gallery(images, captions, title, columns=6, colors="gray_r")


def reliability(panels: Mapping[str, Sequence[np.ndarray]]) -> Figure:
    """Reliability diagrams: how often answers of a given confidence are right, and how many are so.

    The accuracy of a bin with few images says little, so it is drawn pale.

    Args:
        panels: by title, the counts (M,), mean confidence (M,) and accuracy (M,) of M equally wide
            bins of confidence from 0 to 1; means of empty bins are NaN.
    """
    figure = Figure(figsize=(5.4 * len(panels), 6.4), layout="constrained")
    areas = figure.subplots(
        2, len(panels), squeeze=False, sharex=True, sharey="row", height_ratios=(3, 1)
    )
    for axes, below, (title, (counts, confidence, accuracy)) in zip(
        *areas, panels.items(), strict=True
    ):
        width = 1 / len(counts)
        centres = (np.arange(len(counts)) + 0.5) * width
        axes.plot([0, 1], [0, 1], ls="--", lw=1, color=TRAIN, label="confidence = accuracy")
        for chosen, shade, label in (
            (counts < 10, 0.25, "accuracy of fewer than 10 images"),
            (counts >= 10, 0.8, "accuracy"),
        ):
            heights = np.where(chosen & (counts > 0), accuracy, 0)
            axes.bar(centres, heights, width * 0.92, color=VAL, alpha=shade, label=label)
        axes.vlines(confidence, accuracy, confidence, color=MARK, lw=2.5, label="gap")
        axes.plot(confidence, confidence, "o", ms=4, color=MARK, label="mean confidence")
        axes.set(title=title, ylim=(0, 1.02), xlim=(0, 1))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        below.bar(centres, counts, width * 0.92, color=TRAIN)
        below.set_yscale("log")
        below.set(xlabel="confidence", ylim=(0.5, max(1, counts.max()) * 6))
        below.xaxis.set_major_formatter(PercentFormatter(1))
        for x, count in zip(centres, counts, strict=True):
            if count:
                below.text(x, count * 1.25, f"{count:,}", ha="center", fontsize=7)
        for area in (axes, below):
            area.grid(alpha=0.25)
            area.set_axisbelow(True)
            area.spines[["top", "right"]].set_visible(False)
    areas[0, 0].set_ylabel("accuracy")
    areas[1, 0].set_ylabel("images")
    figure.legend(
        *areas[0, 0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=2 if len(panels) == 1 else 5,
        frameon=False,
        fontsize=9,
    )
    return figure
