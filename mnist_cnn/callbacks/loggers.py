"""The loggers of a run, and what they get of its results."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure
from omegaconf import DictConfig

from mnist_cnn.config.compose import plain
from mnist_cnn.config.instantiate import instantiate_as
from mnist_cnn.config.messages import must_be
from mnist_cnn.data.datamodule import ImageDataModule
from mnist_cnn.plots import evaluation
from mnist_cnn.pretrained import read_checkpoint
from mnist_cnn.runs.folder import flat
from mnist_cnn.runs.ranks import rank

# Lightning logs these parts of the configuration itself, as they are after seeing the data
OF_MODULE = ("model", "optimizer", "scheduler", "label_smoothing", "loss", "metrics")
RESULTS = ".results"  # the end of the name of the event file that `write_results` fills
IMAGES = 32  # drawn of the first batch
# of the configuration, in TensorBoard's table of runs
COMPARED = (
    *("model._target_", "model.channels", "model.hidden", "model.dropout", "optimizer._target_"),
    *("optimizer.lr", "optimizer.weight_decay", "scheduler._target_", "label_smoothing", "seed"),
    *("data.batch_size", "data.fold", "trainer.max_epochs"),
)


class TensorBoard(TensorBoardLogger):
    """Lightning's logger of the curves, without the test.

    TensorBoard shows each point that was ever written. The results lie in a file of their own,
    which is replaced as a whole when a run is extended.
    """

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        curves = {key: value for key, value in metrics.items() if not key.startswith("test/")}
        super().log_metrics(curves, step)

    def remove_results(self) -> None:
        for file in Path(self.log_dir).glob(f"events.out.tfevents.*{RESULTS}"):
            file.unlink()


def make_loggers(cfg: DictConfig, start: Path | str | None) -> list[Logger]:
    """The loggers that a configuration names, which have logged it.

    One whose `purge_step` is null drops what was logged after the checkpoint that a run starts
    from, since it is logged anew.

    Raises:
        ValueError: run_name leads out of the run's folder, or a logger is not installed.
    """
    if {"/", "\\"} & set(str(cfg.run_name)) or cfg.run_name == "..":
        raise ValueError(must_be("run_name", "a name without / and \\", cfg.run_name))
    values = {key: value for key, value in plain(cfg).items() if key not in OF_MODULE}
    loggers = []
    for name, node in (cfg.get("logger") or {}).items():
        if node is None:
            continue
        options = {}
        if start is not None and node.get("purge_step", 0) is None:
            options["purge_step"] = read_checkpoint(start)["epoch"] + 1
        logger = instantiate_as(Logger, node, key=f"logger.{name}", **options)
        logger.log_hyperparams(values)
        if isinstance(logger, TensorBoard) and rank() == 0 and start is not None:
            logger.remove_results()
        loggers.append(logger)
    return loggers


def write_results(trainer: L.Trainer, data: Any, outcome: Mapping[str, Any]) -> None:
    """Write the results of a trainer that has finished into its loggers, in the first process.

    Args:
        trainer: it has fitted to the data.
        data: the data module; there is no picture of a user's own.
        outcome: what results.json holds.
    """
    numbers = {f"results/{k}": v for k, v in outcome.items() if isinstance(v, int | float)}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            fill_tensorboard(logger, data, trainer.current_epoch + 1, outcome)
        elif isinstance(logger, MLFlowLogger | WandbLogger):
            logger.log_metrics(numbers)
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()


def first_batch(data: ImageDataModule) -> Figure:
    """The first images as training sees them."""
    x, y = (part[:IMAGES].cpu() for part in next(iter(data.train_dataloader())))
    labels = [data.classes[label] for label in y]
    title = f"first images of a batch: mean {x.mean():.2f}, std {x.std():.2f}"
    return evaluation.gallery(x[:, 0].numpy(), labels, title)


def fill_tensorboard(
    logger: TensorBoardLogger, data: Any, step: int, outcome: Mapping[str, Any]
) -> None:
    """Write a picture, hyper-parameters and results into a file beside that of the curves."""
    results = TensorBoardLogger(
        logger.log_dir, "", "", default_hp_metric=False, filename_suffix=RESULTS
    )
    if isinstance(data, ImageDataModule):
        results.experiment.add_figure("train/batch", first_batch(data), step)
    metrics = {f"best/{key}": outcome[key] for key in sorted(outcome) if key.startswith("val/")}
    metrics |= {key: outcome[key] for key in sorted(outcome) if key.startswith("test/")}
    values = flat(outcome["config"])
    # TensorBoard takes its columns from one of the runs, so each is always there
    compared = {key: values.get(key, "none") for key in COMPARED}
    results.log_hyperparams(compared, metrics, step)
    results.finalize("success")
