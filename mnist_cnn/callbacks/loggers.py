"""The loggers of a run, and the results that they get."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from mnist_cnn.callbacks.history import step_of, validates_often
from mnist_cnn.config.instantiate import instantiate_as
from mnist_cnn.weights.files import read_checkpoint


def make_loggers(
    nodes: Mapping[str, Any] | None, values: Mapping[str, Any], module: L.LightningModule
) -> list[Logger]:
    """Make the loggers of a run, and log its configuration.

    Args:
        nodes: `_target_` and arguments of each logger, by name; None for no logger.
        values: the resolved configuration.
        module: the module that is trained, whose hyperparameters Lightning logs.

    Raises:
        ValueError: the package of a logger is not installed.
    """
    # the module has its hyperparameters as they are after seeing the data
    values = {key: value for key, value in values.items() if key not in module.hparams}
    loggers = []
    for name, node in (nodes or {}).items():
        if node is None:
            continue
        logger = instantiate_as(Logger, node, key=f"logger.{name}")
        logger.log_hyperparams(values)
        loggers.append(logger)
    return loggers


class DropLater(Callback):
    """Drops from TensorBoard what was logged after the checkpoint that a run starts from.

    Curves, results and the test are logged again, also by a run that was killed before its first
    checkpoint. A command that fails while the checkpoint is restored drops nothing.
    """

    def __init__(self, start: Path | str | None):
        content = read_checkpoint(start) if start is not None else {}
        self.done = {key: content.get(key, 0) for key in ("epoch", "global_step")}
        self.dropped = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.drop(trainer)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.drop(trainer)  # there was nothing left to train

    def drop(self, trainer: L.Trainer) -> None:
        if self.dropped or not trainer.is_global_zero:
            return
        self.dropped = True
        done = self.done["global_step" if validates_often(trainer) else "epoch"]
        restart = Event(step=done + 1, session_log=SessionLog(status=SessionLog.START))
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.file_writer.add_event(restart)


def write_results(trainer: L.Trainer, outcome: Mapping[str, Any]) -> None:
    """Log the numbers of results.json with the loggers of a trainer, in the first process."""
    numbers = {f"results/{k}": v for k, v in outcome.items() if isinstance(v, int | float)}
    for logger in trainer.loggers:
        # a step that is dropped when the run is extended
        logger.log_metrics(numbers, step_of(trainer, ended=True))
        logger.finalize("success")  # else TensorBoard may lose them when the process ends
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()
