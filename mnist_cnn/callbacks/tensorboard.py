"""Pictures and results of a finished run for TensorBoard, W&B and MLflow; histograms of weights."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mnist_cnn.analysis import scores
from mnist_cnn.callbacks.between_epochs import BetweenEpochs
from mnist_cnn.callbacks.loggers import RESULTS
from mnist_cnn.callbacks.nan import check_finite
from mnist_cnn.config.instantiate import class_name
from mnist_cnn.data.datamodule import ImageDataModule
from mnist_cnn.module import DigitClassifier
from mnist_cnn.plots import evaluation
from mnist_cnn.runs.folder import BEST

DPI = 80
IMAGES, MISTAKES = 32, 24  # drawn of the first batch and of the mistakes
JUDGED = 4000  # validation images that are read again for the pictures, in 0.4 s

# what TensorBoard's table of runs has of their configurations
PARTS = ("model", "optimizer", "scheduler")
COMPARED = (
    *("model.channels", "model.hidden", "model.dropout", "optimizer.lr", "optimizer.weight_decay"),
    *("data.batch_size", "data.fold", "trainer.max_epochs", "label_smoothing", "seed"),
)


class Histograms(BetweenEpochs):
    """The distribution of each weight after every epoch, for TensorBoard: 20 ms an epoch."""

    order = -4

    def epoch_done(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
                # there is no histogram of what is not finite
                check_finite(trainer, module, trainer.current_epoch)
                for name, weights in module.named_parameters():
                    tag = name.removeprefix("net.").replace(".", "/")
                    # at the epoch, as the curves are: a resumed run drops what lies after it
                    logger.experiment.add_histogram(tag, weights.detach(), trainer.current_epoch)


def write_results(
    trainer: L.Trainer, module: DigitClassifier, data: Any, outcome: Mapping[str, Any]
) -> None:
    """Fills each logger of a trainer that has finished.

    Args:
        trainer: it has fitted the module to the data.
        module: with the weights that were kept.
        data: the data module that it was trained on; there are no pictures of a user's own.
        outcome: what results.json holds.
    """
    kinds = (TensorBoardLogger, WandbLogger, MLFlowLogger)
    loggers = [logger for logger in trainer.loggers if isinstance(logger, kinds)]
    if not loggers or not trainer.is_global_zero:
        return
    drawn = {}
    if isinstance(data, ImageDataModule):
        drawn = {name: render(figure) for name, figure in figures(trainer, module, data).items()}
    folder = Path(trainer.default_root_dir)
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            fill_wandb(logger, drawn, folder, outcome)
        elif isinstance(logger, MLFlowLogger):
            fill_mlflow(logger, drawn, folder, outcome)
        else:
            fill_tensorboard(logger, drawn, trainer.current_epoch + 1, outcome)


def figures(
    trainer: L.Trainer, module: DigitClassifier, data: ImageDataModule
) -> dict[str, Figure]:
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
    limit = trainer.limit_val_batches
    validated = limit if isinstance(limit, int) else int(limit * len(loader))
    batches = itertools.islice(loader, min(validated, -(-JUDGED // data.eval_batch_size)))
    module.eval()
    (predictions,) = scores.predict_batches([module], batches, trainer.strategy.root_device)
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


def render(figure: Figure) -> np.ndarray:
    """A figure as an image, uint8 (H, W, 3)."""
    figure.set_dpi(DPI)
    canvas: Any = FigureCanvasAgg(figure)  # its methods have no types
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def fill_tensorboard(
    logger: TensorBoardLogger,
    drawn: Mapping[str, np.ndarray],
    step: int,
    outcome: Mapping[str, Any],
) -> None:
    """Writes pictures, hyper-parameters and results into a file beside that of the curves."""
    results = TensorBoardLogger(
        logger.log_dir, "", "", default_hp_metric=False, filename_suffix=RESULTS
    )
    for name, image in drawn.items():
        results.experiment.add_image(name, image, step, dataformats="HWC")
    metrics = {f"best/{key}": outcome[key] for key in sorted(outcome) if key.startswith("val/")}
    metrics |= {key: outcome[key] for key in sorted(outcome) if key.startswith("test/")}
    results.log_hyperparams(compare_by(outcome["config"]), metrics, step)
    results.finalize("success")


def compare_by(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values that runs are compared by, under their last names; the rest is in results.json.

    TensorBoard takes its columns from one of the runs, so each is always there.
    """
    compared: dict[str, Any] = {part: class_name(config[part]) for part in PARTS}
    for key in COMPARED:
        part, _, name = f".{key}".rpartition(".")
        compared[name] = (config[part[1:]] if part else config).get(name, "none")
    return {
        key: value if isinstance(value, bool | int | float | str) else str(value).lower()
        for key, value in compared.items()
    }


def fill_wandb(
    logger: WandbLogger, drawn: Mapping[str, np.ndarray], folder: Path, outcome: Mapping[str, Any]
) -> None:
    """Logs pictures, history.png, the results and the best checkpoint."""
    import wandb

    run = logger.experiment
    images = {name: wandb.Image(image) for name, image in drawn.items()}
    run.log({**images, "history": wandb.Image(str(folder / "history.png"))})
    run.summary.update(numbers(outcome))
    if (folder / BEST).is_file():
        artifact = wandb.Artifact(f"model-{run.id}", type="model")
        artifact.add_file(str(folder / BEST))
        run.log_artifact(artifact, aliases=["best"])
    run.finish()


def fill_mlflow(
    logger: MLFlowLogger, drawn: Mapping[str, np.ndarray], folder: Path, outcome: Mapping[str, Any]
) -> None:
    """Logs the same for MLflow."""
    client, run = logger.experiment, str(logger.run_id)
    for name, image in drawn.items():
        client.log_image(run, image, f"{name}.png")
    client.log_artifact(run, str(folder / "history.png"))
    if (folder / BEST).is_file():
        client.log_artifact(run, str(folder / BEST), "checkpoints")
    logger.log_metrics(numbers(outcome))


def numbers(outcome: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of results.json as a tracker lists them."""
    return {f"results/{k}": v for k, v in outcome.items() if isinstance(v, int | float)}
