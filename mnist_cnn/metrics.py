"""Metrics of an epoch."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from mnist_cnn.data.datamodule import MNISTDataModule
from mnist_cnn.data.mnist import hits_by_labels
from mnist_cnn.internals.results import metric_state, restore_metric

KEPT = 2**20  # numbers in the logits that are kept before they are counted: 4 MB
# pairs of classes times images in an update of a metric, at most: in deterministic mode
# torchmetrics takes 8 bytes for each, 128 MB
COUNTED = 2**24


class EpochMetrics:
    """Loss, accuracy and torchmetrics metrics, accumulated over an epoch.

    A step only appends: sums would cost kernels in each step and, on a GPU, a synchronization.
    Logits stay on the device until there are KEPT numbers of them, then are counted and dropped; an
    epoch of MNIST has fewer. Images with a negative label count in the loss alone.

    Args:
        metrics: by name; they are cloned.
        device: the device of the logits.
    """

    def __init__(
        self, metrics: Mapping[str, Metric] | None = None, device: torch.device | str = "cpu"
    ):
        self.metrics = {k: metric.clone().to(device) for k, metric in (metrics or {}).items()}
        self.device = device
        self.losses: list[Tensor] = []  # mean of each batch
        self.sizes: list[int] = []  # images of each batch
        self.logits: list[Tensor] = []  # (B, K) of each batch not counted yet
        self.labels: list[Tensor] = []  # (B,) of these
        self.kept = 0  # numbers in these logits
        self.counted = {"hits": 0, "labelled": 0}  # of the images whose logits were dropped

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
        """Return the numbers of hits and of labelled images so far."""
        counts = dict(self.counted)
        if self.logits:
            labels = torch.cat(self.labels)
            counts["hits"] += int((torch.cat(self.logits).argmax(1) == labels).sum())
            counts["labelled"] += int((labels >= 0).sum())
        return counts

    def update_metrics(self) -> None:
        if self.logits and self.metrics:
            logits, labels = torch.cat(self.logits), torch.cat(self.labels)
            known, n = labels >= 0, max(1, COUNTED // logits.shape[1] ** 2)
            parts = zip(logits[known].split(n), labels[known].split(n), strict=True)
            for part in parts if known.any() else ():  # some metrics refuse an empty part
                for metric in self.metrics.values():
                    metric.update(*part)

    def totals(self) -> tuple[float, int, int, int]:
        """Return the sum of the losses and the numbers of images, hits and labelled images."""
        sizes = torch.tensor(self.sizes, dtype=torch.float64)
        losses, counts = torch.stack(self.losses).cpu().double(), self.counts()
        return (losses * sizes).sum().item(), self.images, counts["hits"], counts["labelled"]

    def computed(self) -> dict[str, Tensor]:
        """Compute the metrics over all processes, by name, at the end of the epoch."""
        self.update_metrics()
        return {name: metric.compute() for name, metric in self.metrics.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return a state that resumes an interrupted epoch with bitwise identical sums."""
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


def sum_over_ranks(values: Tensor, trainer: Any) -> Tensor:
    """Return the sum of values over the processes of a training, on the device of the values."""
    if trainer.world_size == 1:
        return values
    ours = values.to(trainer.strategy.root_device)
    summed: Tensor = trainer.strategy.reduce(ours, reduce_op="sum")
    return summed.to(values.device)


def label_accuracies(epoch: EpochMetrics, trainer: Any) -> dict[str, float]:
    """Return test/acc_sound and test/acc_corrected of the last test; {} if it was not MNIST's.

    See `hits_by_labels`. They cover the images of all processes.
    """
    # 10,000 images have fewer logits than KEPT
    data = trainer.datamodule
    if not isinstance(data, MNISTDataModule) or data.name != "mnist":
        return {}
    predicted, labels = torch.cat(epoch.logits).argmax(1).cpu(), torch.cat(epoch.labels).cpu()
    rows = rows_of_test(trainer, len(labels))
    found = {}
    for name, hits in hits_by_labels(predicted, labels, rows).items():
        counts = torch.tensor([int(hits.sum()), len(hits)])
        correct, images = sum_over_ranks(counts, trainer).tolist()
        found[f"test/acc_{name}"] = correct / images
    return found


def rows_of_test(trainer: Any, n: int) -> Tensor:
    """Return the rows of the first n test images of this process, of an ImageDataModule."""
    data = trainer.datamodule
    batches = torch.arange(len(data.rows["test"])).split(data.eval_batch_size)
    own = [batch[trainer.global_rank :: trainer.world_size] for batch in batches]
    return torch.cat(own)[:n]
