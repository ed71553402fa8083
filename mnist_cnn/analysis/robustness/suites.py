"""The suites that `python -m mnist_cnn.evaluate robustness=...` runs, and what they give."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mnist_cnn.analysis.robustness import attacks, outliers
from mnist_cnn.analysis.robustness.corruptions import AFFINE, CORRUPTIONS, Corruption
from mnist_cnn.config.messages import must_be
from mnist_cnn.data.datamodule import ImageDataModule
from mnist_cnn.data.loader import generator

if TYPE_CHECKING:
    from rich.progress import Progress

SUITES = ("corruptions", "affine", "adversarial", "outliers")
SEED, BATCH = 0, 500
ATTACKED = 1000  # images: an attack takes hundreds of passes
NOTE = (
    "corruptions are re-made after Mu and Gilmer (2019), they are not the MNIST-C files; "
    f"PGD has {attacks.STEPS} steps and {attacks.RESTARTS} restarts; FGSM alone is no evidence"
)

Net = nn.Module


@torch.no_grad()
def logits(net: Net, x: Tensor, device: torch.device) -> Tensor:
    """Of images (N, 1, H, W), on the CPU."""
    return torch.cat([net(part.to(device)).float().cpu() for part in x.split(BATCH)])


def accuracies(
    nets: Sequence[Net],
    images: Tensor,
    labels: Tensor,
    changes: Mapping[str, Corruption],
    device: torch.device,
    bar: "Progress",
) -> list[dict[str, float]]:
    """Each network's accuracy on the images after each change, which are the same for all."""
    found: list[dict[str, float]] = [{} for _ in nets]
    for k, (name, change) in enumerate(bar.track(changes.items(), description="corruptions")):
        g = generator(SEED, k)
        x = torch.cat([change(part, g) for part in images.split(BATCH)])
        for row, net in zip(found, nets, strict=True):
            row[name] = (logits(net, x, device).argmax(1) == labels).double().mean().item()
    return found


def adversarial(
    net: Net, images: Tensor, labels: Tensor, device: torch.device, bar: "Progress"
) -> dict[str, Any]:
    """A network's accuracy under FGSM and PGD at each epsilon."""
    x, y = images[:ATTACKED].to(device), labels[:ATTACKED].to(device)
    found: dict[str, Any] = {"images": len(x), "fgsm": {}, "pgd": {}}
    for epsilon in bar.track(attacks.EPSILONS, description="adversarial"):
        kept: list[list[Tensor]] = [[], []]
        for k, (part, of) in enumerate(zip(x.split(BATCH), y.split(BATCH), strict=True)):
            stepped = attacks.fgsm(net, part, of, epsilon)
            kept[0].append(attacks.right(net, stepped, of))
            kept[1].append(attacks.survivors(net, part, of, epsilon, generator(SEED, k)))
        for attack, hits in zip(("fgsm", "pgd"), kept, strict=True):
            found[attack][f"{epsilon}"] = torch.cat(hits).double().mean().item()
    return found


def no_digits(
    nets: Sequence[Net],
    images: Tensor,
    others: Mapping[str, Tensor],
    device: torch.device,
    bar: "Progress",
) -> list[dict[str, dict[str, float]]]:
    """How each network tells digits from each kind of other images (N, 1, H, W) in [0, 1].

    By the probability of its prediction: D. Hendrycks and K. Gimpel, A baseline for detecting
    misclassified and out-of-distribution examples, ICLR 2017 (https://arxiv.org/abs/1610.02136).
    """

    def score(net: Net, x: Tensor) -> Tensor:
        return logits(net, x, device).softmax(1).amax(1)

    digits = [score(net, images) for net in nets]
    found: list[dict[str, dict[str, float]]] = [{} for _ in nets]
    for name, x in bar.track(others.items(), description="outliers"):
        for row, net, own in zip(found, nets, digits, strict=True):
            scores = score(net, x)
            row[name] = {
                "images": len(x),
                "auroc": outliers.auroc(own, scores),
                "fpr_95": outliers.false_positives(own, scores),
            }
    return found


def measure_robustness(
    nets: Mapping[str, Net],
    data: ImageDataModule,
    split: str,
    suites: Sequence[str],
    device: torch.device,
    bar: "Progress",
) -> dict[str, Any]:
    """Each network's figures under each suite.

    Args:
        nets: by name, in the order of the table.
        data: with the split set up.
        suites: some of SUITES.

    Raises:
        ValueError: the images are not 28x28 in one channel.
    """
    if data.shape != (1, 28, 28):
        raise ValueError(must_be("robustness", f"false with images of {data.shape}", "true"))
    whole, labels = (part.cpu() for part in data.splits[split])
    images, modules = whole.float() / 255, list(nets.values())
    found: list[dict[str, Any]] = [{"network": name} for name in nets]

    def note(each: Sequence[Mapping[str, Any]]) -> None:
        for row, figures in zip(found, each, strict=True):
            row.update(figures)

    note(accuracies(modules, images, labels, {"clean": lambda x, g: x}, device, bar))
    for suite, changes in (("corruptions", CORRUPTIONS), ("affine", AFFINE)):
        if suite in suites:
            each = accuracies(modules, images, labels, changes, device, bar)
            note([{suite: {**row, "mean": sum(row.values()) / len(row)}} for row in each])
    if "adversarial" in suites:
        attacked = (adversarial(net, images, labels, device, bar) for net in modules)
        note([{"adversarial": figures} for figures in attacked])
    if "outliers" in suites:
        others = outliers.make_outliers(images[labels != 1][:2000], getattr(data, "root", None))
        told = no_digits(modules, images, others, device, bar)
        note([{"outliers": figures} for figures in told])
    return {"split": split, "seed": SEED, "note": NOTE, "networks": found}


def table_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """The table: for each condition its name and, for each network, its figure."""
    networks = found["networks"]
    first, lines = networks[0], [("clean", [row["clean"] for row in networks])]
    for suite in ("corruptions", "affine"):
        lines += [(name, [row[suite][name] for row in networks]) for name in first.get(suite, ())]
    rows = [
        [name.replace("_", " "), *(f"{value:.2%}" for value in values)] for name, values in lines
    ]
    if "adversarial" in first:
        n = first["adversarial"]["images"]
        for attack in ("fgsm", "pgd"):
            for epsilon in first["adversarial"][attack]:
                values = [row["adversarial"][attack][epsilon] for row in networks]
                name = f"{attack.upper()} {epsilon}, first {n:,} images"
                rows.append([name, *(f"{value:.1%}" for value in values)])
    for name in first.get("outliers", ()):
        values = [row["outliers"][name] for row in networks]
        said = (f"AUROC {v['auroc']:.3f}, FPR {v['fpr_95']:.1%}" for v in values)
        rows.append([f"no digits: {name}", *said])
    return rows
