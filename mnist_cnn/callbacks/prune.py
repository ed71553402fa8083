"""Prunes a trial of a search."""

import math
from pathlib import Path
from typing import Any

import lightning as L

from mnist_cnn.callbacks.between_epochs import BetweenEpochs
from mnist_cnn.callbacks.checkpoint import agree
from mnist_cnn.internals.lightning import training_is_over
from mnist_cnn.runs.folder import Pruned


class Prune(BetweenEpochs):
    """Prunes a trial of a search, and reports each epoch's objective to the search's study.

    Args:
        sweep: the folder of the search.
        trial: the number of the trial; None: nothing is reported or pruned.
        monitor: the objective, a logged metric.
        pruner: one of optuna.pruners.

    Raises:
        Pruned: from fitting, at the end of an epoch that is not the last.
    """

    order = 1

    def __init__(self, *, sweep: str, trial: int | None, monitor: str, pruner: Any):
        self.sweep, self.number = Path(sweep), trial
        self.monitor, self.pruner = monitor, pruner

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.number is None:
            return
        import optuna

        from mnist_cnn.sweeps.study import NAME, storage

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = optuna.load_study(study_name=NAME, storage=storage(self.sweep), sampler=None)
        self.storage = optuna.storages.get_storage(storage(self.sweep))
        study = self.storage.get_study_id_from_name(NAME)
        self.id = self.storage.get_trial_id_from_study_id_trial_number(study, self.number)

    def epoch_done(self, trainer: L.Trainer, module: Any) -> None:
        value = module.logged_metrics().get(self.monitor, math.nan)
        if self.number is None or not math.isfinite(value):
            return
        epoch = trainer.current_epoch
        worse: int = False
        if trainer.is_global_zero:
            self.storage.set_trial_intermediate_value(self.id, epoch, value)
            worse = self.pruner.prune(self.study, self.storage.get_trial(self.id))
        (worse,) = agree(trainer, worse)  # all processes end, or none
        if worse and not training_is_over(trainer):
            raise Pruned(epoch, self.monitor, value)
