"""The suites of `python -m mnist_cnn.evaluate robustness=...` and their figures."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mnist_cnn.analysis.progress import track
from mnist_cnn.analysis.robustness import attacks, outliers
from mnist_cnn.analysis.robustness.corruptions import AFFINE, CORRUPTIONS, Corruption
from mnist_cnn.config.messages import must_be
from mnist_cnn.data.datamodule import ImageDataModule
from mnist_cnn.data.loader import generator

SEED, BATCH = 0, 500
ATTACKED = 1000  # images: an attack takes hundreds of passes
NOTE = (
    "corruptions are re-made after Mu and Gilmer (2019), they are not the MNIST-C files; "
    f"PGD has {attacks.STEPS} steps and {attacks.RESTARTS} restarts; FGSM alone is no evidence"
)


class Digits(NamedTuple):
    """What a suite changes: images (N, 1, 28, 28) in [0, 1] on the CPU and their labels (N,)."""

    images: Tensor
    labels: Tensor
    root: str | Path | None  # the folder of the data
    device: torch.device  # of the network


Figures = dict[str, Any]
Suite = Callable[[nn.Module, Digits], Figures]


@torch.no_grad()
def predict(net: nn.Module, x: Tensor, device: torch.device) -> Tensor:
    """Logits on the CPU."""
    return torch.cat([net(part.to(device)).float().cpu() for part in x.split(BATCH)])


def accuracy(net: nn.Module, x: Tensor, digits: Digits) -> float:
    return share(predict(net, x, digits.device).argmax(1) == digits.labels)


def share(hits: Tensor) -> float:
    return hits.double().mean().item()


def changed(changes: Mapping[str, Corruption], net: nn.Module, digits: Digits) -> Figures:
    """The accuracy on images that are changed in each way, and the mean of these."""
    figures = {}
    for k, (name, change) in enumerate(track(changes.items(), "changed images")):
        g = generator(SEED, k)
        x = torch.cat([change(part, g) for part in digits.images.split(BATCH)])
        figures[name] = accuracy(net, x, digits)
    return {**figures, "mean": sum(figures.values()) / len(figures)}


def attacked(by_name: Mapping[str, attacks.Attack], net: nn.Module, digits: Digits) -> Figures:
    """The number of images, and the accuracy under each attack by epsilon."""
    x, y = (part[:ATTACKED].to(digits.device) for part in digits[:2])
    figures: Figures = {"images": len(x), **{name: {} for name in by_name}}
    parts = list(zip(x.split(BATCH), y.split(BATCH), strict=True))
    for name, attack in by_name.items():
        for epsilon in track(attacks.EPSILONS, name):
            hits = []
            for k, (images, labels) in enumerate(parts):
                moved = attack(net, images, labels, epsilon, generator(SEED, k))
                hits.append(attacks.correct(net, moved, labels))
            figures[name][f"{epsilon}"] = share(torch.cat(hits))
    return figures


def told_from_digits(net: nn.Module, digits: Digits) -> Figures:
    """How well the probability of the prediction tells each kind of other images from digits.

    D. Hendrycks and K. Gimpel, A baseline for detecting misclassified and out-of-distribution
    examples, ICLR 2017 (https://arxiv.org/abs/1610.02136).
    """

    def confidence(x: Tensor) -> Tensor:
        return predict(net, x, digits.device).softmax(1).amax(1)

    others = outliers.make_outliers(digits.images[digits.labels != 1][:2000], digits.root)
    of_digits = confidence(digits.images)
    return {name: outliers.separation(of_digits, confidence(x)) for name, x in others.items()}


SUITES: dict[str, Suite] = {
    "corruptions": functools.partial(changed, CORRUPTIONS),
    "affine": functools.partial(changed, AFFINE),
    "adversarial": functools.partial(
        attacked, {"fgsm": attacks.fgsm, "pgd": attacks.restarted_pgd}
    ),
    "autoattack": functools.partial(attacked, {"autoattack": attacks.autoattack}),
    "outliers": told_from_digits,
}
DEFAULT = [suite for suite in SUITES if suite != "autoattack"]  # of robustness=true


def measure_robustness(
    nets: Mapping[str, nn.Module],
    data: ImageDataModule,
    split: str,
    suites: Sequence[str],
    device: torch.device,
) -> dict[str, Any]:
    """The part `robustness` of evaluation.json: the figures of each network under each suite.

    Args:
        nets: by name, in the order of the table.
        data: with the split set up.

    Raises:
        ValueError: the images are not 28x28 in one channel.
    """
    if data.shape != (1, 28, 28):
        raise ValueError(must_be("robustness", f"false with images of {data.shape}", "true"))
    images, labels = (part.cpu() for part in data.splits[split])
    digits = Digits(images.float() / 255, labels, getattr(data, "root", None), device)
    chosen = {name: suite for name, suite in SUITES.items() if name in suites}
    rows = []
    for network, net in nets.items():
        clean = {"network": network, "clean": accuracy(net, digits.images, digits)}
        rows.append({**clean, **{name: suite(net, digits) for name, suite in chosen.items()}})
    return {"split": split, "seed": SEED, "note": NOTE, "networks": rows}
