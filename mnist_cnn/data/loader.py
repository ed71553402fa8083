"""Batches sliced from tensors in memory, on the device, with a resumable position."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

# images (B, C, H, W) in [0, 1], labels (B,) and a generator -> changed images
Change = Callable[[Tensor, Tensor, torch.Generator], Tensor]


@dataclass(eq=False, repr=False)
class BatchLoader:
    """Loader of batches from images in memory, with pixels in [0, 1].

    A batch is a slice of an index tensor: no per-image Python and no worker process. The order of
    an epoch depends on (seed, epoch) alone, not on the machine, the device or the number of
    ranks. Each rank takes every `world_size`-th image of a global batch, so that together they
    see each image exactly once.

    Yields (x, y): float32 (B, C, H, W) and int64 (B,).
    """

    images: Tensor  # uint8 (N, C, H, W), on the device of the batches
    labels: Tensor  # int64 (N,), on the same device
    _: KW_ONLY
    batch_size: int  # images per global batch; the last batch of an epoch may be smaller
    seed: int = 0  # seed of the shuffling and of the augmentation
    shuffle: bool = False  # reshuffle each epoch; else the order of the images
    # applied to images in [0, 1]; its generator is seeded by (seed, epoch, batch, rank), so that a
    # resumed run augments a batch in the same way
    augment: Change | None = None
    augmented_epochs: float = math.inf  # number of first epochs with augmentation
    rank: int = 0  # which part of each batch is returned
    world_size: int = 1

    epoch: int = field(default=0, init=False)
    batch: int = field(default=0, init=False)  # batches returned in this epoch
    first: int = field(default=0, init=False)  # where the next iteration begins, after loading

    batch_sampler: ClassVar[None] = None  # Lightning reads it where there is a sampler

    @property
    def sampler(self) -> "BatchLoader":
        """The loader itself: Lightning calls `loader.sampler.set_epoch` for each epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch (from 0), which determines the order; reset the position if it changes."""
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
        """Return the number of images of a batch (from 0) over all ranks."""
        return min(self.batch_size, len(self.labels) - batch * self.batch_size)

    def mixed(self, rows: Tensor, chance: torch.Generator) -> Tensor:
        """Return rows (N,) on the images' device, in random order if the loader shuffles."""
        order = torch.randperm(len(rows), generator=chance) if self.shuffle else slice(None)
        return rows[order].to(self.labels.device)

    def batches(self) -> Sequence[Tensor]:
        """Return the rows (B,) of each global batch of this epoch."""
        rows = torch.arange(len(self.labels))
        return self.mixed(rows, generator(self.seed, self.epoch)).split(self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        first, self.first = self.first, 0
        for batch, whole in enumerate(self.batches()[first:], first):
            rows = whole[self.rank :: self.world_size]
            self.batch = batch + 1
            x, y = self.images[rows].float().div_(255), self.labels[rows]
            if self.augment and self.epoch < self.augmented_epochs:
                keys = (self.seed, self.epoch, batch, self.rank)
                x = self.augment(x, y, generator(*keys, device=x.device))
            yield x, y


@dataclass(eq=False, repr=False)
class MixedLoader(BatchLoader):
    """Loader of batches that end with images without labels, whose label is -1.

    An epoch has each of these once, and those with labels as often as that takes.
    """

    unlabeled: int  # images without labels per global batch; batch_size counts those with labels

    def __post_init__(self) -> None:
        labels = self.labels.cpu()
        self.rows = (labels >= 0).nonzero().flatten(), (labels < 0).nonzero().flatten()

    def __len__(self) -> int:
        return math.ceil(len(self.rows[1]) / self.unlabeled)

    def size(self, batch: int) -> int:
        rest = len(self.rows[1]) - batch * self.unlabeled
        return self.batch_size + min(self.unlabeled, rest)

    def batches(self) -> Sequence[Tensor]:
        labeled, others = self.rows
        chance = generator(self.seed, self.epoch)
        rest = self.mixed(others, chance).split(self.unlabeled)
        passes = math.ceil(len(rest) * self.batch_size / len(labeled))
        again = torch.cat([self.mixed(labeled, chance) for _ in range(passes)])
        pairs = zip(again.split(self.batch_size), rest, strict=False)  # surplus labeled ones
        return [torch.cat(pair) for pair in pairs]


def generator(*keys: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator seeded by the keys; (0, 1) and (1, 0) give unrelated streams."""
    state = np.random.SeedSequence(keys).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state))
