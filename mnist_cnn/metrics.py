"""Metrics of an epoch."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class EpochMetrics:
    """The losses and logits of an epoch's batches, left on the device until sums are asked for.

    A step only appends: sums would cost each step kernels and, on a GPU, a wait. A label below 0 is
    no class: such an image counts in the loss and not in the accuracy.

    Args:
        whole: the state has all logits, for metrics that are no sums.
    """

    def __init__(self, whole: bool = False) -> None:
        self.whole = whole
        self.losses: list[Tensor] = []  # mean of each batch
        self.sizes: list[int] = []  # images of each batch
        self.logits: list[Tensor] = []  # (B, K) of each batch
        self.labels: list[Tensor] = []  # (B,) of each batch
        self.before = (0, 0)  # hits and labelled images of batches before those, once resumed
        self.looked_at = 0  # number of losses that are known to be finite

    @property
    def images(self) -> int:
        return sum(self.sizes)

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        self.losses.append(loss.detach())
        self.sizes.append(len(labels))
        self.logits.append(logits.detach())
        self.labels.append(labels)

    def totals(self, last: int = 0) -> tuple[float, int, int, int]:
        """Sum of the losses, images, hits and labelled images, of all batches or the last ones."""
        last = min(last, len(self.logits))
        sizes = torch.tensor(self.sizes[-last:], dtype=torch.float64)
        losses = torch.stack(self.losses[-last:]).cpu().double()
        hits, labelled = (0, 0) if last else self.before
        if logits := self.logits[-last:]:
            labels = torch.cat(self.labels[-last:])
            hits += int((torch.cat(logits).argmax(1) == labels).sum())
            labelled += int((labels >= 0).sum())
        return (losses * sizes).sum().item(), int(sizes.sum()), hits, labelled

    def state_dict(self) -> dict[str, Any]:
        """The state from which an interrupted epoch ends with the same sums, to the last bit."""
        state = {"losses": torch.stack(self.losses).cpu(), "sizes": self.sizes}
        if self.whole:
            logits, labels = torch.cat(self.logits).cpu(), torch.cat(self.labels).cpu()
            return {**state, "before": self.before, "logits": logits, "labels": labels}
        return {**state, "before": self.totals()[2:]}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        self.losses = list(state["losses"].to(device))
        self.sizes, self.before = list(state["sizes"]), state["before"]
        if self.whole:
            self.logits, self.labels = [state["logits"].to(device)], [state["labels"].to(device)]
