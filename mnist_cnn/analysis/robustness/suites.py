"""The robustness suites of `python -m mnist_cnn.evaluate robustness=...`."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_auroc

from mnist_cnn.analysis.robustness import attacks
from mnist_cnn.analysis.robustness.corruptions import CORRUPTIONS, corrupt
from mnist_cnn.analysis.robustness.intervals import certified
from mnist_cnn.analysis.robustness.outliers import OUTLIERS
from mnist_cnn.config.schema import Suite
from mnist_cnn.data.datamodule import ImageDataModule
from mnist_cnn.data.loader import generator
from mnist_cnn.runs.terminal import track

SEED, BATCH = 0, 500
ATTACKED = 1000  # images: an attack takes hundreds of forward passes
DEFAULT = get_args(Suite)  # of robustness=true
LIGHT_ON_BLACK = "corruptions", "outliers"  # suites whose images are drawn so


class Suites:
    """The suites for one network, each a method.

    Args:
        net: returns logits (N, 10).
        images: float (N, 1, 28, 28) in [0, 1] on the CPU.
        labels: int64 (N,).
        device: the network's device.
        copies: what `corrupted` makes of the images, for the suite `corruptions`.
    """

    def __init__(
        self,
        net: nn.Module,
        images: Tensor,
        labels: Tensor,
        device: torch.device,
        copies: Mapping[str, Tensor],
    ):
        self.net, self.images, self.labels, self.device = net, images, labels, device
        self.copies = copies

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Return logits on the CPU."""
        return torch.cat([self.net(part.to(self.device)).float().cpu() for part in x.split(BATCH)])

    def confidence(self, x: Tensor) -> Tensor:
        return self.predict(x).softmax(1).amax(1)

    def accuracy(self, x: Tensor) -> float:
        return (self.predict(x).argmax(1) == self.labels).double().mean().item()

    def corruptions(self) -> dict[str, Any]:
        """Measure the accuracy under each corruption of MNIST-C, and the mean of these."""
        figures = {name: self.accuracy(x / 255) for name, x in self.copies.items()}
        return {**figures, "mean": sum(figures.values()) / len(figures)}

    def adversarial(self) -> dict[str, Any]:
        """Measure the accuracy under each attack, by epsilon, on the first ATTACKED images."""
        by_name = {"fgsm": attacks.fgsm, "pgd": attacks.restarted_pgd}
        x, y = (part[:ATTACKED].to(self.device) for part in (self.images, self.labels))
        figures: dict[str, Any] = {"images": len(x), **{name: {} for name in by_name}}
        parts = list(zip(x.split(BATCH), y.split(BATCH), strict=True))
        for name, attack in by_name.items():
            for epsilon in track(attacks.EPSILONS, name):
                hits = []
                for k, part in enumerate(parts):
                    moved = attack(self.net, *part, epsilon, generator(SEED, k))
                    hits.append(attacks.correct(self.net, moved, part[1]))
                figures[name][f"{epsilon}"] = torch.cat(hits).cpu().double().mean().item()
        return figures

    def certified(self) -> dict[str, Any]:
        """Compute the certified accuracy by epsilon, on all images, in float64."""
        net = copy.deepcopy(self.net).cpu().double()
        parts = list(zip(self.images.double().split(BATCH), self.labels.split(BATCH), strict=True))
        try:
            hits = {
                f"{epsilon}": [certified(net, *part, epsilon) for part in parts]
                for epsilon in track(attacks.EPSILONS, "certified")
            }
        # an unsupported network may raise any of these
        except (NotImplementedError, AttributeError, TypeError) as e:
            return {"unknown": f"no bounds: {e}"}
        return {epsilon: torch.cat(found).double().mean().item() for epsilon, found in hits.items()}

    def outliers(self) -> dict[str, Any]:
        """Measure how well the prediction's probability separates digits from each kind of outlier.

        D. Hendrycks and K. Gimpel, A baseline for detecting misclassified and out-of-distribution
        examples, ICLR 2017 (https://arxiv.org/abs/1610.02136).
        """
        digits = self.images[self.labels != 1][:2000]  # half of a one is a one
        figures, of_digits = {}, self.confidence(self.images)
        for k, (name, make) in enumerate(OUTLIERS.items()):
            x = [make(part, generator(k, b)) for b, part in enumerate(digits.split(500))]
            figures[name] = separation(of_digits, self.confidence(torch.cat(x)))
        return figures


def corrupted(images: Tensor) -> dict[str, Tensor]:
    """Return copies of images (N, 1, 28, 28) by corruption, in 8 bits."""
    copies = {}
    for k, name in enumerate(track(CORRUPTIONS, "corruptions")):
        g = generator(SEED, k)
        x = torch.cat([corrupt(part, name, g) for part in images.split(BATCH)])
        copies[name] = (255 * x).round().byte()
    return copies


def separation(digits: Tensor, others: Tensor) -> dict[str, float]:
    """Measure how well scores (N,) of digits and (M,) of other images separate them.

    `auroc` is the probability that a digit's score is above another image's, with ties counted as
    half; `fpr_95` is the fraction of other images at or above the score that 95 % of the digits
    reach.
    """
    is_digit = torch.arange(len(digits) + len(others)) < len(digits)
    threshold = digits.sort().values[int((1 - 0.95) * len(digits))]
    return {
        "auroc": binary_auroc(torch.cat([digits, others]).cpu(), is_digit).item(),
        "fpr_95": (others >= threshold).double().mean().item(),
    }


def measure_robustness(
    nets: Mapping[str, nn.Module],
    data: ImageDataModule,
    split: str,
    suites: Sequence[str],
    device: torch.device,
) -> dict[str, Any]:
    """Run each suite on each network, and return the part `robustness` of evaluation.json.

    Args:
        data: its images are (1, 28, 28).
        suites: names of methods of Suites.
    """
    images, y = (part.cpu() for part in data.splits[split])
    x, rows = images.float() / 255, []
    # making them takes longer than reading them, and the networks share them
    copies = corrupted(x) if "corruptions" in suites else {}
    for name, net in nets.items():
        tested = Suites(net, x, y, device, copies)
        clean = {"network": name, "clean": tested.accuracy(x)}
        rows.append(clean | {suite: getattr(tested, suite)() for suite in suites})
    return {"split": split, "seed": SEED, "networks": rows}
