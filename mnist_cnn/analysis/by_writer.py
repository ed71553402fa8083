"""Figures of an evaluation for images whose writers are known.

Images of one writer are easy or hard together, so 10,000 of them say less than 10,000 of as many
writers would. Shapes: N images, G writers.
"""

from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest
from torch import Tensor

from mnist_cnn.analysis.scores import Predictions, proportion
from mnist_cnn.data.writers import SERIES, Writers

RESAMPLES = 10_000
SHUFFLES = 200


def bootstrap_interval(values: Tensor, cluster: Tensor) -> tuple[float, float]:
    """The 95 % interval of the mean of values (N,) by a bootstrap over clusters (N,).

    Whole clusters are drawn with replacement, as many as there are, and the interval has 95 % of
    the means of RESAMPLES draws: C. A. Field and A. H. Welsh, Bootstrapping clustered data, Journal
    of the Royal Statistical Society B 69 (2007), 369-390.
    """
    _, index = cluster.unique(return_inverse=True)
    sizes = torch.bincount(index).double()
    sums = torch.bincount(index, values.double())
    # equal clusters are drawn together: of single images there are two or three kinds
    kinds, counts = np.unique(torch.stack([sums, sizes], 1).numpy(), axis=0, return_counts=True)
    draws = np.random.default_rng(0).multinomial(len(sizes), counts / len(sizes), RESAMPLES)
    totals = draws @ kinds  # (RESAMPLES, 2)
    low, high = np.quantile(totals[:, 0] / totals[:, 1], (0.025, 0.975))
    return float(low), float(high)


def difference(first: Predictions, second: Predictions, writer: Tensor | None) -> dict[str, Any]:
    """The accuracy of one network minus that of another on the same images.

    `mcnemar_p` is the two-sided p of McNemar's exact test that both err equally often (Q. McNemar,
    Psychometrika 12 (1947), 153-157), which takes images for independent.

    Args:
        writer: int64 (N,); the interval is of a bootstrap over writers of the paired differences,
            or without them over images.
    """
    gap = first.hits.double() - second.hits.double()
    cluster = torch.arange(len(gap)) if writer is None else writer
    alone = int((gap > 0).sum()), int((gap < 0).sum())
    return {
        "difference": gap.mean().item(),
        "difference_95": bootstrap_interval(gap, cluster),
        "over": "images" if writer is None else "writers",
        "first_alone_right": alone[0],
        "second_alone_right": alone[1],
        "mcnemar_p": float(binomtest(alone[0], sum(alone)).pvalue) if any(alone) else 1.0,
    }


def each_writer(predictions: Predictions, writers: Writers) -> pd.DataFrame:
    """writer, series, images, errors and acc of each writer, the least accurate first."""
    columns = {"writer": writers.writer, "series": writers.series, "wrong": ~predictions.hits}
    images = pd.DataFrame({name: column.numpy() for name, column in columns.items()})
    wrong = images.groupby(["writer", "series"])["wrong"]
    table = wrong.agg(images="size", errors="sum").reset_index()
    table["series"] = table["series"].map(SERIES)
    table["acc"] = 1 - table["errors"] / table["images"]
    return table.sort_values(["acc", "images"], ascending=[True, False], ignore_index=True)


def by_chance(predictions: Predictions, writers: Writers) -> Tensor:
    """Accuracies (G,), the least first, as they would be if errors fell on writers by chance alone.

    The mean over SHUFFLES random orders of the images' hits.
    """
    _, index = writers.writer.unique(return_inverse=True)
    images, generator = torch.bincount(index), torch.Generator().manual_seed(0)
    hits = predictions.hits.double()
    shuffled = []
    for _ in range(SHUFFLES):
        order = torch.randperm(len(hits), generator=generator)
        shuffled.append((torch.bincount(index, hits[order]) / images).sort().values)
    return torch.stack(shuffled).mean(0)


def writer_summary(predictions: Predictions, writers: Writers) -> dict[str, Any]:
    """The part `writers` of evaluation.json.

    `worst_decile` is the tenth of the writers whose accuracy is least, and `mean_acc_by_chance`
    their mean accuracy if all writers were alike: small groups scatter.
    """
    table = each_writer(predictions, writers)
    worst = table.head(-(-len(table) // 10))
    images, errors = int(worst["images"].sum()), int(worst["errors"].sum())
    series = []
    for number, name in SERIES.items():
        chosen = writers.series == number
        if chosen.any():
            hits, writer = predictions.hits[chosen], writers.writer[chosen]
            count = {"series": name, "writers": len(writer.unique())}
            interval = {"acc_95_writers": bootstrap_interval(hits, writer)}
            series.append({**count, **proportion(hits), **interval})
    return {
        "writers": len(table),
        "acc_95": bootstrap_interval(predictions.hits, writers.writer),
        "series": series,
        "worst_decile": {
            "writers": len(worst),
            "images": images,
            "errors": errors,
            "acc": 1 - errors / images,
            "mean_acc": sum(worst["acc"].tolist()) / len(worst),
            "mean_acc_by_chance": by_chance(predictions, writers)[: len(worst)].mean().item(),
        },
    }
