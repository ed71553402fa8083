"""What is known of a network's predictions when it is known who wrote the images.

Images of one writer are easy or hard together, so 10,000 of them say less than 10,000 of as many
writers would. Shapes: N images, G writers.
"""

import math
from typing import Any

import numpy as np
import torch
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
    # clusters that are alike are drawn together: of single images there are two or three kinds
    kinds, counts = np.unique(torch.stack([sums, sizes], 1).numpy(), axis=0, return_counts=True)
    draws = np.random.default_rng(0).multinomial(len(sizes), counts / len(sizes), RESAMPLES)
    totals = draws @ kinds  # (RESAMPLES, 2)
    low, high = np.quantile(totals[:, 0] / totals[:, 1], (0.025, 0.975))
    return float(low), float(high)


def mcnemar(first: Tensor, second: Tensor) -> float:
    """The two-sided p of McNemar's exact test that two networks err equally often.

    Q. McNemar, Note on the sampling error of the difference between correlated proportions or
    percentages, Psychometrika 12 (1947), 153-157. It takes images for independent, which those of
    one writer are not. `first` and `second`, bool (N,), are the images that each reads rightly.
    """
    alone = int((first & ~second).sum()), int((second & ~first).sum())
    n, least = sum(alone), min(alone)
    logs = (
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(least + 1)
    )
    return min(1.0, 2 * math.fsum(math.exp(log - n * math.log(2)) for log in logs))


def difference(first: Predictions, second: Predictions, writer: Tensor | None) -> dict[str, Any]:
    """The accuracy of one network minus that of another on the same images.

    Args:
        writer: int64 (N,); the interval is of a bootstrap over writers of the paired differences,
            or without them over images.
    """
    gap = first.hits.double() - second.hits.double()
    cluster = torch.arange(len(gap)) if writer is None else writer
    return {
        "difference": gap.mean().item(),
        "difference_95": bootstrap_interval(gap, cluster),
        "over": "images" if writer is None else "writers",
        "first_alone_right": int((gap > 0).sum()),
        "second_alone_right": int((gap < 0).sum()),
        "mcnemar_p": mcnemar(first.hits, second.hits),
    }


def each_writer(predictions: Predictions, known: Writers) -> list[dict[str, Any]]:
    """Writer, series, images, errors and accuracy of each writer, the least accurate first."""
    people, index = known.writer.unique(return_inverse=True)
    images = torch.bincount(index)
    errors = torch.bincount(index, (~predictions.hits).double()).long()
    series = torch.zeros_like(people).scatter(0, index, known.series)
    rows = [
        {"writer": who, "series": SERIES[kind], "images": n, "errors": wrong, "acc": 1 - wrong / n}
        for who, kind, n, wrong in torch.stack([people, series, images, errors], 1).tolist()
    ]
    return sorted(rows, key=lambda row: (row["acc"], -row["images"]))


def by_chance(predictions: Predictions, known: Writers) -> Tensor:
    """Accuracies (G,), the least first, as they would be if errors fell on writers by chance alone.

    The mean over SHUFFLES random orders of the images' hits.
    """
    _, index = known.writer.unique(return_inverse=True)
    images, generator = torch.bincount(index), torch.Generator().manual_seed(0)
    hits = predictions.hits.double()
    orders = (torch.randperm(len(hits), generator=generator) for _ in range(SHUFFLES))
    shuffled = [torch.bincount(index, hits[order]) / images for order in orders]
    return torch.stack([accuracies.sort().values for accuracies in shuffled]).mean(0)


def writer_summary(predictions: Predictions, known: Writers) -> dict[str, Any]:
    """The figures of an evaluation that need to know the writers.

    `worst_decile` is the tenth of the writers whose accuracy is least, and `acc_by_chance` what
    their mean accuracy would be without any differences between writers: small groups scatter.
    """
    rows = each_writer(predictions, known)
    tenth = -(-len(rows) // 10)
    worst = rows[:tenth]
    images, errors = (sum(row[key] for row in worst) for key in ("images", "errors"))
    series = []
    for number, name in SERIES.items():
        chosen = known.series == number
        if chosen.any():
            hits, writers = predictions.hits[chosen], known.writer[chosen]
            count = {"series": name, "writers": len(writers.unique())}
            interval = {"acc_95_writers": bootstrap_interval(hits, writers)}
            series.append({**count, **proportion(hits), **interval})
    return {
        "writers": len(rows),
        "acc_95": bootstrap_interval(predictions.hits, known.writer),
        "series": series,
        "worst_decile": {
            "writers": tenth,
            "images": images,
            "errors": errors,
            "acc": 1 - errors / images,
            "mean_acc": sum(row["acc"] for row in worst) / tenth,
            "mean_acc_by_chance": by_chance(predictions, known)[:tenth].mean().item(),
        },
    }
