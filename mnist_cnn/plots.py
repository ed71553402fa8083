"""Pure functions: numbers in, matplotlib Figure out. No global state of pyplot is touched."""

import itertools
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import (
    FuncFormatter,
    Locator,
    LogLocator,
    MaxNLocator,
    PercentFormatter,
)
from matplotlib.transforms import Bbox

TRAIN, VAL, MARK, LOST = "#8c8c8c", "#0b62a4", "#c1272d", "#d98200"
PALETTE = "viridis_r"  # dark is good
DRAWN = 300  # mistakes at most, in a PNG of 1,125 x 12,600 pixels
CAPTION = 19  # characters that fit above an image


def titled(title: str, inches: tuple[float, float]) -> Figure:
    """An empty figure under its title, in as many lines as it needs."""
    figure = Figure(figsize=inches, layout="constrained")
    lines = textwrap.fill(title, int(11 * inches[0]))
    figure.suptitle(lines, fontsize=11, parse_math=False)  # a folder may have $ in its name
    return figure


def mark_whole_numbers(axes: Axes) -> None:
    """Marks whole numbers alone on the x axis, of a single one too."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def history(rows: Sequence[Mapping[str, float]], best_epoch: int | None, title: str) -> Figure:
    """Loss and accuracy by epoch, training and validation, with the best epoch marked.

    Args:
        rows: one per epoch: `epoch` (from 1), `lr`, and any of `train/loss`, `train/acc`,
            `val/loss`, `val/acc`.
        best_epoch: the epoch whose checkpoint was kept, or None.
        title: what the run was.
    """
    figure = titled(title, (10, 4.2))
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
        mark_whole_numbers(axes)
        if metric == "acc":
            axes.yaxis.set_major_formatter(PercentFormatter(1))
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
    figure = titled(title, (8.4, 8))
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
    """Images beside each other, each under its caption.

    Args:
        images: (K, 28, 28), 0 black to 255 or 1 white; K may be 0.
        captions: K texts; lines that are too long are broken.
        title: what they are.
        columns: images of a row.
        colors: a color map of matplotlib's.
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
        images: (K, 28, 28), 0 black to 255 white; the first DRAWN are drawn.
        index, label, prediction, confidence: K each; confidence from 0 to 1.
        title: what they are.
    """
    short = max(map(len, [*label, *prediction]), default=1) == 1
    captions = [
        f"#{i}\n{truth} read as {said}, {p:.1%}"
        if short
        else f"#{i}, {p:.1%}\n{truth}\nread as {said}"
        for i, truth, said, p in zip(index, label, prediction, confidence, strict=True)
    ]
    if len(images) > DRAWN:
        title += f"; the first {DRAWN} are drawn"
    return gallery(images[:DRAWN], captions[:DRAWN], title, columns=6, colors="gray_r")


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


@dataclass
class Axis:
    """How values of a hyper-parameter lie on an axis: logarithmic, linear, or each by its name.

    Attributes:
        at: (N,) positions, not yet scaled.
        low, high: ends of the axis, in positions.
        ticks, labels: positions and what stands there.
    """

    at: np.ndarray
    low: float
    high: float
    ticks: list[float]
    labels: list[str]


def axis(values: Sequence[Any], most: int = 6, linear: bool = False) -> Axis:
    """Where N values go: positive numbers that span a factor of 8 or more by their logarithm.

    Args:
        values: numbers, or anything else, whose text is then a name.
        most: with more different numbers than these, round ones are marked in their place.
        linear: never by their logarithm.
    """

    def number(v: Any) -> bool:
        return isinstance(v, int | float) and not isinstance(v, bool)

    def order(v: Any) -> tuple[bool, bool, float, str]:
        return not number(v), isinstance(v, int), v if number(v) else 0, str(v)

    shares = [v for v in values if isinstance(v, float)]
    counts = [v for v in values if isinstance(v, int)]
    # a limit of 1.0 is all batches, of 1 one batch: they have no common scale
    mixed = shares and counts and max(shares) <= 1 <= min(counts)
    if mixed or not all(map(number, values)):
        names = list(dict.fromkeys(map(str, sorted(values, key=order))))
        at = np.array([names.index(str(v)) for v in values], float)
        shown = [name if len(name) <= 16 else f"{name[:15]}…" for name in names]
        return Axis(at, *margin(0, len(names) - 1), [float(k) for k in range(len(names))], shown)
    numbers = np.array(values, float)
    log = not linear and numbers.min() > 0 and numbers.max() / numbers.min() >= 8
    at = np.log10(numbers) if log else numbers
    low, high = margin(at.min(), at.max())
    marks = np.unique(numbers)
    if len(marks) > most:
        ends = (10**low, 10**high) if log else (low, high)
        locator: Locator = MaxNLocator(most)
        if log:
            locator = LogLocator(subs=[1] if high - low >= 3 else [1, 2, 5])
        marks = np.asarray(locator.tick_values(*ends))
        marks = marks[(marks >= ends[0]) & (marks <= ends[1])]
    ticks = np.log10(marks) if log else marks
    return Axis(at, low, high, ticks.tolist(), [f"{mark:.4g}" for mark in marks])


def margin(low: float, high: float) -> tuple[float, float]:
    """An interval with a little room at both ends."""
    room = 0.04 * (high - low) or 0.5
    return float(low - room), float(high + room)


def best_so_far(values: np.ndarray, mode: str) -> np.ndarray:
    """(N,) the best of each value and those before it; NaN as long as there is none."""
    return (np.fmin if mode == "min" else np.fmax).accumulate(values)


def percent(number: float | str) -> str:
    """A share as it is written, in per cent."""
    return f"{100 * float(number):.4g}%"


def quality(scale: Axis, mode: str) -> tuple[np.ndarray, float, float]:
    """(N,) how good each place on the objective's axis is, and the range that colours are for.

    That is without the worst tenth, which may be far off.
    """
    good = -scale.at if mode == "min" else scale.at
    low, high = float(np.quantile(good, 0.1)), float(good.max())
    return good, low if low < high else low - 1, high


def wide(values: np.ndarray) -> bool:
    """Whether values are better drawn by their logarithm."""
    values = values[np.isfinite(values)]
    return len(values) > 0 and bool(values.min() > 0 and values.max() / values.min() >= 10)


def name_of(metric: str) -> str:
    """What a metric is called on an axis."""
    stages = {"train": "training", "val": "validation", "test": "test"}
    stage, _, kind = metric.partition("/")
    return f"{stages.get(stage, stage)} {'accuracy' if kind == 'acc' else kind}".strip()


def objective_axis(axes: Axes, metric: str, values: np.ndarray) -> None:
    axes.set_ylabel(name_of(metric))
    if wide(values) and not metric.endswith("acc"):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axes.minorticks_off()
    if metric.endswith("acc"):
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def trials(
    jobs: np.ndarray, values: np.ndarray, states: Sequence[str], metric: str, mode: str, title: str
) -> Figure:
    """The objective of each run in order, the best so far, and the runs that did not finish.

    Args:
        jobs: (N,) numbers of the runs.
        values: (N,) the objective; of a pruned run its last; NaN where there is none.
        states: N of `finished`, `pruned`, or anything else, which is drawn as failed.
        metric, mode: the objective.
        title: what they are.
    """
    figure = titled(title, (10, 4.2))
    axes = figure.add_subplot()
    state = np.array(states)
    done = (state == "finished") & np.isfinite(values)
    best = best_so_far(np.where(done, values, np.nan), mode)
    axes.step(jobs, best, where="post", color=MARK, lw=1.4, label="best so far")
    size = 5 if len(jobs) <= 300 else 2.5
    axes.plot(jobs[done], values[done], "o", ms=size, color=VAL, alpha=0.75, label="finished")
    pruned = (state == "pruned") & np.isfinite(values)
    if pruned.any():
        axes.plot(jobs[pruned], values[pruned], "x", ms=6, color=TRAIN, label="pruned")
    lost = ~done & ~pruned
    objective_axis(axes, metric, values[done | pruned])
    if lost.any():  # at the lower edge, as they have no value
        axes.plot(
            jobs[lost],
            np.full(lost.sum(), 0.02),
            "^",
            ms=6,
            color=LOST,
            transform=axes.get_xaxis_transform(),
            clip_on=False,
            label="without a value",
        )
    axes.set_xlabel("job")
    mark_whole_numbers(axes)
    axes.legend(frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure


def parallel(
    parameters: Mapping[str, Sequence[Any]], values: np.ndarray, metric: str, mode: str, title: str
) -> Figure:
    """Each run as a line through its hyper-parameters to its objective, which colours it.

    Args:
        parameters: by name, N values each.
        values: (N,) the objective.
        metric, mode: the objective.
        title: what they are.
    """
    columns = [*parameters, name_of(metric)]
    figure = titled(title, (max(8.4, 1.7 * len(columns)), 4.6))
    axes = figure.add_subplot()
    scales = [axis(column) for column in parameters.values()]
    scales.append(axis(values.tolist(), linear=metric.endswith("acc")))
    for x, (name, scale) in enumerate(zip(columns, scales, strict=True)):
        axes.axvline(x, color=TRAIN, lw=1)
        axes.text(
            x, 1.03, name, ha="center", va="bottom", fontsize=9, weight="bold", parse_math=False
        )
        for tick, label in zip(scale.ticks, scale.labels, strict=True):
            if metric.endswith("acc") and x == len(parameters):
                label = percent(label)
            box = {"fc": "white", "ec": "none", "alpha": 0.75, "pad": 0.8}
            spot = (x + 0.02, (tick - scale.low) / (scale.high - scale.low))
            axes.text(*spot, label, fontsize=8, va="center", zorder=3, bbox=box, parse_math=False)
    good, low, high = quality(scales[-1], mode)
    colors = ScalarMappable(Normalize(low, high), PALETTE)
    order = np.argsort(good)  # the best on top
    heights = np.stack([(scale.at - scale.low) / (scale.high - scale.low) for scale in scales], 1)
    lines = [np.column_stack([np.arange(len(columns)), heights[k]]) for k in order]
    shade = 0.85 if len(values) <= 50 else 0.5
    axes.add_collection(
        LineCollection(lines, colors=colors.to_rgba(good[order]), lw=1.4, alpha=shade)
    )
    axes.set(xlim=(-0.15, len(columns) - 0.7), ylim=(0, 1))
    axes.axis("off")
    bar = figure.colorbar(colors, ax=axes, pad=0.01, extend="min")
    bar.set_ticks([])  # the last axis has them
    bar.set_label("better   →")
    bar.outline.set_visible(False)
    return figure


def curves(
    runs: Sequence[tuple[str, Sequence[float], Sequence[float]]], metric: str, title: str
) -> Figure:
    """The objective by epoch, the best run's before the others'.

    Args:
        runs: of each run its name, epochs and values, the best first.
        metric: the objective.
        title: what they are.
    """
    figure = titled(title, (10, 4.6))
    axes = figure.add_subplot()
    (name, epochs, values), *others = runs
    for k, (_, x, y) in enumerate(others):
        label = f"{len(others)} others" if k == 0 else None
        axes.plot(x, y, ".-", ms=3, lw=1, color=TRAIN, alpha=0.4, label=label)
    axes.plot(
        epochs,
        values,
        "o-",
        ms=4,
        lw=2.2,
        color=VAL,
        label=f"best: {textwrap.shorten(name, 70, placeholder=' …')}",
    )
    objective_axis(axes, metric, np.concatenate([np.asarray(y, float) for _, _, y in runs]))
    axes.set_xlabel("epoch")
    mark_whole_numbers(axes)
    legend = axes.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def importance(shares: Mapping[str, float], title: str) -> Figure:
    """How much each hyper-parameter mattered, as bars.

    Args:
        shares: by name, from 0 to 1, the greatest first.
        title: what they are.
    """
    figure = titled(title, (7.6, 1.4 + 0.36 * len(shares)))
    axes = figure.add_subplot()
    bars = axes.barh(list(shares), list(shares.values()), color=VAL, height=0.62)
    axes.bar_label(bars, [f" {share:.0%}" for share in shares.values()], fontsize=9)
    axes.invert_yaxis()
    axes.set(xlabel="importance", xlim=(0, max(shares.values()) * 1.12))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


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
