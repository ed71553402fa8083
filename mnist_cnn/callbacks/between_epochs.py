"""Base class of callbacks that act when an epoch is completely over."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from mnist_cnn.internals.lightning import resumed_mid_epoch


class BetweenEpochs(Callback):
    """Calls `epoch_done` when an epoch is completely over.

    By then its metrics are logged, early stopping has been checked and the schedule stepped;
    Lightning calls a callback's on_train_epoch_end before some of that. `trainer.current_epoch` is
    then the number of the epoch, counted from 1.
    """

    running = False  # in an epoch
    validated = False  # in this epoch

    def epoch_done(self, trainer: L.Trainer, module: Any) -> None:
        raise NotImplementedError

    def logged(self, trainer: L.Trainer) -> dict[str, float]:
        """Return the metrics logged in this epoch, without those of an earlier validation."""
        return {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name != "step" and (self.validated or not name.startswith("val"))
        }

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.validated = not trainer.sanity_checking

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.running = resumed_mid_epoch(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.running:
            self.epoch_done(trainer, pl_module)
        self.running, self.validated = True, False

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.running:
            self.epoch_done(trainer, pl_module)
        self.running = False
