"""How good a network's predictions are: pure functions of its logits and the labels.

Shapes: N images, C classes (10), M bins of confidence (15).
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Z95 = 1.959963984540054  # the 97.5 % quantile of the normal distribution


class Predictions:
    """A network's predictions for images whose labels are known.

    Args:
        logits: (N, C), converted to float64.
        labels: int64 (N,).
    """

    def __init__(self, logits: Tensor, labels: Tensor):
        self.logits, self.labels = logits.double(), labels

    @cached_property
    def probabilities(self) -> Tensor:
        """float64 (N, C)."""
        return self.logits.softmax(1)

    @cached_property
    def predicted(self) -> Tensor:
        """int64 (N,), the most probable class of each."""
        return self.logits.argmax(1)

    @cached_property
    def confidence(self) -> Tensor:
        """float64 (N,), the probability of the prediction."""
        return self.probabilities.amax(1)

    @cached_property
    def hits(self) -> Tensor:
        """bool (N,), whether the prediction is the label."""
        return self.predicted == self.labels

    def at_temperature(self, t: float) -> "Predictions":
        return Predictions(self.logits / t, self.labels)


class Bins(NamedTuple):
    """Predictions grouped by their confidence; the means of an empty bin are NaN."""

    counts: Tensor  # int64 (M,)
    confidence: Tensor  # float64 (M,), mean of the bin
    accuracy: Tensor  # float64 (M,), mean of the bin


def shifted(x: Tensor, shifts: int) -> Iterator[Tensor]:
    """The images x (B, 1, H, W) moved by each (dx, dy) of -shifts to shifts pixels; zeros move in.

    There are (2 * shifts + 1)^2 of them; without shifts x itself.
    """
    height, width = x.shape[-2:]
    padded = F.pad(x, (shifts,) * 4)
    for top in range(2 * shifts + 1):
        for left in range(2 * shifts + 1):
            yield padded[..., top : top + height, left : left + width]


def average(logits: Iterable[Tensor]) -> Tensor:
    """Several predictions of the same images as one: the mean of their probabilities.

    Args:
        logits: (N, C) each, consumed one after the other.

    Returns:
        The logarithms of the mean probabilities, float64 (N, C). They are finite, since it is
        computed with logarithms throughout.
    """
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

    With `shifts`, a prediction is the mean over the shifted copies of an image, whose background
    must be 0.
    """
    logits, labels = [], []
    for x, y in batches:
        x = x.to(device)
        logits.append(
            [average(net(copy).float().cpu() for copy in shifted(x, shifts)) for net in nets]
        )
        labels.append(y.cpu())
    return [Predictions(torch.cat(parts), torch.cat(labels)) for parts in zip(*logits, strict=True)]


def ensemble(each: Sequence[Predictions]) -> Predictions:
    """Several networks' predictions of the same images as one."""
    return Predictions(average(predictions.logits for predictions in each), each[0].labels)


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The 95 % score interval of the proportion hits / n.

    E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22
    (1927), 209-212. Unlike p ± z * standard error it stays within [0, 1] and keeps its level near
    1, where accuracies lie.
    """
    p, z, scale = hits / n, Z95, 1 + Z95**2 / n
    centre = p + z**2 / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    # in binary the bound of 0 hits, or of n, may miss 0 or 1 by 1e-17
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def proportion(hits: Tensor) -> dict[str, Any]:
    """How many images, how many of them wrong, the accuracy and its 95 % interval."""
    n, right = len(hits), int(hits.sum())
    return {"images": n, "errors": n - right, "acc": right / n, "acc_95": wilson(right, n)}


def confusion_matrix(predictions: Predictions) -> Tensor:
    """int64 (C, C): how many images of the row's class were read as the column's."""
    classes = predictions.logits.shape[1]
    pairs = predictions.labels * classes + predictions.predicted
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def by_class(matrix: Tensor) -> dict[str, Tensor]:
    """precision, recall and f1 of each class, float64 (C,), from a confusion matrix.

    0 where a class was never predicted, or never there.
    """
    hits, predicted, there = matrix.diag().double(), matrix.sum(0), matrix.sum(1)
    return {
        "precision": hits / predicted.clamp(min=1),
        "recall": hits / there.clamp(min=1),
        "f1": 2 * hits / (predicted + there).clamp(min=1),
    }


def bin_confidence(predictions: Predictions, bins: int = 15) -> Bins:
    """Predictions in bins of equal width: bin m of 1 to M holds confidences in ((m-1)/M, m/M]."""
    edges = torch.arange(1, bins, dtype=torch.float64) / bins
    bin_of = torch.bucketize(predictions.confidence, edges)
    counts = torch.bincount(bin_of, minlength=bins)
    confidence = torch.bincount(bin_of, predictions.confidence, minlength=bins) / counts
    accuracy = torch.bincount(bin_of, predictions.hits.double(), minlength=bins) / counts
    return Bins(counts, confidence, accuracy)


def calibration(predictions: Predictions) -> dict[str, float]:
    """`loss`, the mean negative log-likelihood (nats), and `ece`, the expected calibration error.

    The latter is the mean gap between accuracy and confidence over 15 bins, weighted by their
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
    predictions: Predictions, rows: Tensor, classes: tuple[str, ...], most: int
) -> list[dict[str, Any]]:
    """The most confident mistakes: which row of the file, its label, how it was read."""
    return [
        {
            "index": int(rows[k]),
            "label": classes[predictions.labels[k]],
            "prediction": classes[predictions.predicted[k]],
            "confidence": predictions.confidence[k].item(),
        }
        for k in most_confident_mistakes(predictions)[:most]
    ]


def summary(predictions: Predictions, classes: Sequence[str]) -> dict[str, Any]:
    """All figures of an evaluation as plain values."""
    matrix = confusion_matrix(predictions)
    columns = {"images": matrix.sum(1), **by_class(matrix)}
    return {
        **proportion(predictions.hits),
        **calibration(predictions),
        "classes": [
            {"class": name, **{key: values[k].item() for key, values in columns.items()}}
            for k, name in enumerate(classes)
        ],
        "confusion": matrix.tolist(),
    }
