"""The results of a finished run for its loggers; histograms of weights."""

from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure

from mnist_cnn.callbacks.between_epochs import BetweenEpochs
from mnist_cnn.callbacks.loggers import RESULTS
from mnist_cnn.data.datamodule import ImageDataModule
from mnist_cnn.plots import evaluation
from mnist_cnn.runs.folder import flat

IMAGES = 32  # drawn of the first batch
# of the configuration, in TensorBoard's table of runs
COMPARED = (
    *("model._target_", "model.channels", "model.hidden", "model.dropout", "optimizer._target_"),
    *("optimizer.lr", "optimizer.weight_decay", "scheduler._target_", "label_smoothing", "seed"),
    *("data.batch_size", "data.fold", "trainer.max_epochs"),
)


class Histograms(BetweenEpochs):
    """The distribution of each weight after every epoch, for TensorBoard: 20 ms an epoch."""

    order = -4

    def epoch_done(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
                for name, weights in module.named_parameters():
                    tag = name.removeprefix("net.").replace(".", "/")
                    # at the epoch, as the curves are: a resumed run drops what lies after it
                    logger.experiment.add_histogram(tag, weights.detach(), trainer.current_epoch)


def write_results(trainer: L.Trainer, data: Any, outcome: Mapping[str, Any]) -> None:
    """Write the results of a trainer that has finished into its loggers.

    Args:
        trainer: it has fitted to the data.
        data: the data module; there is no picture of a user's own.
        outcome: what results.json holds.
    """
    if not trainer.is_global_zero:
        return
    numbers = {f"results/{k}": v for k, v in outcome.items() if isinstance(v, int | float)}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            figure = first_batch(data) if isinstance(data, ImageDataModule) else None
            fill_tensorboard(logger, figure, trainer.current_epoch + 1, outcome)
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
    logger: TensorBoardLogger, figure: Figure | None, step: int, outcome: Mapping[str, Any]
) -> None:
    """Write the picture, hyper-parameters and results into a file beside that of the curves."""
    results = TensorBoardLogger(
        logger.log_dir, "", "", default_hp_metric=False, filename_suffix=RESULTS
    )
    if figure is not None:
        results.experiment.add_figure("train/batch", figure, step)
    metrics = {f"best/{key}": outcome[key] for key in sorted(outcome) if key.startswith("val/")}
    metrics |= {key: outcome[key] for key in sorted(outcome) if key.startswith("test/")}
    values = flat(outcome["config"])
    # TensorBoard takes its columns from one of the runs, so each is always there
    compared = {key: values.get(key, "none") for key in COMPARED}
    results.log_hyperparams(compared, metrics, step)
    results.finalize("success")
