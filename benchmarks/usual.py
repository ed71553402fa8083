"""The usual Lightning and torchvision recipe, for comparison.

It is what tutorials write for this network: a DataLoader over torchvision's dataset, metric
objects, Adam at a constant rate, the weights of the last epoch. It has neither the plateau schedule
nor the best checkpoint of the article's recipe: what separates the two accuracies is all of that.
"""

import lzma
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
import torchmetrics
from lightning.pytorch.callbacks import RichProgressBar
from torch import Tensor, nn
from torchvision import datasets, transforms

from mnist_cnn.analysis import results
from mnist_cnn.config.compose import compose
from mnist_cnn.data import mnist

BATCH, EPOCH = 64, 750  # images of a step, steps of an epoch


class UsualModule(L.LightningModule):
    """A LightningModule with metric objects, as tutorials write it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(  # as it is usually written: ReLU, then pooling
            *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(1600, 128), nn.ReLU(), nn.Linear(128, 10)),
        )
        self.train_loss = torchmetrics.MeanMetric()
        self.train_acc = torchmetrics.classification.MulticlassAccuracy(10, average="micro")
        self.test_acc = torchmetrics.classification.MulticlassAccuracy(10, average="micro")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        logits = self.net(x)
        loss = F.cross_entropy(logits, y)
        self.train_loss(loss)
        self.train_acc(logits.argmax(1), y)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("train/acc", self.train_acc, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x, y = batch
        self.test_acc(self.net(x).argmax(1), y)
        self.log("test/acc", self.test_acc)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class Stopwatch(L.Callback):
    """Times training, each epoch from its first batch to its last."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.run_started = results.now()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        seconds, images = time.perf_counter() - self.started, trainer.num_training_batches * BATCH
        row = {"epoch": len(self.rows) + 1, "seconds": seconds, "images/s": images / seconds}
        self.rows.append(row)


def data_folder() -> Path:
    """The folder of MNIST's files as torchvision lays them out, of the copy in the package."""
    root = Path(compose(run_dir=".").data.root).expanduser()
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for file in mnist.BUNDLED.glob("*.xz"):
        (raw / file.stem).write_bytes(lzma.decompress(file.read_bytes()))
    return root


def train_usual(
    root: Path, folder: Path, *, epochs: int, batches: int = EPOCH, seed: int = 0, test: bool = True
) -> dict[str, Any]:
    """Trains by the usual Lightning and torchvision recipe, on 48,000 images, with Adam at 1e-3.

    Args:
        root: the folder of the data.
        folder: where TensorBoard's events go.
        batches: steps of an epoch.
        seed: of the split, the weights and the order of the images.
        test: look at the test images, once, when training ends.

    Returns:
        What a results.json would hold.
    """
    L.seed_everything(seed, verbose=False)
    transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    )
    images, unseen = (
        datasets.MNIST(str(root), train=train, transform=transform) for train in (True, False)
    )
    dataset, _ = torch.utils.data.random_split(images, [48_000, 12_000])
    loader = torch.utils.data.DataLoader(dataset, batch_size=BATCH, shuffle=True)
    watch, module = Stopwatch(), UsualModule()
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        limit_train_batches=batches,
        default_root_dir=folder,
        logger=L.pytorch.loggers.TensorBoardLogger(folder),
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[watch, RichProgressBar()],
    )
    trainer.fit(module, loader)
    tested = {}
    if test:
        trainer.test(module, torch.utils.data.DataLoader(unseen, batch_size=BATCH), verbose=False)
        hits = round(float(trainer.callback_metrics["test/acc"]) * len(unseen))  # it is float32
        tested["test/acc"] = hits / len(unseen)
    config = {"epochs": epochs, "batches": batches, "seed": seed}
    device = torch.device("cpu")
    return results.collect(watch, None, tested, module, device, config)
