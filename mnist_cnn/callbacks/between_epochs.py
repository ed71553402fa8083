"""Base class of callbacks that act when an epoch is completely over."""

import math
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from mnist_cnn.config.messages import must_be
from mnist_cnn.internals.lightning import resumed_mid_epoch

Kind = TypeVar("Kind", bound=Callback)


def first_of(trainer: L.Trainer, kind: type[Kind]) -> Kind | None:
    """Return the Trainer's first callback of a class, None if there is none."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # untyped
    return next((each for each in callbacks if isinstance(each, kind)), None)


class BetweenEpochs(Callback):
    """Calls `epoch_done` when an epoch is completely over.

    By then its metrics are logged, early stopping has been checked and the schedule stepped;
    Lightning calls a callback's on_train_epoch_end before some of that. `trainer.current_epoch` is
    then the number of the epoch, counted from 1.
    """

    running = False  # in an epoch
    validated = False  # in this epoch
    before: Mapping[str, Tensor] = {}  # all metrics when it began

    def epoch_done(self, trainer: L.Trainer, module: Any) -> None:
        raise NotImplementedError

    def logged(self, trainer: L.Trainer) -> dict[str, float]:
        """Return the metrics logged in this epoch: Lightning also keeps those of earlier ones."""
        metrics, earlier = trainer.callback_metrics, self.earlier(trainer)
        names = [name for name in metrics if name != "step" and name not in earlier]
        return {name: float(metrics[name]) for name in names}

    def earlier(self, trainer: L.Trainer) -> list[str]:
        """Return the names of the metrics that were not logged in this epoch.

        A metric that is logged again is a new tensor, even if its value is the same.
        """
        now = trainer.callback_metrics
        return [name for name, value in now.items() if value is self.before.get(name)]

    def resume_epoch(
        self, trainer: L.Trainer, *, validated: bool, earlier: Collection[str]
    ) -> None:
        """Restore what is known of an epoch that is resumed, after its metrics are restored."""
        self.validated = validated
        self.before = {name: trainer.callback_metrics[name] for name in earlier}

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.validated = not trainer.sanity_checking

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.running = resumed_mid_epoch(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.running:
            self.epoch_done(trainer, pl_module)
        self.running, self.validated = True, False
        self.before = dict(trainer.callback_metrics)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.running:
            self.epoch_done(trainer, pl_module)
        self.running = False


def check_epochs_end_validated(trainer: L.Trainer) -> None:
    """Raise ValueError if there are epochs that train on after their last validation."""
    batches, interval = trainer.num_training_batches, trainer.val_check_batch
    if interval is None or math.isinf(interval) or math.isinf(batches):
        return  # data without a length may end anywhere
    if max(batches, interval) % min(batches, interval):
        allowed = f"a divisor of an epoch's {batches} batches, to validate what is checkpointed"
        raise ValueError(must_be("trainer.val_check_interval", allowed, trainer.val_check_interval))
