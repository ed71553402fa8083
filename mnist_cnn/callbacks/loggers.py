"""The loggers of a run, and what they get of its results."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger, WandbLogger
from omegaconf import DictConfig

from mnist_cnn.config.compose import plain
from mnist_cnn.config.instantiate import instantiate_as
from mnist_cnn.pretrained import read_checkpoint


def make_loggers(
    cfg: DictConfig, start: Path | str | None, module: L.LightningModule
) -> list[Logger]:
    """The loggers that a configuration names, which have logged it; ValueError without its package.

    One whose `purge_step` is null drops what was logged after the checkpoint that a run starts
    from, since it is logged anew: curves, results and the test. A run that was killed before its
    first checkpoint has logged, too.
    """
    # Lightning logs the module's own itself, as they are after seeing the data
    values = {key: value for key, value in plain(cfg).items() if key not in module.hparams}
    loggers = []
    for name, node in (cfg.get("logger") or {}).items():
        if node is None:
            continue
        options: dict[str, Any] = {}
        if node.get("purge_step", 0) is None:
            options["purge_step"] = read_checkpoint(start)["epoch"] + 1 if start is not None else 0
        logger = instantiate_as(Logger, node, key=f"logger.{name}", **options)
        logger.log_hyperparams(values)
        loggers.append(logger)
    return loggers


def write_results(trainer: L.Trainer, outcome: Mapping[str, Any]) -> None:
    """Write what results.json holds into the loggers of a trainer, in the first process."""
    numbers = {f"results/{k}": v for k, v in outcome.items() if isinstance(v, int | float)}
    for logger in trainer.loggers:
        # a step that a longer run drops, as `purge_step` says
        logger.log_metrics(numbers, trainer.current_epoch + 1)
        logger.finalize("success")  # else TensorBoard may lose them as the process ends
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()
