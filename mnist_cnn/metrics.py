"""Metrics of an epoch."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mnist_cnn.data.datamodule import MNISTDataModule
from mnist_cnn.data.mnist import hits_by_labels


class EpochMetrics:
    """The losses and logits of an epoch's batches, left on the device until sums are asked for.

    A step only appends: sums would cost each step kernels and, on a GPU, a wait. A label below 0 is
    no class: such an image counts in the loss and not in the accuracy.
    """

    def __init__(self) -> None:
        self.losses: list[Tensor] = []  # mean of each batch
        self.sizes: list[int] = []  # images of each batch
        self.logits: list[Tensor] = []  # (B, K) of each batch
        self.labels: list[Tensor] = []  # (B,) of each batch

    @property
    def images(self) -> int:
        return sum(self.sizes)

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        self.losses.append(loss.detach())
        self.sizes.append(len(labels))
        self.logits.append(logits.detach())
        self.labels.append(labels)

    def totals(self) -> tuple[float, int, int, int]:
        """Sum of the losses, images, hits and labelled images of all batches."""
        sizes = torch.tensor(self.sizes, dtype=torch.float64)
        losses = torch.stack(self.losses).cpu().double()
        labels = torch.cat(self.labels)
        hits = int((torch.cat(self.logits).argmax(1) == labels).sum())
        return (losses * sizes).sum().item(), self.images, hits, int((labels >= 0).sum())

    def state_dict(self) -> dict[str, Any]:
        """The state from which an interrupted epoch ends with the same sums, to the last bit."""
        logits, labels = torch.cat(self.logits).cpu(), torch.cat(self.labels).cpu()
        losses = torch.stack(self.losses).cpu()
        return {"losses": losses, "sizes": self.sizes, "logits": logits, "labels": labels}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        self.losses, self.sizes = list(state["losses"].to(device)), list(state["sizes"])
        self.logits, self.labels = [state["logits"].to(device)], [state["labels"].to(device)]


def label_accuracies(epoch: EpochMetrics, trainer: Any) -> dict[str, float]:
    """test/acc_sound and test/acc_corrected of the test that has ended; {} of a set but MNIST.

    As `hits_by_labels` has them, over the images of all processes.
    """
    data, world = trainer.datamodule, trainer.world_size
    if not isinstance(data, MNISTDataModule) or data.name != "mnist":
        return {}
    predicted, labels = torch.cat(epoch.logits).argmax(1).cpu(), torch.cat(epoch.labels).cpu()
    batches = torch.arange(len(data.rows["test"])).split(data.eval_batch_size)
    rows = torch.cat([batch[trainer.global_rank :: world] for batch in batches])[: len(labels)]
    found = {}
    for name, hits in hits_by_labels(predicted, labels, rows).items():
        counts = torch.tensor([int(hits.sum()), len(hits)], device=trainer.strategy.root_device)
        correct, images = trainer.strategy.reduce(counts, reduce_op="sum").tolist()
        found[f"test/acc_{name}"] = correct / images
    return found
