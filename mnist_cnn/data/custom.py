"""Data of a user: arrays in a file, pictures in a folder, or a LightningDataModule."""

import functools
import zipfile
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from PIL import Image
from torch import Tensor

from mnist_cnn.config.messages import must_be
from mnist_cnn.data.datamodule import ImageDataModule, class_names

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


class ArraysDataModule(ImageDataModule):
    """Images of an .npz file, as `np.savez(path, x_train=..., y_train=..., ...)` writes it.

    x_train and x_test are uint8 (N, H, W), (N, C, H, W) or (N, H, W, C), y_train and y_test whole
    numbers (N,) from 0, and `classes`, where it is there, the names by label.

    Args:
        path: the file.
        name: of the set, in tables and figures.
        fingerprint: SHA-256 of the files, for the record of a run.
        options: those of `ImageDataModule`.
    """

    def __init__(
        self, *, path: str, name: str = "arrays", fingerprint: str | None = None, **options: Any
    ):
        super().__init__(**options)
        self.path, self.name = path, name

    @functools.cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        try:
            # without pickle: no code of the file's is run
            with Path(self.path).expanduser().open("rb") as file, np.load(file) as arrays:
                return dict(arrays)
        except (OSError, ValueError, zipfile.BadZipFile) as e:
            reason = str(e).splitlines()[0]
            raise ValueError(must_be("data.path", f"an .npz file ({reason})", self.path)) from None

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]  # read from the file when asked
        return tuple(self.load("train")[0].shape[1:])

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]  # as above
        names = self.arrays.get("classes", range(int(self.load("train")[1].max()) + 1))
        return tuple(map(str, names))

    def load(self, split: str) -> tuple[Tensor, Tensor]:
        try:
            x, y = (self.arrays[f"{part}_{split}"] for part in "xy")
        except KeyError as e:
            raise ValueError(must_be("data.path", f"a file with {e.args[0]}", self.path)) from None
        if x.dtype != np.uint8 or x.ndim not in (3, 4) or not x.size:
            what = "uint8 (N, H, W), (N, C, H, W) or (N, H, W, C)"
            raise ValueError(must_be(f"x_{split}", what, f"{x.dtype} {x.shape}"))
        if y.shape != x.shape[:1] or y.dtype.kind not in "iu" or y.min() < 0:
            what = f"whole numbers >= 0, ({len(x)},)"
            raise ValueError(must_be(f"y_{split}", what, f"{y.dtype} {y.shape}"))
        if x.ndim == 3:
            x = x[:, None]
        elif x.shape[-1] in (1, 3, 4):
            x = np.moveaxis(x, -1, 1)
        return torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(y.astype(np.int64))


class FolderDataModule(ImageDataModule):
    """Pictures by class: ROOT/train/CLASS/*.png and ROOT/test/CLASS/*.png.

    Args:
        root: the folder.
        color: three channels; else one.
        size: the pictures are scaled to size x size; None: they must all be of one size.
        name: of the set, in tables and figures.
        fingerprint: SHA-256 of the files, for the record of a run.
        options: those of `ImageDataModule`.
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
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]  # the folders when asked
        return tuple(dict.fromkeys(path.parent.name for path in self.list_pictures("train")))

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]  # of the first picture
        return tuple(self.read_picture(self.list_pictures("train")[0]).shape)

    def list_pictures(self, split: str) -> list[Path]:
        """The pictures of a split, class by class; ValueError where there are none."""
        every = sorted(Path(self.root).expanduser().glob(f"{split}/*/*"))
        found = [path for path in every if path.suffix.lower() in PICTURES]
        if not found:
            allowed = f"a folder with {split}/CLASS/*.png"
            raise ValueError(must_be("data.root", allowed, self.root))
        return found

    def read_picture(self, path: Path) -> Tensor:
        """The pixels uint8 (C, H, W) of a file."""
        try:
            with Image.open(path) as file:
                picture = file.convert("RGB" if self.color else "L")
        except OSError as e:
            raise ValueError(f"{path}: {e}") from None
        if self.size:
            picture = picture.resize((self.size, self.size), Image.Resampling.BILINEAR)
        pixels = np.array(picture).reshape(picture.height, picture.width, -1)
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def load(self, split: str) -> tuple[Tensor, Tensor]:
        """The pictures in a mixed order that is the same everywhere, with their labels."""
        paths = self.list_pictures(split)
        # validation takes a slice: it must hold all classes
        order = np.random.default_rng(0).permutation(len(paths))
        images, labels = [], []
        for path in (paths[k] for k in order):
            images.append(self.read_picture(path))
            if images[-1].shape != images[0].shape:
                size = f"{images[-1].shape[2]}x{images[-1].shape[1]}"
                raise ValueError(f"data.size must be a number for pictures as {path}, of {size}")
            if path.parent.name not in self.classes:
                raise ValueError(
                    must_be(str(path), f"of a class in {self.root}/train", path.parent.name)
                )
            labels.append(self.classes.index(path.parent.name))
        return torch.stack(images), torch.tensor(labels)


class CollectedDataModule(ImageDataModule):
    """Batches of a user's LightningDataModule, held in memory, as an evaluation needs them.

    Networks see the images as they come; `splits` has them in 256 steps, to be looked at.

    Args:
        data: gives batches of images (B, C, H, W) and labels (B,). It may have `classes`, a list of
            their names by label.
    """

    def __init__(self, data: L.LightningDataModule):
        super().__init__()
        self.data, self.name, self.classes = data, type(data).__name__, class_names(data)
        self.batches: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def prepare_data(self) -> None:
        self.data.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Collects the images of validation (`fit`), of the test (`test`), or (None) of both.

        Raises:
            ValueError: a batch is no pair of images and labels.
        """
        for split in {"fit": ("val",), "test": ("test",), None: ("val", "test")}[stage]:
            self.data.setup("fit" if split == "val" else "test")
            try:
                batches = list(getattr(self.data, f"{split}_dataloader")())
            except MisconfigurationException:  # it has none
                continue
            for batch in batches:
                if not (isinstance(batch, tuple | list) and len(batch) == 2 and batch[0].ndim == 4):
                    allowed = "batches of images (B, C, H, W) and labels (B,)"
                    what = [tuple(part.shape) for part in batch] if len(batch) == 2 else type(batch)
                    raise ValueError(must_be(f"{split}_dataloader of {self.name}", allowed, what))
            if batches:
                self.keep_batches(split, batches)

    def keep_batches(self, split: str, batches: list[tuple[Tensor, Tensor]]) -> None:
        """Takes the batches of a split."""
        images, labels = (torch.cat([batch[k] for batch in batches]) for k in (0, 1))
        low, high = min(0.0, float(images.min())), max(1.0, float(images.max()))
        shown = ((images.float() - low) / (high - low) * 255).round().to(torch.uint8)
        self.batches[split], self.shape = batches, tuple(images.shape[1:])
        self.splits[split], self.rows[split] = (shown, labels), torch.arange(len(labels))
        if not class_names(self.data):
            greatest = max(int(y.max()) for _, y in self.splits.values())
            self.classes = tuple(map(str, range(greatest + 1)))

    def loader(self, split: str, batch_size: int, **options: Any) -> Any:
        """The batches of a split, of the size that its own loader gave them."""
        return self.batches[split]
