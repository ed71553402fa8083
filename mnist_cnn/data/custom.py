"""Data of a user: arrays in a file, pictures in a folder, or a LightningDataModule."""

import functools
import hashlib
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
        options: those of `ImageDataModule`.
    """

    def __init__(self, *, path: str, name: str = "arrays", **options: Any):
        super().__init__(**options)
        self.path, self.name = Path(path).expanduser(), name

    @functools.cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        try:
            # without pickle: no code of the file's is run
            with self.path.open("rb") as file, np.load(file) as arrays:
                return dict(arrays)
        except (OSError, ValueError, zipfile.BadZipFile) as e:
            reason = str(e).splitlines()[0]
            raise ValueError(must_be("data.path", f"an .npz file ({reason})", self.path)) from None

    @functools.cached_property
    def shape(self) -> tuple[int, int, int]:  # type: ignore[override]
        return tuple(self.load("train")[0].shape[1:])  # type: ignore[return-value]

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]
        if "classes" in self.arrays:
            return tuple(map(str, self.arrays["classes"]))
        return tuple(str(k) for k in range(int(self.load("train")[1].max()) + 1))

    def fingerprint(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def load(self, split: str) -> tuple[Tensor, Tensor]:
        for key in (f"x_{split}", f"y_{split}"):
            if key not in self.arrays:
                raise ValueError(must_be("data.path", f"a file with {key}", self.path))
        x, y = self.arrays[f"x_{split}"], self.arrays[f"y_{split}"]
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
        options: those of `ImageDataModule`.
    """

    def __init__(
        self,
        *,
        root: str,
        color: bool = True,
        size: int | None = None,
        name: str = "folder",
        **options: Any,
    ):
        super().__init__(**options)
        self.root, self.color, self.size = Path(root).expanduser(), color, size
        self.name = name

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]
        place = self.root / "train"
        found = sorted(p.name for p in place.iterdir() if p.is_dir()) if place.is_dir() else []
        if not found:
            raise ValueError(must_be("data.root", "a folder with train/CLASS/*.png", self.root))
        return tuple(found)

    @functools.cached_property
    def shape(self) -> tuple[int, int, int]:  # type: ignore[override]
        first = self.read_picture(self.files("train")[0][0])
        return tuple(first.shape)  # type: ignore[return-value]

    def fingerprint(self) -> str:
        """SHA-256 of the names, sizes and contents of all pictures."""
        digest = hashlib.sha256()
        for path in sorted(path for split in ("train", "test") for path, _ in self.files(split)):
            content = path.read_bytes()
            name = path.relative_to(self.root).as_posix()
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()

    def files(self, split: str) -> list[tuple[Path, int]]:
        """The pictures of a split in a mixed order that is the same everywhere, with labels."""
        found = [
            (path, label)
            for label, name in enumerate(self.classes)
            for path in sorted((self.root / split / name).glob("*"))
            if path.suffix.lower() in PICTURES
        ]
        if not found:
            allowed = f"a folder with pictures in {split}/CLASS"
            raise ValueError(must_be("data.root", allowed, self.root))
        # validation takes a slice: it must hold all classes
        order = np.random.default_rng(0).permutation(len(found))
        return [found[k] for k in order]

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
        images, labels = [], []
        for path, label in self.files(split):
            images.append(self.read_picture(path))
            labels.append(label)
            if images[-1].shape != images[0].shape:
                size = f"{images[-1].shape[2]}x{images[-1].shape[1]}"
                raise ValueError(f"data.size must be a number for pictures as {path}, of {size}")
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
        self.data, self.name = data, type(data).__name__
        self.batches: dict[str, list[tuple[Tensor, Tensor]]] = {}

    @property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]
        if names := class_names(self.data):
            return names
        greatest = max((int(labels.max()) for _, labels in self.splits.values()), default=-1)
        return tuple(map(str, range(greatest + 1)))

    @property
    def shape(self) -> tuple[int, int, int]:  # type: ignore[override]
        images, _ = next(iter(self.splits.values()))
        return tuple(images.shape[1:])  # type: ignore[return-value]

    def prepare_data(self) -> None:
        self.data.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Collects the images of validation (`fit`), of the test (`test`), or (None) of both."""
        for split, first in (("val", "fit"), ("test", "test")):
            if stage in (first, None):
                self.data.setup(first)
                self.collect_split(split)

    def collect_split(self, split: str) -> None:
        """Takes all batches of a split.

        Raises:
            ValueError: they are no pairs of images and labels.
        """
        try:
            batches = list(getattr(self.data, f"{split}_dataloader")())
        except MisconfigurationException:  # it has none
            return
        for batch in batches:
            if not (isinstance(batch, tuple | list) and len(batch) == 2 and batch[0].ndim == 4):
                allowed = "batches of images (B, C, H, W) and labels (B,)"
                what = [tuple(part.shape) for part in batch] if len(batch) == 2 else type(batch)
                raise ValueError(must_be(f"{split}_dataloader of {self.name}", allowed, what))
        if batches:
            images, labels = (torch.cat([batch[k] for batch in batches]) for k in (0, 1))
            low, high = min(0.0, float(images.min())), max(1.0, float(images.max()))
            shown = ((images.float() - low) / (high - low) * 255).round().to(torch.uint8)
            self.batches[split] = batches
            self.splits[split], self.rows[split] = (shown, labels), torch.arange(len(labels))

    def loader(self, split: str, batch_size: int, **options: Any) -> Any:
        """The batches of a split, of the size that its own loader gave them."""
        return self.batches[split]
