"""The difference between two groups of runs."""

import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd

from mnist_cnn.analysis.ranking import observation, summarize
from mnist_cnn.analysis.tables import format_metric, format_summary, metric_head


def compare(
    a: pd.DataFrame, b: pd.DataFrame, lower: Mapping[str, bool]
) -> tuple[pd.DataFrame, str]:
    """Compare the means of two groups of finished runs, in pairs where each run has its partner.

    Partners are alike in all that varies inside a group, as the seed does. In pairs the 95 %
    confidence interval is Student's of the differences, otherwise Welch's.

    Returns:
        A row of text for each metric in `lower`, which says if less is better: the means, their
        difference, its interval and a verdict. And a sentence that says which interval it is.
    """
    from scipy import stats  # takes a second, which other reports save

    settings = [pd.DataFrame(map(observation, side["config"])).map(repr) for side in (a, b)]
    alike = [key for key in settings[0] if any(table[key].nunique() > 1 for table in settings)]
    first, second = (table[alike or ["seed"]].agg(" ".join, axis=1) for table in settings)
    paired = first.is_unique and second.is_unique and {*first} == {*second}
    if paired:  # partners in the same place
        a, b = a.iloc[np.argsort(first)], b.iloc[np.argsort(second)]
    rows = []
    for metric, less in lower.items():
        x, y = (np.array([r.get(metric, np.nan) for r in side["results"]]) for side in (a, b))
        means = [format_summary(metric, summarize(side, [metric])) for side in (a, b)]
        rows.append([metric_head(metric), *means, format_metric(metric, x.mean() - y.mean(), "+")])
        spread = np.ptp(x - y) if paired else max(np.ptp(x), np.ptp(y))
        # not of equal values, of which rounding leaves something; nor of NaN
        if min(len(x), len(y)) < 2 or not spread > 1e-12 * np.abs([*x, *y]).max():
            rows[-1] += ["-", "nothing to judge by: add seeds"]
            continue
        with warnings.catch_warnings():
            # a side whose runs are all equal has a variance that is right, 0
            warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
            test = stats.ttest_rel(x, y) if paired else stats.ttest_ind(x, y, equal_var=False)
        low, high = map(float, test.confidence_interval(0.95))
        better = "A" if (high < 0) == less else "B"
        verdict = "no difference shown" if low <= 0 <= high else f"{better} is better"
        ends = [format_metric(metric, end, "+") for end in (low, high)]
        rows[-1] += [" to ".join(ends), verdict]
    sentence = "not in pairs, as not every run has its partner, of the same seed: Welch's t"
    if paired:
        sentence = f"in pairs of the same {' and '.join(alike)}: Student's t of the differences"
    return pd.DataFrame(rows, columns=["", "A", "B", "A - B", "95 % interval", " "]), sentence
