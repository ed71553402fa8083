"""A custom LightningDataModule, with PyTorch's and other loaders."""

import random
from collections.abc import Iterator
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from mnist_cnn.data.mnist import load_split

OWN = ["targets=[tests.helpers.*]", "~data", "+data._target_=tests.helpers.own_data.Own"]
IMAGES = 640  # 20 steps per epoch


class Jittered(Dataset[tuple[Tensor, int]]):
    """Digits that are shifted, dimmed and made noisy, by three global and two own generators."""

    def __init__(self) -> None:
        images, labels = load_split("mnist", "unused", "train")
        self.images, self.labels = images[:IMAGES], labels[:IMAGES]
        self.own, self.older = np.random.default_rng(5), np.random.RandomState(6)

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        x = self.images[row].float().div(255).roll(random.randint(-2, 2), -1)
        x = x * (0.5 + 0.5 * np.random.random()) + 0.1 * torch.rand(x.shape)
        x = x + 0.1 * float(self.own.random()) + 0.1 * self.older.random()
        return x.unsqueeze(0), int(self.labels[row])


class Stream(IterableDataset[tuple[Tensor, int]]):
    """The same digits as an iterable dataset."""

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        rows = Jittered()
        yield from (rows[row] for row in range(IMAGES))


class Stateful:
    """A loader with its own state_dict, which does not use the global generators."""

    def __init__(self, data: Jittered):
        self.data, self.epoch, self.done, self.first = data, 0, 0, 0

    def __len__(self) -> int:
        return IMAGES // 32

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        first, self.first = self.first, 0
        self.epoch += not first
        order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(self.epoch))
        for self.done, rows in enumerate(order.split(32)[first:], first + 1):
            x = self.data.images[rows].float().div(255).unsqueeze(1)
            yield x, self.data.labels[rows]

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.first = state["epoch"], state["done"] % len(self)


class Unvalidated(L.LightningDataModule):
    """The same digits, with training images alone."""

    def train_dataloader(self) -> Any:
        return DataLoader(Jittered(), 32, shuffle=True)


class Own(L.LightningDataModule):
    """Digits from a kind of loader: plain, with its own generator, hidden ones, stateful or stream.

    Args:
        workers: of a plain loader.
        options: further arguments of the loader.
    """

    def __init__(self, kind: str = "plain", workers: int = 0, **options: Any):
        super().__init__()
        self.kind, self.options = kind, {"num_workers": workers, **options}
        self.rows = Jittered()
        self.hidden, self.moved = np.random.default_rng(8), np.random.default_rng(9)

    def noisy(self, rows: list[Any]) -> tuple[Tensor, Tensor]:
        x = torch.stack([image for image, _ in rows])
        return x + 0.1 * float(self.hidden.random()), torch.tensor([label for _, label in rows])

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        x, y = batch
        return (x + 0.1 * float(self.moved.random()), y) if self.kind == "hidden" else batch

    def train_dataloader(self) -> Any:
        if self.kind == "stateful":
            return Stateful(self.rows)
        if self.kind == "stream":
            return DataLoader(Stream(), batch_size=32)
        if self.kind == "hidden":
            self.options["collate_fn"] = self.noisy
        own = torch.Generator().manual_seed(7) if self.kind == "own generator" else None
        return DataLoader(self.rows, 32, shuffle=True, generator=own, **self.options)

    def val_dataloader(self) -> Any:
        x = self.rows.images[:64].float().div(255).unsqueeze(1)
        if self.kind != "hidden":
            return DataLoader(TensorDataset(x, self.rows.labels[:64]), 32)
        own = np.random.default_rng(10)

        def faded(rows: list[Any]) -> tuple[Tensor, Tensor]:
            images, labels = zip(*rows, strict=True)
            return torch.stack(images) * float(own.random()), torch.stack(labels)

        return DataLoader(TensorDataset(x, self.rows.labels[:64]), 32, collate_fn=faded)

    test_dataloader = val_dataloader
