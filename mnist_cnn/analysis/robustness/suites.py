"""The suites of `python -m mnist_cnn.evaluate robustness=...` and their figures."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mnist_cnn.analysis.progress import track
from mnist_cnn.analysis.robustness import attacks, outliers
from mnist_cnn.analysis.robustness.corruptions import AFFINE, CORRUPTIONS
from mnist_cnn.config.messages import must_be
from mnist_cnn.data.datamodule import ImageDataModule
from mnist_cnn.data.loader import generator

SUITES = ("corruptions", "affine", "adversarial", "outliers")  # of robustness=true
CHANGES = {"corruptions": CORRUPTIONS, "affine": AFFINE}
SEED, BATCH = 0, 500
ATTACKED = 1000  # images: an attack takes hundreds of passes
NOTE = (
    "corruptions are re-made after Mu and Gilmer (2019), they are not the MNIST-C files; "
    f"PGD has {attacks.STEPS} steps and {attacks.RESTARTS} restarts; FGSM alone is no evidence"
)


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
    whole, labels = (part.cpu() for part in data.splits[split])
    images = whole.float() / 255

    @torch.no_grad()
    def predict(net: nn.Module, x: Tensor) -> Tensor:
        return torch.cat([net(part.to(device)).float().cpu() for part in x.split(BATCH)])

    def accuracy(net: nn.Module, x: Tensor) -> float:
        return share(predict(net, x).argmax(1) == labels)

    rows: list[dict[str, Any]] = [
        {"network": name, "clean": accuracy(net, images)} for name, net in nets.items()
    ]
    networks = list(zip(rows, nets.values(), strict=True))
    for suite in (suite for suite in CHANGES if suite in suites):
        for k, (name, change) in enumerate(track(CHANGES[suite].items(), suite)):
            g = generator(SEED, k)
            x = torch.cat([change(part, g) for part in images.split(BATCH)])
            for row, net in networks:
                row.setdefault(suite, {})[name] = accuracy(net, x)
        for row in rows:
            row[suite]["mean"] = sum(row[suite].values()) / len(row[suite])
    for suite in (suite for suite in attacks.ATTACKS if suite in suites):
        x, y = images[:ATTACKED].to(device), labels[:ATTACKED].to(device)
        for row, net in networks:
            row[suite] = attacked(net, x, y, suite)
    if "outliers" in suites:
        # told from digits by the probability of the prediction: D. Hendrycks and K. Gimpel, A
        # baseline for detecting misclassified and out-of-distribution examples, ICLR 2017
        # (https://arxiv.org/abs/1610.02136)
        others = outliers.make_outliers(images[labels != 1][:2000], getattr(data, "root", None))
        for row, net in track(networks, "outliers"):
            digits, row["outliers"] = predict(net, images).softmax(1).amax(1), {}
            for name, x in others.items():
                score = predict(net, x).softmax(1).amax(1)
                row["outliers"][name] = outliers.separation(digits, score)
    return {"split": split, "seed": SEED, "note": NOTE, "networks": rows}


def share(hits: Tensor) -> float:
    return hits.double().mean().item()


def attacked(net: nn.Module, x: Tensor, y: Tensor, suite: str) -> dict[str, Any]:
    """The number of images, and the accuracy under each attack of a suite by epsilon."""
    figures: dict[str, Any] = {"images": len(x)}
    parts = list(zip(x.split(BATCH), y.split(BATCH), strict=True))
    for name, attack in attacks.ATTACKS[suite].items():
        figures[name] = {}
        for epsilon in track(attacks.EPSILONS, name):
            hits = []
            for k, (images, labels) in enumerate(parts):
                moved = attack(net, images, labels, epsilon, generator(SEED, k))
                hits.append(attacks.correct(net, moved, labels))
            figures[name][f"{epsilon}"] = share(torch.cat(hits))
    return figures


def table_rows(networks: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The table: for each condition its name and, for each network, its figure."""
    columns = [list(conditions(row)) for row in networks]
    return [[same[0][0], *(text for _, text in same)] for same in zip(*columns, strict=True)]


def conditions(network: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each condition that a network was measured under, and its figure."""
    yield "clean", f"{network['clean']:.2%}"
    for suite in CHANGES:
        for name, accuracy in network.get(suite, {}).items():
            yield name.replace("_", " "), f"{accuracy:.2%}"
    for suite, by_name in attacks.ATTACKS.items():
        for attack in by_name if suite in network else ():
            for epsilon, accuracy in network[suite][attack].items():
                images = f"first {network[suite]['images']:,} images"
                yield f"{attacks.TITLES[attack]} {epsilon}, {images}", f"{accuracy:.1%}"
    for name, figures in network.get("outliers", {}).items():
        yield f"OOD: {name}", f"AUROC {figures['auroc']:.3f}, FPR {figures['fpr_95']:.1%}"
