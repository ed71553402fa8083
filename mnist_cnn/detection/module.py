"""CharacterDetector, the LightningModule that learns to find characters on synthetic pages."""

import copy
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from mnist_cnn import optim
from mnist_cnn.config.instantiate import class_name
from mnist_cnn.config.messages import must_be
from mnist_cnn.data.pages import Batch, sources
from mnist_cnn.detection.calibration import calibrate
from mnist_cnn.detection.decode import characters
from mnist_cnn.detection.loss import detection_loss
from mnist_cnn.detection.network import Detector
from mnist_cnn.detection.scores import marks_of, page_scores
from mnist_cnn.metrics import sum_over_ranks
from mnist_cnn.weights.files import load_into, write_weights
from mnist_cnn.weights.networks import build_network

CONFIDENT = 0.5  # score above which a character counts as found


class CharacterDetector(L.LightningModule):
    """Detector of characters on pages, with class and box of each, and of ruled lines.

    Logs train/loss and, for validation pages, which are by other writers and fonts, val/loss and
    the metrics of `scores.page_scores`: val/precision, val/recall, val/error, val/rows, val/edits.

    Args:
        model: `_target_`, `network.Detector` or a class derived from it, and its arguments.
        optimizer: `_target_`, an Optimizer, and its arguments after the parameters.
        scheduler: `_target_`, an LRScheduler stepped after each training step, and its arguments;
            without `_target_` the learning rate is constant. Its `interval` is step.
    """

    def __init__(
        self,
        *,
        model: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        scheduler: Mapping[str, Any],
    ):
        super().__init__()
        model, optimizer, scheduler = dict(model), dict(optimizer), dict(scheduler)
        self.save_hyperparameters()
        if class_name(scheduler) == "ReduceLROnPlateau":
            wanted = "stepped after each training step with CharacterDetector"
            raise ValueError(must_be("scheduler._target_", wanted, scheduler["_target_"]))
        if scheduler.get("interval", "step") != "step":
            wanted = "step with CharacterDetector, as its schedules are"
            raise ValueError(must_be("scheduler.interval", wanted, scheduler["interval"]))
        net: Any = build_network(model)
        if not isinstance(net, Detector):  # the reader knows its maps, and calibrates its scores
            wanted = "mnist_cnn.detection.network.Detector or a class derived from it"
            raise ValueError(must_be("model._target_", wanted, model["_target_"]))
        self.net: Any = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def setup(self, stage: str) -> None:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]  # untyped
        if data is not None and not (hasattr(data, "fold") and hasattr(data, "val_pages")):
            wanted = "PagesDataModule, or have fold and val_pages, which calibrate the scores"
            raise ValueError(must_be("data._target_", wanted, type(data).__name__))

    def forward(self, ink: Tensor) -> Tensor:
        """Return maps (B, 32, H / 4, W / 4) of ink (B, 1, H, W) in [0, 1]."""
        return self.net(ink)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        ink, rules, marks = batch
        parts = detection_loss(self(prepared(ink)), rules.float(), marks)
        loss = torch.stack(list(parts.values())).sum()
        of_epoch: dict[str, Any] = {"on_step": False, "on_epoch": True, "sync_dist": True}
        self.log("train/loss", loss, batch_size=len(ink), **of_epoch)
        return loss

    def on_validation_epoch_start(self) -> None:
        self.totals: dict[str, tuple[float, int]] = {}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        ink, rules, marks = batch
        with torch.autocast(self.device.type, enabled=False):
            maps = self(prepared(ink))
        parts = detection_loss(maps, rules.float(), marks)
        self.count("loss", len(ink) * float(torch.stack(list(parts.values())).sum()), len(ink))
        for one, rows in zip(maps, marks, strict=True):
            found = [each for each in characters(one) if each.score > CONFIDENT]
            for name, (part, n) in page_scores(found, marks_of(rows)).items():
                self.count(name, part, n)

    def count(self, name: str, part: float, n: int) -> None:
        """Add to a validation metric's sum and divisor: a page may have one and not the other."""
        before = self.totals.get(name, (0.0, 0))
        self.totals[name] = before[0] + part, before[1] + n

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the pages on all ranks."""
        totals = torch.tensor(list(self.totals.values()), dtype=torch.float64)
        totals = sum_over_ranks(totals, self.trainer)
        for name, (part, n) in zip(self.totals, totals.tolist(), strict=True):
            if n:
                self.log(f"val/{name}", torch.tensor(part / n, dtype=torch.float64))

    def on_train_epoch_end(self) -> None:
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"])

    def load_weights(self, path: Path | str, strict: bool = True) -> list[str]:
        """Load the network's weights from a file, see `DigitClassifier.load_weights`."""
        return load_into(self.net, path, strict)

    def save_weights(self, path: Path | str, about: Mapping[str, Any] | None = None) -> None:
        """Write the weights, calibrated on `val_pages` pages and their strips by other writers."""
        net = copy.deepcopy(self.net).float().cpu().eval()
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]  # untyped
        calibrate(net, sources("val", data.fold), data.val_pages)
        write_weights(net, {"model": self.hparams["model"], **(about or {})}, Path(path))

    def configure_optimizers(self) -> Any:
        optimizer = optim.make_optimizer(self.hparams["optimizer"], list(self.parameters()))
        if class_name(self.hparams["scheduler"]) is None:
            return optimizer
        length = partial(optim.training_length, self.trainer)
        schedule = optim.make_schedule(self.hparams["scheduler"], optimizer, length)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        optim.step_schedule(scheduler, metric)


def prepared(ink: Tensor) -> Tensor:
    """Convert uint8 pixels (B, 1, H, W) to ink in [0, 1]."""
    return (ink.float() / 255).contiguous(memory_format=torch.channels_last)
