"""Metrics of an epoch."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from mnist_cnn.data.datamodule import MNISTDataModule
from mnist_cnn.data.mnist import hits_by_labels
from mnist_cnn.internals.results import metric_state, restore_metric

KEPT = 2**20  # numbers in the logits that are kept until they are counted: 4 MB


class EpochMetrics:
    """The losses of an epoch's batches, their hits, and metrics of torchmetrics.

    A step only appends: sums would cost each step kernels and, on a GPU, a wait. Logits are left on
    the device until there are KEPT numbers of them, then counted and dropped; an epoch of MNIST has
    fewer. A label below 0 is no class: such an image counts in the loss alone.

    Args:
        metrics: by name; copies of them are updated.
        device: where the logits are.
    """

    def __init__(
        self, metrics: Mapping[str, Metric] | None = None, device: torch.device | str = "cpu"
    ):
        self.metrics = {k: metric.clone().to(device) for k, metric in (metrics or {}).items()}
        self.device = device
        self.losses: list[Tensor] = []  # mean of each batch
        self.sizes: list[int] = []  # images of each batch
        self.logits: list[Tensor] = []  # (B, K) of each batch that is not counted yet
        self.labels: list[Tensor] = []  # (B,) of these
        self.kept = 0  # numbers in these logits
        self.counted = {"hits": 0, "labelled": 0}  # of the images that are counted

    @property
    def images(self) -> int:
        return sum(self.sizes)

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        self.losses.append(loss.detach())
        self.sizes.append(len(labels))
        self.logits.append(logits.detach())
        self.labels.append(labels)
        self.kept += logits.numel()
        if self.kept >= KEPT:
            self.counted = self.counts()
            self.update_metrics()
            self.logits, self.labels, self.kept = [], [], 0

    def counts(self) -> dict[str, int]:
        """Hits and labelled images, counted or not yet."""
        counts = dict(self.counted)
        if self.logits:
            labels = torch.cat(self.labels)
            counts["hits"] += int((torch.cat(self.logits).argmax(1) == labels).sum())
            counts["labelled"] += int((labels >= 0).sum())
        return counts

    def update_metrics(self) -> None:
        if self.logits and self.metrics:
            logits, labels = torch.cat(self.logits), torch.cat(self.labels)
            for metric in self.metrics.values():
                metric.update(logits[labels >= 0], labels[labels >= 0])

    def totals(self) -> tuple[float, int, int, int]:
        """Sum of the losses, images, hits and labelled images of all batches."""
        sizes = torch.tensor(self.sizes, dtype=torch.float64)
        losses, counts = torch.stack(self.losses).cpu().double(), self.counts()
        return (losses * sizes).sum().item(), self.images, counts["hits"], counts["labelled"]

    def computed(self) -> dict[str, Tensor]:
        """What the metrics give over all processes, by name; when the epoch is over."""
        self.update_metrics()
        return {name: metric.compute() for name, metric in self.metrics.items()}

    def state_dict(self) -> dict[str, Any]:
        """The state from which an interrupted epoch ends with the same sums, to the last bit."""
        return {
            "losses": torch.stack(self.losses).cpu(),
            "sizes": self.sizes,
            "logits": torch.cat(self.logits).cpu() if self.logits else None,
            "labels": torch.cat(self.labels).cpu() if self.labels else None,
            "counted": self.counted,
            "metrics": {name: metric_state(metric) for name, metric in self.metrics.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.losses, self.sizes = list(state["losses"].to(self.device)), list(state["sizes"])
        kept = state["logits"] is not None
        self.logits = [state["logits"].to(self.device)] if kept else []
        self.labels = [state["labels"].to(self.device)] if kept else []
        self.kept = sum(logits.numel() for logits in self.logits)
        self.counted = dict(state["counted"])
        for name, metric in self.metrics.items():
            restore_metric(metric, state["metrics"][name])


def label_accuracies(epoch: EpochMetrics, trainer: Any) -> dict[str, float]:
    """test/acc_sound and test/acc_corrected of the test that has ended; {} of a set but MNIST.

    As `hits_by_labels` has them, over the images of all processes.
    """
    # 10,000 images have fewer logits than KEPT
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
