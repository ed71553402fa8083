"""Data modules of images in memory: splits and batches."""

import math
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor

from mnist_cnn.config import schema
from mnist_cnn.config.instantiate import is_custom
from mnist_cnn.config.messages import either, must_be
from mnist_cnn.data import mnist
from mnist_cnn.data.augment import Augment, check_amounts
from mnist_cnn.data.loader import BatchLoader, Change, MixedLoader, generator
from mnist_cnn.data.picture import is_on_light
from mnist_cnn.data.transforms import Transforms
from mnist_cnn.data.writers import Writers, held_out, mnist_writers
from mnist_cnn.runs.generators import restored_generators

SAMPLE = 100  # images that tell on which ground all are
CHOICE = 2**31  # in place of an epoch in the seed of `per_class`, whose order is that of no epoch


class ImageDataModule(L.LightningDataModule):
    """Images kept in memory as uint8, with batches in [0, 1].

    A subclass defines `name`, `classes` (by label), `shape` (C, H, W) and `load`.

    Args:
        batch_size: images per training step, over all devices.
        eval_batch_size: the same for validation, test and predict.
        val_fraction: fraction of the training file held out for validation; with 0 all of it is
            trained on, and nothing can be selected by a validation metric.
        fold: index of the slice of that size: with split=rows, slice k begins at row
            k * int(N * val_fraction).
        split: rows, for such slices; writers, for folds that share no writer with the rest; or
            writers_by_series, see `writers.held_out`. The last two need known `writers`.
        shuffle: reshuffle the training images in each epoch.
        seed: seed of the shuffling and of the augmentation.
        augment: arguments of `augment.Augment` for the training images, or transforms by name, see
            `transforms.Transforms`; if empty, no augmentation.
        clean_epochs: number of last epochs of trainer.max_epochs without augmentation; a run
            that stops early may not reach them.
        per_class: training images per class, chosen by seed; larger choices contain smaller ones.
            None takes all.
        unlabeled: images without labels that each training step has besides `batch_size` with
            labels: of those that `per_class` leaves out, with -1 in place of their labels. None
            leaves them out.

    Raises:
        ValueError: a value is out of range, or a file is invalid.
    """

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    on_light: bool | None = None  # whether most training images are dark on light, once known

    def __init__(
        self,
        *,
        batch_size: int = 64,
        eval_batch_size: int = 200,
        val_fraction: float = 0.2,
        fold: int = 0,
        split: str = "rows",
        shuffle: bool = True,
        seed: int = 0,
        augment: Mapping[str, Any] | None = None,
        clean_epochs: int = 0,
        per_class: int | None = None,
        unlabeled: int | None = None,
    ):
        super().__init__()
        # with a subclass's arguments; Lightning would refuse to log those that a module has, too
        self.save_hyperparameters(logger=False)
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.val_fraction, self.fold, self.split = val_fraction, fold, split
        self.shuffle, self.seed, self.clean_epochs = shuffle, seed, clean_epochs
        self.per_class, self.unlabeled = per_class, unlabeled
        self.augment: Change | None = None
        if augment and not schema.are_transforms(augment):
            self.augment = Augment(**augment)
        values = {key: getattr(self, key) for key in schema.Images.model_fields}
        schema.check_values("data", schema.Images, values)
        self.splits: dict[str, tuple[Tensor, Tensor]] = {}
        self.rows: dict[str, Tensor] = {}  # rows of a split's images in their file

    def load(self, split: str) -> tuple[Tensor, Tensor]:
        """Load the images uint8 (N, C, H, W) and labels int64 (N,) of `train` or `test`."""
        raise NotImplementedError

    def writers(self, split: str) -> Writers | None:
        """Return the writers of the images of `train` or `test`, or None if unknown."""
        return None

    def files(self, split: str) -> list[str] | None:
        """Return the file of each image of `train` or `test`, or None if images have none."""
        return None

    def split_files(self, split: str) -> list[str] | None:
        """Return the files of the images of `train`, `val` or `test`, after `setup`."""
        known = self.files("test" if split == "test" else "train")
        return known and [known[row] for row in self.rows[split].tolist()]

    def split_writers(self, split: str) -> Writers | None:
        """Return the writers of the images of `train`, `val` or `test`, after `setup`."""
        known, rows = self.writers("test" if split == "test" else "train"), self.rows[split]
        return known and Writers(*(column[rows] for column in known))

    def validation_rows(self, labels: Tensor) -> Tensor:
        """Return the rows (M,) of the training file held out for validation, in order."""
        if not self.val_fraction:
            return torch.arange(0)
        known = None if self.split == "rows" else self.writers("train")
        schema.check_split(self.split, self.name, known is not None, self.val_fraction)
        size = int(len(labels) * self.val_fraction)
        rows = torch.arange(self.fold * size, (self.fold + 1) * size)
        if known is not None:
            rows = held_out(known, labels, self.split, self.val_fraction, self.fold)
        if not 0 < len(rows) < len(labels):
            allowed = f"0 or leave some of {len(labels)} images to every fold and to training"
            raise ValueError(must_be("data.val_fraction", allowed, self.val_fraction))
        kinds = len(labels.unique())
        grouped = int((labels.diff() != 0).sum()) + 1 == kinds  # in any order of the classes
        if grouped and len(labels[rows].unique()) < kinds:
            allowed = "0 with images in the order of their classes: mix them, for slices have few"
            raise ValueError(must_be("data.val_fraction", allowed, self.val_fraction))
        return rows

    def training_rows(self, labels: Tensor, train: Tensor) -> Tensor:
        """Return the rows (M,) to train on, `per_class` of each class in the mask `train` (N,)."""
        rows = train.nonzero().flatten()
        if self.per_class is None:
            return rows
        order = rows[torch.randperm(len(rows), generator=generator(self.seed, CHOICE))]
        found = [order[labels[order] == k][: self.per_class] for k in range(len(self.classes))]
        if (least := min(map(len, found))) < self.per_class:
            allowed = f"at most {least}, as many as a class has to train on"
            raise ValueError(must_be("data.per_class", allowed, self.per_class))
        return torch.cat(found).sort().values

    def setup(self, stage: str | None = None) -> None:
        """Load the splits for `stage`: images uint8 (N, C, H, W) and labels int64 (N,)."""
        # for the checkpoint
        self.hparams.update(classes=list(self.classes), shape=list(self.shape))
        if schema.are_transforms(augment := self.hparams["augment"]):
            self.augment = Transforms(augment, self.shape[1:])
        if stage in ("fit", None):
            self.check_augment()
        if stage in ("fit", "validate", None) and "train" not in self.splits:
            images, labels = self.load("train")
            self.check_fits("training set", images, labels)
            light = [is_on_light(image) for image in images[:: max(1, len(images) // SAMPLE)]]
            self.on_light = 2 * sum(light) > len(light)
            self.hparams["on_light"] = self.on_light
            val = self.validation_rows(labels)
            train = torch.ones(len(labels), dtype=torch.bool)
            train[val] = False
            chosen = self.training_rows(labels, train)
            self.keep("train", images, labels, chosen)
            if self.unlabeled:
                train[chosen] = False
                if not train.any():
                    allowed = "null where data.per_class leaves no image out"
                    raise ValueError(must_be("data.unlabeled", allowed, self.unlabeled))
                hidden = torch.full_like(labels, -1)  # from here on no one has their labels
                self.keep("unlabeled", images, hidden, train.nonzero().flatten())
            if len(val):  # with val_fraction=0 there is no val
                self.keep("val", images, labels, val)
        if stage in ("test", "predict", None) and "test" not in self.splits:
            images, labels = self.load("test")
            self.check_fits("test set", images, labels)
            self.keep("test", images, labels, torch.arange(len(labels)))

    def check_fits(self, name: str, images: Tensor, labels: Tensor) -> None:
        """Raise ValueError if the images of a set do not fit `shape`, or its labels `classes`."""
        kinds = images.dtype, labels.dtype
        fits = kinds == (torch.uint8, torch.int64) and len(images) == len(labels) > 0
        if not fits or labels.min() < 0:
            got = f"{len(images)} of {kinds[0]}, and {len(labels)} of {kinds[1]}"
            got += f", the least {labels.min()}" if fits else ""
            raise ValueError(must_be(name, "uint8 images and as many int64 labels from 0", got))
        shape, most, k = tuple(images.shape[1:]), int(labels.max()), len(self.classes)
        schema.check_shape(shape)
        if k < 2:
            raise ValueError(must_be(name, "of two classes or more", ", ".join(self.classes)))
        if shape != tuple(self.shape) or most >= k:
            given = self.hparams.get("path") or self.hparams.get("root") or self.name
            allowed = f"images {tuple(self.shape)} with labels below {k}, the number of classes"
            allowed += f" of {given}"
            raise ValueError(must_be(name, allowed, f"{shape}, {most}"))

    def check_augment(self) -> None:
        """Raise ValueError if the images are not of a kind that the augmentation changes."""
        augment = self.hparams["augment"]
        if isinstance(self.augment, Augment):
            check_amounts("data.augment", augment, self.shape, self.classes)
        elif isinstance(self.augment, Transforms):
            # new ones, as a user's may have random states of their own
            with restored_generators(torch.device("cpu")):
                transforms = Transforms(augment, self.shape[1:])
                transforms(torch.zeros(1, *self.shape), torch.zeros(1).long(), generator(0))

    def keep(self, split: str, images: Tensor, labels: Tensor, rows: Tensor) -> None:
        """Store rows (M,) of images and labels as a split, on the trainer's device."""
        device = self.trainer.strategy.root_device if self.trainer else "cpu"
        self.splits[split] = images[rows].to(device), labels[rows].to(device)
        self.rows[split] = rows

    def pixel_statistics(self) -> tuple[Tensor, Tensor]:
        """Return the mean and standard deviation (C,) of the training images, in [0, 1]."""
        images, _ = self.splits["train"]
        n = images[:, 0].numel()
        total = square = torch.zeros(images.shape[1], dtype=torch.float64)
        for part in images.split(100):  # in float64, eight times as large, integer sums are exact
            x = part.cpu().double()  # Apple's GPUs have no float64
            total, square = total + x.sum((0, 2, 3)), square + x.square().sum((0, 2, 3))
        mean = total / n
        std = (square / n - mean.square()).sqrt()
        return mean / 255, std / 255

    def loader(self, split: str, batch_size: int, **options: Any) -> BatchLoader:
        """Return the batches of a split for this process.

        Args:
            options: arguments of `BatchLoader`, another `rank` and `world_size` too; with
                `unlabeled`, of `MixedLoader`.
        """
        if self.trainer:
            share = {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}
            options = share | options
        images, labels = self.splits[split]
        if "unlabeled" in options:
            others, hidden = self.splits["unlabeled"]
            images, labels = torch.cat([images, others]), torch.cat([labels, hidden])
            return MixedLoader(images, labels, batch_size=batch_size, **options)
        return BatchLoader(images, labels, batch_size=batch_size, **options)

    def train_dataloader(self) -> BatchLoader:
        most = self.trainer.max_epochs if self.trainer else None
        epochs = most if most and most > 0 else math.inf  # Lightning's -1 is no limit
        overfit = getattr(self.trainer, "overfit_batches", 0)  # the same batches in each epoch
        mixed = {"unlabeled": self.unlabeled} if self.unlabeled else {}
        return self.loader(
            "train",
            self.batch_size,
            seed=self.seed,
            shuffle=self.shuffle and not overfit,
            augment=self.augment,
            augmented_epochs=epochs - self.clean_epochs,
            **mixed,
        )

    def val_dataloader(self) -> BatchLoader | tuple[()]:
        return self.loader("val", self.eval_batch_size) if "val" in self.splits else ()

    def test_dataloader(self) -> BatchLoader:
        return self.loader("test", self.eval_batch_size)

    predict_dataloader = test_dataloader


class MNISTDataModule(ImageDataModule):
    """MNIST, or a dataset of its shape.

    Args:
        name: mnist, fashion_mnist, kmnist or qmnist.
        root: folder to which torchvision downloads the last three; ~ is the home folder.
        options: arguments of `ImageDataModule`.
    """

    shape = (1, 28, 28)

    def __init__(self, *, name: str = "mnist", root: str = "~/.cache/mnist_cnn", **options: Any):
        super().__init__(**options)
        if name not in mnist.CLASSES:
            raise ValueError(must_be("data.name", either(tuple(mnist.CLASSES)), name))
        self.name, self.root, self.classes = name, root, mnist.CLASSES[name]

    def writers(self, split: str) -> Writers | None:
        return mnist_writers(split) if self.name == "mnist" else None

    def prepare_data(self) -> None:
        mnist.prepare(self.name, self.root)

    def load(self, split: str) -> tuple[Tensor, Tensor]:
        images, labels = mnist.load_split(self.name, self.root, split)
        return images.unsqueeze(1), labels


def class_names(data: L.LightningDataModule | None) -> tuple[str, ...]:
    """Return the class names by label; empty if a user's data module has none."""
    names = getattr(data, "classes", None)
    return tuple(map(str, names)) if isinstance(names, list | tuple) else ()


def described(config: Mapping[str, Any], data: L.LightningDataModule) -> dict[str, Any]:
    """Describe the training data for a file: configuration, classes and shape."""
    shape = getattr(data, "shape", None)
    known = {
        "classes": list(class_names(data)) or None,
        "shape": list(shape) if isinstance(shape, list | tuple) else None,
        "on_light": getattr(data, "on_light", None),
    }
    if is_custom(config):
        config = {"name": config["_target_"].rpartition(".")[2], "custom": dict(config)}
    return {**config, **known}
