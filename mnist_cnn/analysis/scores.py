"""Figures of a network's predictions: functions of its logits and the labels.

Shapes: N images, C classes (10), M bins of confidence (15).
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.stats import binomtest
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix


class Predictions:
    """A network's predictions for images whose labels are known.

    Args:
        logits: (N, C), converted to float64.
        labels: int64 (N,).

    Attributes:
        probabilities: float64 (N, C).
        predicted: int64 (N,), the most probable class of each.
        confidence: float64 (N,), the probability of the prediction.
        hits: bool (N,), true where the prediction is the label.
    """

    def __init__(self, logits: Tensor, labels: Tensor):
        self.logits, self.labels = logits.double(), labels
        self.probabilities = self.logits.softmax(1)
        self.predicted, self.confidence = self.logits.argmax(1), self.probabilities.amax(1)
        self.hits = self.predicted == labels

    def at_temperature(self, t: float) -> "Predictions":
        return Predictions(self.logits / t, self.labels)


def shifted(x: Tensor, shifts: int) -> Iterator[Tensor]:
    """Images x (B, 1, H, W) moved by each (dx, dy) of -shifts to shifts pixels; zeros move in."""
    height, width = x.shape[-2:]
    padded = F.pad(x, (shifts,) * 4)
    for top, left in itertools.product(range(2 * shifts + 1), repeat=2):
        yield padded[..., top : top + height, left : left + width]


def average(logits: Iterable[Tensor]) -> Tensor:
    """Logarithm of the mean of the probabilities of several (N, C) logits: float64, finite."""
    total = functools.reduce(torch.logaddexp, (part.double().log_softmax(1) for part in logits))
    return total.log_softmax(1)  # divides by their number


@torch.no_grad()
def predict_batches(
    nets: Sequence[Callable[[Tensor], Tensor]],
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    shifts: int = 0,
) -> list[Predictions]:
    """Each network's predictions for all batches (x, y), in their order, on the CPU.

    With `shifts` by test-time augmentation: the mean over the shifted copies of an image, whose
    background must be 0.
    """
    logits: list[list[Tensor]] = [[] for _ in nets]
    labels = []
    for x, y in batches:
        x = x.to(device)
        labels.append(y.cpu())
        for net, parts in zip(nets, logits, strict=True):
            parts.append(average(net(copy).float().cpu() for copy in shifted(x, shifts)))
    return [Predictions(torch.cat(parts), torch.cat(labels)) for parts in logits]


def ensemble(each: Sequence[Predictions]) -> Predictions:
    """Several networks' predictions of the same images as one."""
    return Predictions(average(predictions.logits for predictions in each), each[0].labels)


def proportion(hits: Tensor) -> dict[str, Any]:
    """Number of images, errors, accuracy and its 95 % score interval.

    E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22
    (1927), 209-212: unlike p ± z * standard error it keeps its level near 1, where accuracies lie.
    """
    n, correct = len(hits), int(hits.sum())
    low, high = binomtest(correct, n).proportion_ci(method="wilson")
    acc_95 = float(low), float(high)
    return {"images": n, "errors": n - correct, "acc": correct / n, "acc_95": acc_95}


def confusion_matrix(predictions: Predictions) -> Tensor:
    """int64 (C, C): how many images of the row's class were read as the column's."""
    classes = predictions.logits.shape[1]
    return multiclass_confusion_matrix(predictions.predicted, predictions.labels, classes)


def class_table(matrix: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """class, images, precision, recall and f1: a row for each class of a confusion matrix.

    0 where a class was never predicted, or has no images.
    """
    hits, predicted, images = matrix.diagonal(), matrix.sum(0), matrix.sum(1)
    table = pd.DataFrame({"class": classes, "images": images})
    table["precision"] = hits / np.maximum(predicted, 1)
    table["recall"] = hits / np.maximum(images, 1)
    table["f1"] = 2 * hits / np.maximum(predicted + images, 1)
    return table


def bin_confidence(predictions: Predictions, bins: int = 15) -> tuple[Tensor, Tensor, Tensor]:
    """Counts (M,), mean confidence (M,) and accuracy (M,) of bins of equal width.

    Bin m of 1 to M holds confidences in ((m-1)/M, m/M]; the means of an empty one are NaN.
    """
    edges = torch.arange(1, bins, dtype=torch.float64) / bins
    bin_of = torch.bucketize(predictions.confidence, edges)
    counts = torch.bincount(bin_of, minlength=bins)
    confidence = torch.bincount(bin_of, predictions.confidence, minlength=bins) / counts
    accuracy = torch.bincount(bin_of, predictions.hits.double(), minlength=bins) / counts
    return counts, confidence, accuracy


def calibration(predictions: Predictions) -> dict[str, float]:
    """`loss`, the mean negative log-likelihood (nats), and `ece`, the expected calibration error.

    The latter is the mean gap between accuracy and confidence over the bins, weighted by their
    counts: C. Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equation 3
    (https://arxiv.org/abs/1706.04599).
    """
    counts, confidence, accuracy = bin_confidence(predictions)
    gaps = (accuracy - confidence).abs().nan_to_num(0)
    return {
        "loss": F.cross_entropy(predictions.logits, predictions.labels).item(),
        "ece": ((counts * gaps).sum() / counts.sum()).item(),
    }


def fit_temperature(predictions: Predictions) -> float:
    """The T > 0 whose logits / T have the least negative log-likelihood.

    One number for all classes: no prediction changes, only its confidence (Guo et al. 2017,
    section 4.2). To be fitted to images that the network was not trained on.
    """
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_t], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(predictions.logits / log_t.exp(), predictions.labels)
        loss.backward()
        return loss

    optimizer.step(closure)
    return log_t.exp().item()


def most_confident_mistakes(predictions: Predictions) -> Tensor:
    """int64 (K,): which predictions are wrong, the most confident first."""
    wrong = (~predictions.hits).nonzero().flatten()
    return wrong[predictions.confidence[wrong].argsort(descending=True, stable=True)]


def list_mistakes(
    predictions: Predictions, rows: Tensor, classes: Sequence[str], most: int
) -> list[dict[str, Any]]:
    """The most confident mistakes: the row in the file, label, prediction and its confidence."""
    places, names = most_confident_mistakes(predictions)[:most], np.array(classes, dtype=object)
    table = pd.DataFrame({"index": rows[places].numpy()})
    table["label"] = names[predictions.labels[places]]
    table["prediction"] = names[predictions.predicted[places]]
    table["confidence"] = predictions.confidence[places].numpy()
    return table.to_dict("records")


def summary(predictions: Predictions, classes: Sequence[str]) -> dict[str, Any]:
    """The figures of all images and of each class, as plain values."""
    matrix = confusion_matrix(predictions)
    return {
        **proportion(predictions.hits),
        **calibration(predictions),
        "classes": class_table(matrix.numpy(), classes).to_dict("records"),
        "confusion": matrix.tolist(),
    }
