"""A callback that acts when an epoch is over altogether."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from mnist_cnn.internals.lightning import resumed_mid_epoch


class BetweenEpochs(Callback):
    """Calls `epoch_done` when an epoch is over altogether.

    Only then are its metrics logged, early stopping consulted and the schedule stepped: Lightning
    calls on_train_epoch_end of a callback before some of that. `trainer.current_epoch` is then the
    number of the epoch, counted from 1.
    """

    running = False  # in an epoch

    def epoch_done(self, trainer: L.Trainer, module: Any) -> None:
        raise NotImplementedError

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.running = resumed_mid_epoch(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.running:
            self.epoch_done(trainer, pl_module)
        self.running = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.running:
            self.epoch_done(trainer, pl_module)
        self.running = False
