"""The loggers of a run, and the results that they get."""

import math
from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, WandbLogger
from matplotlib.figure import Figure

from mnist_cnn.callbacks.history import step_of, validates_often
from mnist_cnn.callbacks.pictures import draw_test
from mnist_cnn.callbacks.tensorboard import TensorBoard, Value
from mnist_cnn.config.instantiate import instantiate_as
from mnist_cnn.runs.folder import flat
from mnist_cnn.runs.names import varied


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

    Args:
        start: content of that checkpoint; empty without one.
    """

    def __init__(self, start: Mapping[str, Any]):
        self.done = {key: start.get(key, 0) for key in ("epoch", "global_step")}
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
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoard):
                logger.drop_from(done + 1)


def figures_of_test(trainer: L.Trainer, module: L.LightningModule) -> dict[str, Figure]:
    """Draw the figures of a module's last test, by name, if a logger shows them.

    Every process calls it; the first one gets the figures.
    """
    shown = any(isinstance(logger, TensorBoard) for logger in trainer.loggers)
    return draw_test(trainer, module) if shown else {}


def write_results(
    trainer: L.Trainer, outcome: Mapping[str, Any], figures: Mapping[str, Figure]
) -> None:
    """Log the numbers of results.json with the loggers of a trainer, in the first process.

    Args:
        figures: of the test, by name.
    """
    numbers = {k: v for k, v in outcome.items() if isinstance(v, int | float)}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoard):
            metrics = compared(numbers, trainer, outcome["config"])
            logger.log_results(outcome, metrics, hyperparameters(outcome["config"]), figures)
        else:
            results = {f"results/{name}": value for name, value in numbers.items()}
            logger.log_metrics(results, step_of(trainer, ended=True))
        logger.finalize("success")  # else a logger may lose them when the process ends
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()


def compared(
    numbers: Mapping[str, float], trainer: L.Trainer, values: Mapping[str, Any]
) -> dict[str, float]:
    """Return the results that the runs of a sweep are compared by.

    They are the objective and what was logged in validation and in the test.
    """
    names = {values["objective"]["metric"], *trainer.callback_metrics}
    return {
        name: value
        for name, value in numbers.items()
        if (name in names or name.startswith("val/")) and math.isfinite(value)
    }


def hyperparameters(values: Mapping[str, Any]) -> dict[str, Value]:
    """Return the seed and the values of the swept keys of a job; {} for a run of no sweep.

    A list, or the file of a group, is text; null, which would make text of a column of numbers, is
    left out.
    """
    found = varied(values["run_dir"])
    if not found:
        return {}
    known = flat(values)
    chosen = {key: known.get(key, text) for key, text in {**found, "seed": ""}.items()}
    return {
        key: value if isinstance(value, bool | int | float | str) else str(value)
        for key, value in chosen.items()
        if value is not None
    }
