"""Differences between groups of finished runs, and the number of seeds needed to show them."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mnist_cnn.analysis.ranking import summarize
from mnist_cnn.analysis.tables import format_metric, format_summary

METRICS = ("val/loss", "val/acc", "test/acc", "seconds")  # after the objectives
LEVEL, POWER = 0.05, 0.8
MOST_SEEDS = 1000  # the greatest number that is tried
ROUNDING = 1e-9  # of the values: a smaller spread or difference is none
PAIRED = "in pairs of the same seed: Student's t of the differences"
WELCH = "not in pairs, as not every run has a partner of the same seed: Welch's t"


def compare(groups: Mapping[str, pd.DataFrame]) -> tuple[pd.DataFrame, list[str]]:
    """Compare the mean of the first group with that of each other group.

    Args:
        groups: at least two groups of finished runs of one configuration each, by name.

    Returns:
        A table of text with a row for each metric of `compared` and other group: the means, their
        difference, its 95 % confidence interval, the p-value (corrected by Holm's step-down method
        if there are several other groups), and the seeds that each group needs to show such a
        difference; and sentences that describe the tests.
    """
    (_, first), *others = groups.items()
    rows, several = [], len(others) > 1
    pairs = [is_paired(first, other) for _, other in others]
    for metric in compared(pd.concat(groups.values())):
        tests = [
            difference(first, other, metric, paired, LEVEL / len(others))
            for (_, other), paired in zip(others, pairs, strict=True)
        ]
        for (name, other), test, p in zip(
            others, tests, holm([t["p"] for t in tests]), strict=True
        ):
            means = [format_summary(metric, summarize(side, [metric])) for side in (first, other)]
            ends = " to ".join(format_metric(metric, end, "+") for end in test["interval"])
            known = not math.isnan(p)
            row = {"": metric, **({"B is": name} if several else {}), "A": means[0], "B": means[1]}
            gap = test["difference"]
            row["A - B"] = "-" if math.isnan(gap) else format_metric(metric, gap, "+")
            row["95 % interval"] = ends if known else "-"
            row["p"] = f"{p:.2g}" if known else "-"
            rows.append(row | {"seeds": test["seeds"]})
    sentences = []
    for said, paired in ((PAIRED, True), (WELCH, False)):
        alike = [name for (name, _), own in zip(others, pairs, strict=True) if own == paired]
        if alike:
            sentences.append(f"{', '.join(alike)}: {said}" if several else said)
    if several:
        sentences.append(f"p is corrected for {len(others)} comparisons (Holm), intervals are not")
    needed = f"seeds: that each needs to show such a difference with a power of {POWER}"
    return pd.DataFrame(rows), [*sentences, needed]


def compared(runs: pd.DataFrame) -> list[str]:
    """Return the metrics to compare that some run has, the objectives first."""
    objectives = [config["objective.metric"] for config in runs["config"]]
    known = {metric for results in runs["results"] for metric in results}
    return [metric for metric in dict.fromkeys((*objectives, *METRICS)) if metric in known]


def is_paired(a: pd.DataFrame, b: pd.DataFrame) -> bool:
    """Return whether the runs of a and b form pairs of the same seed and fold."""
    unique = a["repeat"].is_unique and b["repeat"].is_unique
    return unique and {*a["repeat"]} == {*b["repeat"]}


def difference(
    a: pd.DataFrame, b: pd.DataFrame, metric: str, paired: bool, level: float
) -> dict[str, Any]:
    """Test the difference a - b of a metric's means: its interval, p, and the seeds it needs."""
    from scipy import stats  # takes a second to import; not every report needs it

    x, y = (
        pd.Series([r.get(metric) for r in side["results"]], side["repeat"], dtype=float)
        for side in (a, b)
    )
    gap = float(x.mean(skipna=False) - y.mean(skipna=False))
    variances = [(x - y).var()] if paired else [x.var(), y.var()]
    least = ROUNDING * max(x.abs().max(), y.abs().max())
    if math.sqrt(sum(variances)) <= least:  # no spread
        differs = abs(gap) > least
        p, seeds = (0.0, "2") if differs else (math.nan, "-")
        return {"difference": gap, "interval": (gap, gap), "p": p, "seeds": seeds}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # for a single run
        test = stats.ttest_1samp(x - y, 0) if paired else stats.ttest_ind(x, y, equal_var=False)
        interval = test.confidence_interval(0.95)
    seeds = "-" if math.isnan(test.pvalue) or not gap else needed_seeds(gap, variances, level)
    ends = float(interval.low), float(interval.high)
    return {"difference": gap, "interval": ends, "p": float(test.pvalue), "seeds": seeds}


def needed_seeds(gap: float, variances: Sequence[float], level: float) -> str:
    """Return the fewest seeds for which a two-sided t-test shows a difference with power `POWER`.

    Args:
        gap: the true difference of the means, not 0.
        variances: one of the paired differences, or one for each of two groups of equal size; not
            all are 0.
        level: significance level.
    """
    from scipy import stats

    n = np.arange(2, MOST_SEEDS + 1)
    total = sum(variances)
    freedom = (n - 1) * total**2 / sum(v**2 for v in variances)  # Welch-Satterthwaite
    least = stats.t.isf(level / 2, freedom)
    shift = abs(gap) / np.sqrt(total / n)
    power = stats.nct.sf(least, freedom, shift)  # the other tail is negligible
    enough = np.flatnonzero(power >= POWER)
    return f"{n[enough[0]]:,}" if enough.size else f"> {MOST_SEEDS:,}"


def holm(p: Sequence[float]) -> list[float]:
    """Correct p-values for their number by the step-down method of Holm (1979)."""
    order = np.argsort(p)
    factors = np.arange(len(p), 0, -1)
    steps = np.minimum(1, np.maximum.accumulate(np.array(p)[order] * factors))
    corrected = np.empty(len(p))
    corrected[order] = steps
    return corrected.tolist()
