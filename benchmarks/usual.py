"""The usual Lightning and torchvision recipe, for comparison.

It follows tutorials for this network: a DataLoader over torchvision's dataset, metric objects, Adam
with a constant learning rate, the weights of the last epoch. Its accuracy is lower for want of the
plateau schedule and the best checkpoint of templates and of the article.
"""

import lzma
import types
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
import torchmetrics
from lightning.pytorch.callbacks import RichProgressBar, Timer
from torch import Tensor, nn
from torchvision import datasets, transforms

from mnist_cnn.analysis import results
from mnist_cnn.data import mnist

BATCH, EPOCH = 64, 750  # images per step, steps per epoch


class UsualModule(L.LightningModule):
    """A LightningModule with metric objects, as tutorials write it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(  # in the usual order: ReLU, then pooling
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


def dataset(folder: Path, train: bool) -> datasets.MNIST:
    """Return torchvision's MNIST, unpacked from the package into a folder."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for file in mnist.BUNDLED.glob("*.xz"):
        (raw / file.stem).write_bytes(lzma.decompress(file.read_bytes()))
    steps = [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    return datasets.MNIST(str(folder), train=train, transform=transforms.Compose(steps))


def train_usual(
    folder: Path, *, epochs: int, batches: int = EPOCH, seed: int = 0, test: bool = True
) -> dict[str, Any]:
    """Train on 48,000 images, and return the content of a results.json.

    Args:
        folder: for the data and TensorBoard's events.
        batches: steps per epoch.
        test: evaluate on the test images once, after training.
    """
    started = results.now()
    L.seed_everything(seed, verbose=False)
    images, _ = torch.utils.data.random_split(dataset(folder, train=True), [48_000, 12_000])
    timer, module = Timer(), UsualModule()
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        limit_train_batches=batches,
        logger=L.pytorch.loggers.TensorBoardLogger(folder),
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[timer, RichProgressBar()],
    )
    trainer.fit(module, torch.utils.data.DataLoader(images, batch_size=BATCH, shuffle=True))
    seconds, tested = timer.time_elapsed("train"), {}
    if test:
        unseen = dataset(folder, train=False)
        loader = torch.utils.data.DataLoader(unseen, batch_size=BATCH)
        (outcome,) = trainer.test(module, loader, verbose=False)
        tested["test/acc"] = round(outcome["test/acc"], 4)  # exact for 10,000 images: it is float32
        with torch.inference_mode():
            predicted = torch.cat([module.net(x).argmax(1) for x, _ in loader])
        rows = torch.arange(len(predicted))
        for name, hits in mnist.hits_by_labels(predicted, unseen.targets, rows).items():
            tested[f"test/acc_{name}"] = int(hits.sum()) / len(hits)
    row = {"epoch": epochs, "seconds": seconds, "images/s": epochs * batches * BATCH / seconds}
    history = types.SimpleNamespace(rows=[row], run_started=started)
    config = {"epochs": epochs, "batches": batches, "seed": seed}
    return results.collect(history, None, tested, module, torch.device("cpu"), config)
