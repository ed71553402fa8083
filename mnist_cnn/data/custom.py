"""Custom data: arrays in a file, pictures in a folder, or a LightningDataModule."""

import functools
import os
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from mnist_cnn.config.messages import must_be
from mnist_cnn.data.datamodule import ImageDataModule, class_names
from mnist_cnn.data.picture import as_image
from mnist_cnn.runs.terminal import reason

MAX_CLASSES = 100_000  # more are no classes but numbers of the images
CHANNELS = 1, 3, 4  # numbers by which the axis of channels is told from the sides


class ArraysDataModule(ImageDataModule):
    """Images of an .npz file, as written by `np.savez(path, x_train=..., y_train=..., ...)`.

    x_train and x_test are uint8 (N, H, W), (N, C, H, W) or (N, H, W, C), where C is 1, 3 or 4, or H
    and W are equal; y_train and y_test are integers (N,) from 0, in mixed order, as validation
    takes a slice, and `classes`, if present, the class names by label.

    Args:
        path: path of the file.
        name: name of the dataset in tables and figures.
        fingerprint: SHA-256 of the files, for the record of a run.
        options: arguments of `ImageDataModule`.
    """

    def __init__(
        self, *, path: str, name: str = "arrays", fingerprint: str | None = None, **options: Any
    ):
        super().__init__(**options)
        self.path, self.name = path, name

    @functools.cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        try:
            # without pickle, no code in the file is run
            with open(os.path.expanduser(self.path), "rb") as file:
                arrays = np.load(file)
                if isinstance(arrays, np.ndarray):
                    raise ValueError("a single array")
                return dict(arrays)
        except MemoryError:  # not an error of the file
            raise
        except Exception as e:  # NumPy and zlib raise many types for foreign and damaged files
            allowed = f"an .npz file ({reason(e)})"
            raise ValueError(must_be("data.path", allowed, self.path)) from None

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]  # read from the file on access
        return tuple(self.load("train")[0].shape[1:])

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]  # as above
        most = int(self.load("train")[1].max())
        if most >= MAX_CLASSES:
            allowed = f"labels below {MAX_CLASSES:,}"
            raise ValueError(must_be(f"y_train of {self.path}", allowed, most))
        names = self.arrays.get("classes", range(most + 1))
        if np.ndim(names) != 1:
            allowed = "a list of names by label"
            raise ValueError(must_be(f"classes of {self.path}", allowed, np.shape(names)))
        return tuple(x.decode(errors="replace") if isinstance(x, bytes) else str(x) for x in names)

    def load(self, split: str) -> tuple[Tensor, Tensor]:
        x, y = (self.arrays.get(f"{part}_{split}", np.empty(0)) for part in "xy")
        fits = x.dtype == np.uint8 and x.ndim in (3, 4) and x.size and y.shape == x.shape[:1]
        if not fits or y.dtype.kind not in "iu" or y.min() < 0:
            names = f"x_{split} and y_{split} of {self.path}"
            allowed = "uint8 (N, H, W), (N, C, H, W) or (N, H, W, C), and whole numbers >= 0 (N,)"
            got = " and ".join(f"{array.dtype} {array.shape}" for array in (x, y))
            raise ValueError(must_be(names, allowed, got))
        if x.ndim == 3:
            x = x[:, None]
        elif x.shape[-1] in CHANNELS and x.shape[1] in CHANNELS:
            allowed = "(N, C, H, W) or (N, H, W, C) with sides that cannot be channels, 1, 3 or 4"
            raise ValueError(must_be(f"x_{split} of {self.path}", allowed, x.shape))
        elif x.shape[-1] in CHANNELS or (x.shape[1] not in CHANNELS and x.shape[1] == x.shape[2]):
            x = np.moveaxis(x, -1, 1)
        return torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(y.astype(np.int64))


class FolderDataModule(ImageDataModule):
    """Pictures by class: ROOT/train/CLASS/*.png and ROOT/test/CLASS/*.png, or *.jpg and others.

    Args:
        root: path of the folder.
        color: read three channels; else one.
        size: resize the pictures to size x size; None requires that they are all of one size.
        name: name of the dataset in tables and figures.
        fingerprint: SHA-256 of the files, for the record of a run.
        options: arguments of `ImageDataModule`.
    """

    def __init__(
        self,
        *,
        root: str,
        color: bool = True,
        size: int | None = None,
        name: str = "folder",
        fingerprint: str | None = None,
        **options: Any,
    ):
        super().__init__(**options)
        self.root, self.color, self.size, self.name = root, color, size, name

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]  # the folders, on access
        return tuple(self.pictures("train").classes)

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]  # of the first picture
        return tuple(self.pictures("train")[0][0].shape)

    def pictures(self, split: str) -> Any:
        """Return the ImageFolder of a split, which reads pictures as uint8 (C, H, W)."""
        # torchvision takes a second; MNIST does not need it
        from mnist_cnn.data.image_folder import VisibleImageFolder

        try:
            return VisibleImageFolder(Path(os.path.expanduser(self.root), split), self.read_picture)
        except OSError as e:
            allowed = f"a folder with {split}/CLASS/*.png ({str(e).splitlines()[0].strip()})"
            raise ValueError(must_be("data.root", allowed, self.root)) from None

    def read_picture(self, path: str) -> Tensor:
        size = (self.size, self.size) if self.size else None
        try:
            return as_image(path, 3 if self.color else 1, size)
        except OSError as e:
            raise ValueError(f"{path}: {e}") from None

    def load(self, split: str) -> tuple[Tensor, Tensor]:
        """Load the pictures and labels, shuffled in the same order on every machine."""
        pictures = self.pictures(split)
        if tuple(pictures.classes) != self.classes:
            allowed = f"a folder of the classes in {self.root}/train"
            raise ValueError(must_be(f"{self.root}/{split}", allowed, ", ".join(pictures.classes)))
        images, labels = zip(*(pictures[k] for k in mixed(len(pictures))), strict=True)
        if (n := len({x.shape for x in images})) > 1:
            raise ValueError(must_be("data.size", f"a number for pictures of {n} sizes", self.size))
        return torch.stack(images), torch.tensor(labels)

    def files(self, split: str) -> list[str]:
        """Return the paths of the pictures of `load`, relative to the folder."""
        found = [Path(path) for path, _ in self.pictures(split).samples]
        root = os.path.expanduser(self.root)
        return [found[k].relative_to(root).as_posix() for k in mixed(len(found))]


def mixed(n: int) -> np.ndarray:
    """Return a fixed permutation of n pictures, so that a validation slice has all classes."""
    return np.random.default_rng(0).permutation(n)


class CollectedDataModule(ImageDataModule):
    """Batches of a user's LightningDataModule, kept in memory for an evaluation.

    Networks see the original images; `splits` has them as uint8, for display.

    Args:
        data: data module with batches of images (B, C, H, W) and labels (B,). It may have
            `classes`, a list of class names by label.
    """

    def __init__(self, data: L.LightningDataModule):
        super().__init__()
        self.data, self.name = data, type(data).__name__
        self.batches: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self.paths: dict[str, list[str]] = {}
        self.is_scaled = False  # `splits` are not the images that the network gets

    def setup(self, stage: str | None = None) -> None:
        """Collect the images of validation (`fit`), of the test (`test`), or of both (None)."""
        self.data.prepare_data()
        for split in {"fit": ("val",), "test": ("test",), None: ("val", "test")}[stage]:
            self.data.setup("fit" if split == "val" else "test")
            try:
                loader = getattr(self.data, f"{split}_dataloader")()
                batches = [] if loader is None else list(loader)
                if not batches:  # no such images
                    continue
                images, labels = map(torch.cat, zip(*batches, strict=True))
                if images.ndim != 4:
                    raise ValueError(f"images {tuple(images.shape)}")
            except MisconfigurationException:  # no such loader
                continue
            except (TypeError, ValueError, RuntimeError) as e:
                allowed = "batches of images (B, C, H, W) and labels (B,)"
                raise ValueError(must_be(f"{split}_dataloader of {self.name}", allowed, e)) from e
            low, high = min(0.0, float(images.min())), max(1.0, float(images.max()))
            self.is_scaled |= (low, high) != (0, 1)
            shown = ((images.float() - low) / (high - low) * 255).round().to(torch.uint8)
            self.batches[split], self.splits[split] = batches, (shown, labels)
            # of torchvision's ImageFolder, unless the loader has another order
            samples = getattr(getattr(loader, "dataset", None), "samples", [])
            if samples and [label for _, label in samples] == labels.tolist():
                self.paths[split] = [str(path) for path, _ in samples]
            self.rows[split], self.shape = torch.arange(len(labels)), tuple(images.shape[1:])
        self.classes = class_names(self.data)
        self.add_classes(1 + max((int(y.max()) for _, y in self.splits.values()), default=-1))

    def add_classes(self, n: int) -> None:
        """Name classes without a name, up to n in all, by their numbers."""
        self.classes += tuple(map(str, range(len(self.classes), n)))

    def split_files(self, split: str) -> list[str] | None:
        return self.paths.get(split)

    def loader(self, split: str, batch_size: int, **options: Any) -> Any:
        """Return the batches of a split, in the size of its own loader."""
        return self.batches[split]
