"""The results of a finished run for its loggers, pictures for TensorBoard; weights' histograms."""

import itertools
from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure

from mnist_cnn.analysis import scores
from mnist_cnn.callbacks.between_epochs import BetweenEpochs
from mnist_cnn.callbacks.loggers import RESULTS
from mnist_cnn.data.datamodule import ImageDataModule
from mnist_cnn.module import DigitClassifier
from mnist_cnn.plots import evaluation
from mnist_cnn.runs.folder import flat

IMAGES, MISTAKES = 32, 24  # drawn of the first batch and of the mistakes
JUDGED = 4000  # validation images that are read again for the pictures, in 0.4 s

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


def write_results(
    trainer: L.Trainer, module: DigitClassifier, data: Any, outcome: Mapping[str, Any]
) -> None:
    """Write the results of a trainer that has finished into its loggers.

    Args:
        trainer: it has fitted the module to the data.
        module: with the weights that were kept.
        data: the data module that it was trained on; there are no pictures of a user's own.
        outcome: what results.json holds.
    """
    if not trainer.is_global_zero:
        return
    numbers = {f"results/{k}": v for k, v in outcome.items() if isinstance(v, int | float)}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            drawn = figures(module, data) if isinstance(data, ImageDataModule) else {}
            fill_tensorboard(logger, drawn, trainer.current_epoch + 1, outcome)
        elif isinstance(logger, MLFlowLogger | WandbLogger):
            logger.log_metrics(numbers)
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()


def figures(module: DigitClassifier, data: ImageDataModule) -> dict[str, Figure]:
    """Images as training sees them, and how the kept weights read the first validation images.

    The mistakes on the test images are left to `evaluate`, so that nobody tunes by them in passing.
    """
    x, y = (part[:IMAGES].cpu() for part in next(iter(data.train_dataloader())))
    labels = [data.classes[label] for label in y]
    title = f"first images of a batch: mean {x.mean():.2f}, std {x.std():.2f}"
    drawn = {"train/batch": evaluation.gallery(x[:, 0].numpy(), labels, title)}
    if "val" not in data.splits:
        return drawn
    loader = data.loader("val", data.eval_batch_size, rank=0, world_size=1)
    batches = itertools.islice(loader, -(-JUDGED // data.eval_batch_size))
    module.eval()
    (predictions,) = scores.predict_batches([module], batches, module.device)
    matrix = scores.confusion_matrix(predictions).numpy()
    wrong = scores.most_confident_mistakes(predictions)
    images = data.splits["val"][0][wrong[:MISTAKES], 0].cpu().numpy()
    listed = scores.list_mistakes(predictions, data.rows["val"], data.classes, MISTAKES)
    seen = f"the first {matrix.sum():,} validation images of {data.name}, {len(wrong):,} wrong"
    drawn["val/confusion"] = evaluation.confusion(matrix, data.classes, f"kept weights on {seen}")
    drawn["val/mistakes"] = evaluation.mistakes(
        images, listed, f"most confident mistakes on {seen}"
    )
    return drawn


def fill_tensorboard(
    logger: TensorBoardLogger, drawn: Mapping[str, Figure], step: int, outcome: Mapping[str, Any]
) -> None:
    """Write pictures, hyper-parameters and results into a file beside that of the curves."""
    results = TensorBoardLogger(
        logger.log_dir, "", "", default_hp_metric=False, filename_suffix=RESULTS
    )
    for name, figure in drawn.items():
        results.experiment.add_figure(name, figure, step)
    metrics = {f"best/{key}": outcome[key] for key in sorted(outcome) if key.startswith("val/")}
    metrics |= {key: outcome[key] for key in sorted(outcome) if key.startswith("test/")}
    values = flat(outcome["config"])
    # TensorBoard takes its columns from one of the runs, so each is always there
    compared = {key: values.get(key, "none") for key in COMPARED}
    results.log_hyperparams(compared, metrics, step)
    results.finalize("success")
