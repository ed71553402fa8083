"""Scales of interactive figures: where values lie on an axis, and what stands there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.ticker import Locator, LogLocator, MaxNLocator

MARKED = 6  # of more different numbers round ones are marked in their place


@dataclass
class Scale:
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


def scale_of(values: Sequence[Any], linear: bool = False) -> Scale:
    """Where N values go: positive numbers that span a factor of 8 or more by their logarithm.

    Args:
        values: numbers, or anything else, whose text is then a name.
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
        return Scale(at, *margin(0, len(names) - 1), [float(k) for k in range(len(names))], shown)
    numbers = np.array(values, float)
    log = not linear and numbers.min() > 0 and numbers.max() / numbers.min() >= 8
    at = np.log10(numbers) if log else numbers
    low, high = margin(at.min(), at.max())
    marks = np.unique(numbers)
    if len(marks) > MARKED:
        ends = (10**low, 10**high) if log else (low, high)
        locator: Locator = MaxNLocator(MARKED)
        if log:
            locator = LogLocator(subs=[1] if high - low >= 3 else [1, 2, 5])
        marks = np.asarray(locator.tick_values(*ends))
        marks = marks[(marks >= ends[0]) & (marks <= ends[1])]
    ticks = np.log10(marks) if log else marks
    return Scale(at, low, high, ticks.tolist(), [f"{mark:.4g}" for mark in marks])


def margin(low: float, high: float) -> tuple[float, float]:
    """An interval with a little room at both ends."""
    room = 0.04 * (high - low) or 0.5
    return float(low - room), float(high + room)


def metric_name(metric: str) -> str:
    """What a metric is called on an axis."""
    stages = {"train": "training", "val": "validation", "test": "test"}
    stage, _, kind = metric.partition("/")
    return f"{stages.get(stage, stage)} {'accuracy' if kind == 'acc' else kind}".strip()
