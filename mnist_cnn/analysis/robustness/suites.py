"""The suites that `python -m mnist_cnn.evaluate robustness=...` runs, and what they give."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mnist_cnn.analysis.progress import track
from mnist_cnn.analysis.robustness import attacks, outliers
from mnist_cnn.analysis.robustness.corruptions import AFFINE, CORRUPTIONS, Corruption
from mnist_cnn.config.messages import must_be
from mnist_cnn.data.datamodule import ImageDataModule
from mnist_cnn.data.loader import generator

SUITES = ("corruptions", "affine", "adversarial", "outliers")  # of robustness=true
ATTACKS = {
    "adversarial": {"fgsm": "FGSM", "pgd": "PGD"},
    "autoattack": {"autoattack": "AutoAttack"},
}
SEED, BATCH = 0, 500
ATTACKED = 1000  # images: an attack takes hundreds of passes
NOTE = (
    "corruptions are re-made after Mu and Gilmer (2019), they are not the MNIST-C files; "
    f"PGD has {attacks.STEPS} steps and {attacks.RESTARTS} restarts; FGSM alone is no evidence"
)

Read = Callable[[Tensor], list[Tensor]]  # logits (N, C) of images (N, 1, H, W), by each network
Figures = dict[str, list[Any]]  # by condition, of each network


def share(hits: Tensor) -> float:
    return hits.double().mean().item()


def accuracies(
    changes: Mapping[str, Corruption], read: Read, images: Tensor, labels: Tensor
) -> Figures:
    """Accuracies on the images after each change, which are the same for all, and their mean."""
    found: Figures = {}
    for k, (name, change) in enumerate(track(changes.items(), "corruptions")):
        g = generator(SEED, k)
        x = torch.cat([change(part, g) for part in images.split(BATCH)])
        found[name] = [share(logits.argmax(1) == labels) for logits in read(x)]
    means = [sum(each) / len(each) for each in zip(*found.values(), strict=True)]
    return {**found, "mean": means}


def attacked(nets: Sequence[nn.Module], x: Tensor, y: Tensor, suite: str) -> Figures:
    """Accuracies on the first images under each attack of a suite, by epsilon."""
    x, y = x[:ATTACKED], y[:ATTACKED]
    parts = list(zip(x.split(BATCH), y.split(BATCH), strict=True))
    found: Figures = {"images": [len(x) for _ in nets]}
    found |= {attack: [{} for _ in nets] for attack in ATTACKS[suite]}
    for n, net in enumerate(nets):
        for epsilon in track(attacks.EPSILONS, suite):
            for attack in ATTACKS[suite]:
                survives = attacks.SURVIVE[attack]
                hits = [
                    survives(net, *part, epsilon, generator(SEED, k))
                    for k, part in enumerate(parts)
                ]
                found[attack][n][f"{epsilon}"] = share(torch.cat(hits))
    return found


def no_digits(read: Read, images: Tensor, others: Mapping[str, Tensor]) -> Figures:
    """How digits are told from each kind of other images, by the probability of the prediction.

    D. Hendrycks and K. Gimpel, A baseline for detecting misclassified and out-of-distribution
    examples, ICLR 2017 (https://arxiv.org/abs/1610.02136).
    """

    def scores(x: Tensor) -> list[Tensor]:
        return [logits.softmax(1).amax(1) for logits in read(x)]

    digits = scores(images)
    return {
        name: [
            {
                "images": len(x),
                "auroc": outliers.auroc(own, other),
                "fpr_95": outliers.false_positives(own, other),
            }
            for own, other in zip(digits, scores(x), strict=True)
        ]
        for name, x in track(others.items(), "outliers")
    }


def measure_robustness(
    nets: Mapping[str, nn.Module],
    data: ImageDataModule,
    split: str,
    suites: Sequence[str],
    device: torch.device,
) -> dict[str, Any]:
    """Each network's figures under each suite.

    Args:
        nets: by name, in the order of the table.
        data: with the split set up.

    Raises:
        ValueError: the images are not 28x28 in one channel.
    """
    if data.shape != (1, 28, 28):
        raise ValueError(must_be("robustness", f"false with images of {data.shape}", "true"))
    whole, labels = (part.cpu() for part in data.splits[split])
    images, modules = whole.float() / 255, list(nets.values())

    @torch.no_grad()
    def read(x: Tensor) -> list[Tensor]:
        parts = x.split(BATCH)
        return [torch.cat([net(p.to(device)).float().cpu() for p in parts]) for net in modules]

    clean = accuracies({"clean": lambda x, g: x}, read, images, labels)["clean"]
    measured: dict[str, Figures] = {}
    for suite, changes in (("corruptions", CORRUPTIONS), ("affine", AFFINE)):
        if suite in suites:
            measured[suite] = accuracies(changes, read, images, labels)
    for suite in ATTACKS:
        if suite in suites:
            measured[suite] = attacked(modules, images.to(device), labels.to(device), suite)
    if "outliers" in suites:
        others = outliers.make_outliers(images[labels != 1][:2000], getattr(data, "root", None))
        measured["outliers"] = no_digits(read, images, others)
    networks = [
        {
            **{"network": name, "clean": clean[n]},
            **{
                suite: {key: each[n] for key, each in rows.items()}
                for suite, rows in measured.items()
            },
        }
        for n, name in enumerate(nets)
    ]
    return {"split": split, "seed": SEED, "note": NOTE, "networks": networks}


def table_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """The table: for each condition its name and, for each network, its figure."""
    networks = [list(each_condition(row)) for row in found["networks"]]
    return [[same[0][0], *(text for _, text in same)] for same in zip(*networks, strict=True)]


def each_condition(network: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each condition that a network was measured under, and its figure."""
    yield "clean", f"{network['clean']:.2%}"
    for suite in ("corruptions", "affine"):
        for name, accuracy in network.get(suite, {}).items():
            yield name.replace("_", " "), f"{accuracy:.2%}"
    for suite, names in ATTACKS.items():
        for attack, name in names.items() if suite in network else ():
            for epsilon, accuracy in network[suite][attack].items():
                images = f"first {network[suite]['images']:,} images"
                yield f"{name} {epsilon}, {images}", f"{accuracy:.1%}"
    for name, told in network.get("outliers", {}).items():
        yield f"no digits: {name}", f"AUROC {told['auroc']:.3f}, FPR {told['fpr_95']:.1%}"
