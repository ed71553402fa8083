"""Metrics of a network's predictions, computed from its logits and the labels.

Images of one writer are correlated, so 10,000 of them are fewer than 10,000 independent samples.
Shapes: N images, C classes (10), M bins of confidence (15).
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest
from torch import Tensor

from mnist_cnn.data.writers import Writers

RESAMPLES = 10_000


class Predictions:
    """A network's predictions for images whose labels are known.

    Args:
        logits: (N, C), converted to float64.
        labels: int64 (N,).

    Attributes:
        probabilities: float64 (N, C).
        predicted: int64 (N,), the most probable class of each image.
        confidence: float64 (N,), the probability of the prediction.
        hits: bool (N,), whether the prediction is the label.
    """

    def __init__(self, logits: Tensor, labels: Tensor):
        self.logits, self.labels = logits.double(), labels
        self.probabilities = self.logits.softmax(1)
        self.predicted, self.confidence = self.logits.argmax(1), self.probabilities.amax(1)
        self.hits = self.predicted == labels

    def at_temperature(self, t: float) -> "Predictions":
        return Predictions(self.logits / t, self.labels)


def shifted(x: Tensor, shifts: int) -> Iterator[Tensor]:
    """Yield images (B, 1, H, W) moved by each (dx, dy) in [-shifts, shifts], padded with zeros."""
    height, width = x.shape[-2:]
    padded = F.pad(x, (shifts,) * 4)
    for top, left in itertools.product(range(2 * shifts + 1), repeat=2):
        yield padded[..., top : top + height, left : left + width]


def average(logits: Iterable[Tensor]) -> Tensor:
    """Return the logarithm of the mean probabilities of several (N, C) logits: float64, finite."""
    total = functools.reduce(torch.logaddexp, (part.double().log_softmax(1) for part in logits))
    return total.log_softmax(1)  # divides by their number


@torch.no_grad()
def predict_batches(
    nets: Sequence[Callable[[Tensor], Tensor]],
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    shifts: int = 0,
) -> list[Predictions]:
    """Return each network's predictions for all batches (x, y), in order, on the CPU.

    With `shifts`, by test-time augmentation: probabilities are averaged over the shifted copies of
    an image, whose background must be 0.

    Raises:
        ValueError: a network does not take the images.
    """
    logits: list[list[Tensor]] = [[] for _ in nets]
    labels = []
    for x, y in batches:
        x = x.to(device)
        labels.append(y.cpu())
        for net, parts in zip(nets, logits, strict=True):
            try:
                parts.append(average(net(copy).float().cpu() for copy in shifted(x, shifts)))
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as e:  # of a user's network, such as for images of another size
                raise ValueError(f"the network fails on images {tuple(x.shape)}: {e}") from e
    return [Predictions(torch.cat(parts), torch.cat(labels)) for parts in logits]


def ensemble(each: Sequence[Predictions]) -> Predictions:
    """Combine several networks' predictions of the same images by averaging probabilities."""
    return Predictions(average(predictions.logits for predictions in each), each[0].labels)


def proportion(hits: Tensor) -> dict[str, Any]:
    """Return the numbers of images and errors, the accuracy and its 95 % score interval.

    E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22
    (1927), 209-212: unlike p ± z * standard error it keeps its level for accuracies near 1.
    """
    n, correct = len(hits), int(hits.sum())
    low, high = binomtest(correct, n).proportion_ci(method="wilson")
    acc_95 = float(low), float(high)
    return {"images": n, "errors": n - correct, "acc": correct / n, "acc_95": acc_95}


def class_table(matrix: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """Return class, images, precision, recall and f1 for each class of a confusion matrix.

    The scores are 0 for a class that was never predicted or has no images.
    """
    hits, predicted, images = matrix.diagonal(), matrix.sum(0), matrix.sum(1)
    table = pd.DataFrame({"class": classes, "images": images})
    table["precision"] = hits / np.maximum(predicted, 1)
    table["recall"] = hits / np.maximum(images, 1)
    table["f1"] = 2 * hits / np.maximum(predicted + images, 1)
    return table


def bin_confidence(predictions: Predictions, bins: int = 15) -> tuple[Tensor, Tensor, Tensor]:
    """Return counts (M,), mean confidence (M,) and accuracy (M,) in bins of equal width.

    Bin m of 1 to M holds confidences in ((m-1)/M, m/M]; the means of an empty bin are NaN.
    """
    edges = torch.arange(1, bins, dtype=torch.float64) / bins
    bin_of = torch.bucketize(predictions.confidence, edges)
    counts = torch.bincount(bin_of, minlength=bins)
    confidence = torch.bincount(bin_of, predictions.confidence, minlength=bins) / counts
    accuracy = torch.bincount(bin_of, predictions.hits.double(), minlength=bins) / counts
    return counts, confidence, accuracy


def calibration(predictions: Predictions) -> dict[str, float]:
    """Return `loss`, the mean negative log-likelihood (nats), and the calibration error `ece`.

    The expected calibration error is the mean gap between accuracy and confidence over the bins,
    weighted by their counts: C. Guo et al., On Calibration of Modern Neural Networks, ICML 2017,
    equation 3 (https://arxiv.org/abs/1706.04599).
    """
    counts, confidence, accuracy = bin_confidence(predictions)
    gaps = (accuracy - confidence).abs().nan_to_num(0)
    return {
        "loss": F.cross_entropy(predictions.logits, predictions.labels).item(),
        "ece": ((counts * gaps).sum() / counts.sum()).item(),
    }


def fit_temperature(predictions: Predictions) -> float:
    """Fit the temperature T in [0.01, 100] that minimizes the loss of logits / T.

    The same T for all classes changes the confidences but no prediction (Guo et al. 2017, section
    4.2). Fit it to images that the network was not trained on.
    """

    def loss(log_t: float) -> float:
        return calibration(predictions.at_temperature(math.exp(log_t)))["loss"]

    bounds = math.log(0.01), math.log(100)
    return math.exp(minimize_scalar(loss, bounds=bounds, options={"xatol": 1e-9}).x)


def most_confident_mistakes(predictions: Predictions) -> Tensor:
    """Return the indices of wrong predictions, int64 (K,), the most confident first."""
    wrong = (~predictions.hits).nonzero().flatten()
    return wrong[predictions.confidence[wrong].argsort(descending=True, stable=True)]


def list_mistakes(
    predictions: Predictions,
    rows: Tensor,
    classes: Sequence[str],
    most: int,
    files: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """List the most confident mistakes: row in the file, label, prediction and its confidence.

    Args:
        most: the maximum number.
        files: file names of the N images, if each has one.
    """
    return [
        {
            "index": int(rows[k]),
            **({"file": files[int(k)]} if files else {}),
            "label": classes[int(predictions.labels[k])],
            "prediction": classes[int(predictions.predicted[k])],
            "confidence": float(predictions.confidence[k]),
        }
        for k in most_confident_mistakes(predictions)[:most]
    ]


def confusion(predictions: Predictions, classes: int) -> np.ndarray:
    """Return how many images of class i were predicted as class j, integers (C, C)."""
    cells = predictions.labels * classes + predictions.predicted
    return np.bincount(cells.numpy(), minlength=classes**2).reshape(classes, classes)


def summary(predictions: Predictions, classes: Sequence[str]) -> dict[str, Any]:
    """Summarize predictions of all images and of each class, as plain values.

    `confusion[i][j]` counts the images of class i that were predicted as class j.
    """
    matrix = confusion(predictions, len(classes))
    return {
        **proportion(predictions.hits),
        **calibration(predictions),
        "classes": class_table(matrix, classes).to_dict("records"),
        "confusion": matrix.tolist(),
    }


def bootstrap_interval(values: Tensor, cluster: Tensor) -> tuple[float, float]:
    """Compute the 95 % interval of the mean of values (N,) by a bootstrap over clusters (N,).

    Whole clusters are drawn with replacement, as many as there are, and the interval covers 95 % of
    the means of RESAMPLES draws: C. A. Field and A. H. Welsh, Bootstrapping clustered data, Journal
    of the Royal Statistical Society B 69 (2007), 369-390.
    """
    _, index = cluster.unique(return_inverse=True)
    sizes = torch.bincount(index).double()
    sums = torch.bincount(index, values.double())
    # equal clusters are drawn together: single images are of two or three kinds
    kinds, counts = np.unique(torch.stack([sums, sizes], 1).numpy(), axis=0, return_counts=True)
    draws = np.random.default_rng(0).multinomial(len(sizes), counts / len(sizes), RESAMPLES)
    totals = draws @ kinds  # (RESAMPLES, 2)
    low, high = np.quantile(totals[:, 0] / totals[:, 1], (0.025, 0.975))
    return float(low), float(high)


def difference(first: Predictions, second: Predictions, writer: Tensor | None) -> dict[str, Any]:
    """Compare one network's accuracy with another's on the same images.

    `difference` is the first minus the second. `mcnemar_p` is the two-sided p-value of McNemar's
    exact test that both err equally often (Q. McNemar, Psychometrika 12 (1947), 153-157), which
    assumes independent images.

    Args:
        writer: int64 (N,); the interval is a bootstrap of the paired differences over writers, or
            over images if None.
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
    """Return writer, images, errors and acc of each writer, the least accurate first."""
    images = pd.DataFrame({"writer": writers.writer.numpy(), "wrong": ~predictions.hits.numpy()})
    table = images.groupby("writer")["wrong"].agg(images="size", errors="sum").reset_index()
    table["acc"] = 1 - table["errors"] / table["images"]
    return table.sort_values(["acc", "images"], ascending=[True, False], ignore_index=True)


def writer_summary(predictions: Predictions, writers: Writers) -> dict[str, Any]:
    """Return the part `writers` of evaluation.json.

    `worst_decile` is the tenth of the writers with the lowest accuracy.
    """
    table = each_writer(predictions, writers)
    worst = table.head(-(-len(table) // 10))
    return {
        "writers": len(table),
        "acc_95": bootstrap_interval(predictions.hits, writers.writer),
        "worst_decile": {
            "writers": len(worst),
            "mean_acc": float(worst["acc"].mean()),
        },
    }
