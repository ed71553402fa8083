"""Batches sliced from tensors in memory, on the device, with a resumable position."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mnist_cnn.data.augment import Augment


class BatchLoader:
    """Hands out batches of images that lie in memory, as pixels in [0, 1].

    A batch is a slice of an index tensor: no per-image Python and no worker process. The order of
    an epoch depends on (seed, epoch) alone, whatever the machine, the device or the number of
    ranks. Each rank takes every `world_size`-th image of a global batch, so that together they
    see each image exactly once.

    Args:
        images: uint8 (N, 1, 28, 28), on the device that the batches are wanted on.
        labels: int64 (N,), on the same device.
        batch_size: images of a global batch; the last batch of an epoch may be smaller.
        seed: of the order and of the augmentation.
        shuffle: a new order each epoch; else the order of the images.
        augment: changes images (B, 1, 28, 28) in [0, 1]; its generator is seeded by (seed, epoch,
            batch, rank), so it does the same to a batch in a resumed run.
        augmented_epochs: number of first epochs that are augmented; inf for all.
        rank, world_size: which share of each batch is handed out.

    Yields (x, y): float32 (B, 1, 28, 28) and int64 (B,).
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = False,
        augment: Augment | None = None,
        augmented_epochs: float = math.inf,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.images, self.labels = images, labels
        self.batch_size = batch_size
        self.seed, self.shuffle = seed, shuffle
        self.augment, self.augmented_epochs = augment, augmented_epochs
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self.batch = 0  # batches handed out in this epoch
        self.first = 0  # where the next iteration begins, after load_state_dict

    batch_sampler = None  # Lightning asks for it where there is a sampler

    @property
    def sampler(self) -> "BatchLoader":
        """Itself: Lightning announces each epoch to `loader.sampler.set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Shuffles anew for this epoch (from 0); a loaded position holds for its own epoch only."""
        if epoch != self.epoch:
            self.epoch, self.batch, self.first = epoch, 0, 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.first = self.batch

    def __len__(self) -> int:
        return math.ceil(len(self.labels) / self.batch_size)

    def size(self, batch: int) -> int:
        """Images of a batch (from 0) over all ranks."""
        return min(self.batch_size, len(self.labels) - batch * self.batch_size)

    def order(self, epoch: int) -> Tensor:
        """Row numbers (N,) in the order of an epoch (from 0)."""
        n = len(self.labels)
        if not self.shuffle:
            return torch.arange(n)
        return torch.randperm(n, generator=generator(self.seed, epoch))

    def share(self, order: Tensor, batch: int) -> Tensor:
        rows = order[batch * self.batch_size : (batch + 1) * self.batch_size]
        return rows[self.rank :: self.world_size]

    def rows(self, epoch: int, batch: int) -> Tensor:
        """Row numbers (B,) of this rank's share of a batch; both are counted from 0."""
        return self.share(self.order(epoch), batch)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        first, self.first = self.first, 0
        order = self.order(self.epoch).to(self.labels.device)
        for batch in range(first, len(self)):
            rows = self.share(order, batch)
            self.batch = batch + 1
            x, y = self.images[rows].float().div_(255), self.labels[rows]
            if self.augment and self.epoch < self.augmented_epochs:
                x = self.augment(
                    x, y, generator(self.seed, self.epoch, batch, self.rank, device=x.device)
                )
            yield x, y


def generator(*keys: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for these keys alone: (0, 1) and (1, 0) have nothing in common."""
    state = np.random.SeedSequence(keys).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state))
