"""The images of a user's own LightningDataModule, as an evaluation needs them."""

from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from mnist_cnn.config.messages import must_be
from mnist_cnn.data.datamodule import ImageDataModule, class_names


class CollectedDataModule(ImageDataModule):
    """What the loaders of another data module hand out, held in memory.

    Networks see the images as they come; `splits` has them in 256 steps, to be looked at.

    Args:
        own: gives batches of images (B, C, H, W) and labels (B,). It may have `classes`, a list of
            their names by label.
    """

    def __init__(self, own: L.LightningDataModule):
        super().__init__()
        self.own, self.name = own, type(own).__name__
        self.batches: dict[str, list[tuple[Tensor, Tensor]]] = {}

    @property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]
        if names := class_names(self.own):
            return names
        greatest = max((int(labels.max()) for _, labels in self.splits.values()), default=-1)
        return tuple(map(str, range(greatest + 1)))

    @property
    def shape(self) -> tuple[int, int, int]:  # type: ignore[override]
        images, _ = next(iter(self.splits.values()))
        return tuple(images.shape[1:])  # type: ignore[return-value]

    def prepare_data(self) -> None:
        self.own.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Collects the images of validation (`fit`), of the test (`test`), or (None) of both."""
        for split, first in (("val", "fit"), ("test", "test")):
            if stage in (first, None):
                self.own.setup(first)
                self.collect(split)

    def collect(self, split: str) -> None:
        """Takes all batches of a split.

        Raises:
            ValueError: they are no pairs of images and labels.
        """
        try:
            batches = list(getattr(self.own, f"{split}_dataloader")())
        except MisconfigurationException:  # it has none
            return
        if not batches:
            return
        for batch in batches:
            if not (isinstance(batch, tuple | list) and len(batch) == 2 and batch[0].ndim == 4):
                allowed = "batches of images (B, C, H, W) and labels (B,)"
                what = [tuple(part.shape) for part in batch] if len(batch) == 2 else type(batch)
                raise ValueError(must_be(f"{split}_dataloader of {self.name}", allowed, what))
        images, labels = (torch.cat([batch[k] for batch in batches]) for k in (0, 1))
        low, high = min(0.0, float(images.min())), max(1.0, float(images.max()))
        shown = ((images.float() - low) / (high - low) * 255).round().to(torch.uint8)
        self.batches[split] = batches
        self.splits[split], self.rows[split] = (shown, labels), torch.arange(len(labels))

    def loader(self, split: str, batch_size: int, **options: Any) -> Any:
        """The batches of a split, of the size that its own loader gave them."""
        return self.batches[split]
