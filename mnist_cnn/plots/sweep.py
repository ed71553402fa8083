"""Figures of a sweep, as PNG."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import (
    PercentFormatter,
)

from mnist_cnn.plots.axes import (
    LOST,
    MARK,
    PALETTE,
    TRAIN,
    VAL,
    axis,
    best_so_far,
    mark_whole_numbers,
    name_of,
    objective_axis,
    percent,
    quality,
    titled,
)


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
