"""Pages generated during training, each from (seed, epoch, index) alone."""

from collections.abc import Iterator
from typing import Any, ClassVar

import cv2
import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mnist_cnn.config.schema import FOLDS
from mnist_cnn.data import mnist
from mnist_cnn.data.synthetic.characters import TRAINING_FONTS, VALIDATION_FONTS, Sources
from mnist_cnn.data.synthetic.pages import page
from mnist_cnn.data.synthetic.sheet import SIZES, STRIDE, SYMBOLS
from mnist_cnn.data.writers import mnist_writers, writer_folds
from mnist_cnn.runs.signals import outlive_stop

Batch = tuple[Tensor, Tensor, Tensor]  # ink, rules, marks
MOST = 160  # maximum number of characters kept per page
VALIDATION_SEED = 2019  # seed of the validation pages, whatever the seed of the training


class PageDataset(Dataset[Batch]):
    """Pages by (epoch, index): ink uint8 (1, H, W), rules uint8 (1, h, w), marks (N, 7)."""

    def __init__(self, sources: Sources, seed: int):
        self.sources, self.seed = sources, seed

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        use_one_thread()
        made = page(np.random.default_rng((self.seed, *key)), self.sources)
        ink = (made.ink * 255).round().astype(np.uint8)
        h, w = (side // STRIDE for side in made.rules.shape)
        rules = made.rules.reshape(h, STRIDE, w, STRIDE).max((1, 3)) > 0.4
        rows = [
            (SYMBOLS.find(mark.symbol) if mark.symbol else -1, *mark.box, mark.size)
            for mark in made.marks
        ]
        marks = torch.tensor(rows, dtype=torch.float32).view(-1, 6)
        flag = flags(marks[:, 5])
        flag = torch.where((marks[:, 0] < 0) & (flag > 0), 0, flag)
        marks = torch.cat([marks, flag[:, None]], 1)[flag >= 0]
        marks[:, 0].clamp_(min=0)
        return torch.from_numpy(ink)[None], torch.from_numpy(rules)[None].to(torch.uint8), marks


class EpochSampler(Sampler[tuple[int, int]]):
    """Sampler of the keys (epoch, index) of one rank's pages of an epoch, from `first` on.

    Args:
        pages: number of pages per epoch.
        rank: rank of this process.
        world_size: number of processes.
        fixed: use the pages of the first epoch in every epoch.
    """

    def __init__(self, pages: int, rank: int = 0, world_size: int = 1, fixed: bool = False):
        self.pages, self.rank, self.world_size = pages, rank, world_size
        self.epoch = self.first = 0
        self.fixed = fixed

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    @property
    def indices(self) -> range:
        return range(self.rank, self.pages, self.world_size)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for index in self.indices[self.first :]:
            yield 0 if self.fixed else self.epoch, index


class PageLoader:
    """Loader of batches of pages whose position within an epoch can be saved and restored.

    The position counts batches that were returned, not those prefetched by workers. Pages before
    it are not generated again. It is no DataLoader, which Lightning would rebuild with samplers of
    its own.
    """

    batch_sampler: ClassVar[None] = None  # Lightning reads it where there is a sampler

    def __init__(self, dataset: PageDataset, sampler: EpochSampler, batch_size: int, workers: int):
        self.sampler, self.batch_size = sampler, batch_size  # Lightning calls sampler.set_epoch
        self.batches = DataLoader(
            dataset,
            batch_size,
            sampler=sampler,
            num_workers=workers,
            collate_fn=collate,
            worker_init_fn=outlive_stop,
            # else it would draw the seed of its workers from the global one, which a resumed run
            # has set by then
            generator=torch.Generator(),
        )
        self.start: tuple[int, int] | None = None  # epoch and batch to resume from
        self.batch = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        use_one_thread()
        epoch, self.batch = self.start or (None, 0)
        self.start = None
        if epoch is not None and epoch != self.sampler.epoch:
            self.batch = 0  # the position belongs to another epoch
        self.sampler.first = self.batch * self.batch_size
        for batch in self.batches:
            self.batch += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.sampler.epoch, "batch": self.batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.start = state["epoch"], state["batch"]
        self.sampler.epoch = state["epoch"]


class PagesDataModule(L.LightningDataModule):
    """Synthetic pages of handwriting and print.

    Training uses writers of MNIST's training file and fonts that validation does not use, but for
    characters beyond ASCII, which are printed in one font. A page depends on (seed, epoch, index)
    alone, so that a resumed run sees the same pages.

    Args:
        pages: number of pages per epoch; those that do not fill a batch are left out.
        val_pages: number of validation pages, the same in every epoch.
        batch_size: pages per step, over all devices, whose number divides it.
        workers: number of processes that generate pages; 0 uses the training's own.
        seed: seed of the training pages.
        fold: fold of `writers.writer_folds` whose writers are held out for validation.
    """

    def __init__(
        self,
        *,
        pages: int = 16_000,
        val_pages: int = 320,
        batch_size: int = 32,
        workers: int = 1,
        seed: int = 0,
        fold: int = 0,
    ):
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.pages, self.val_pages, self.batch_size = pages, val_pages, batch_size
        self.workers, self.seed, self.fold = workers, seed, fold

    def loader(self, split: str, pages: int, seed: int) -> PageLoader:
        dataset = PageDataset(sources(split, self.fold), seed)
        trainer: Any = self.trainer
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        fixed = split == "val" or bool(getattr(trainer, "overfit_batches", 0))
        sampler = EpochSampler(pages, rank, world_size, fixed)
        return PageLoader(dataset, sampler, self.batch_size // world_size, self.workers)

    def train_dataloader(self) -> PageLoader:
        whole = self.pages - self.pages % self.batch_size
        return self.loader("train", whole, self.seed)

    def val_dataloader(self) -> PageLoader:
        return self.loader("val", self.val_pages, VALIDATION_SEED)


def use_one_thread() -> None:
    """Restrict OpenCV to one thread, as its thread pool does not survive the fork of a worker.

    In a worker it is too late: OpenCV would wait forever for threads of the parent.
    """
    if cv2.getNumThreads() > 1:
        cv2.setNumThreads(1)


def collate(batch: list[Batch]) -> Batch:
    """Stack pages, padding their marks to the longest, of at most MOST characters."""
    ink, rules, marks = zip(*batch, strict=True)
    n = min(MOST, max(1, *map(len, marks)))
    full = torch.full((len(marks), n, 7), -1.0)
    full[..., 1:5] = -1e4
    for k, own in enumerate(marks):
        full[k, : min(n, len(own))] = own[:n]
    return torch.stack(ink), torch.stack(rules), full


def sources(split: str, fold: int = 0) -> Sources:
    """Return the digits and fonts of a split; for validation, digits by the writers of `fold`."""
    images, labels = mnist.load_split("mnist", "", "train")
    held = writer_folds(mnist_writers("train"), labels, 1 / FOLDS) == fold
    rows = held if split == "val" else ~held
    fonts = VALIDATION_FONTS if split == "val" else TRAINING_FONTS
    return Sources(images[rows].numpy(), labels[rows].numpy(), fonts)


def flags(size: Tensor) -> Tensor:
    """Return 1 for sizes to detect, 0 for sizes near them, -1 for others."""
    least, most = SIZES
    found, near = (size >= least) & (size <= most), (size >= 0.85 * least) & (size <= 1.18 * most)
    return torch.where(found, 1, torch.where(near, 0, -1))
