"""Pruning of the trials of a search."""

import functools
import math
from pathlib import Path
from typing import Any

import lightning as L

from mnist_cnn.callbacks.between_epochs import BetweenEpochs
from mnist_cnn.callbacks.process_state import all_reduce_max
from mnist_cnn.internals.lightning import training_is_over
from mnist_cnn.runs.folder import Pruned


class Prune(BetweenEpochs):
    """Prunes a trial of a search, and reports each epoch's objective to the search's study.

    Args:
        trial: the folder of the trial, inside that of the search and named by the trial's number;
            with another name, as for a trial of several seeds, or outside a search nothing is
            reported or pruned.
        monitor: the objective, a logged metric.
        pruner: one of optuna.pruners.

    Raises:
        Pruned: at the end of an epoch that is not the last.
    """

    def __init__(self, *, trial: str, monitor: str, pruner: Any):
        self.search, name = Path(trial).absolute().parent, Path(trial).name
        self.number = int(name) if name.isdecimal() else None
        self.monitor, self.pruner = monitor, pruner

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.number is None:
            return
        from mnist_cnn.sweeps.search import STUDY, report, storage

        if not (self.search / STUDY).exists():
            self.number = None
            return
        self.report = functools.partial(report, storage(self.search), self.number)

    def epoch_done(self, trainer: L.Trainer, module: Any) -> None:
        value = self.logged(trainer).get(self.monitor, math.nan)
        if self.number is None or not math.isfinite(value):
            return
        epoch = trainer.current_epoch
        worse: int = False
        if trainer.is_global_zero:
            worse = self.report(epoch, value, self.pruner)
        (worse,) = all_reduce_max(trainer, worse)  # all processes stop, or none
        if worse and not training_is_over(trainer):
            raise Pruned(epoch, self.monitor, value)
