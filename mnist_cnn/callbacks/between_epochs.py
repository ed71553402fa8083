"""A callback that acts when an epoch is over altogether, and the order in which callbacks act."""

from collections.abc import Iterable
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

    order = 0  # among a trainer's callbacks, see `in_order`
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


def in_order(callbacks: Iterable[Callback]) -> list[Callback]:
    """Callbacks in the order in which they act, whatever the order in which they were given.

    NaNGuard (-5) ends a run before anything is shown or written of the epoch; ProgressBar -3;
    History (-2) starts the clock of the next epoch when these are done; Checkpoint (-1) comes
    before other checkpoint callbacks, which Lightning calls after all others; those of Lightning
    and the user 0, in the order given; Prune (1) ends a run when the history has the epoch.
    """
    return sorted(callbacks, key=lambda callback: getattr(callback, "order", 0))
