"""What Weights & Biases and MLflow get of a finished run beside its curves."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import MLFlowLogger, WandbLogger

from mnist_cnn.runs.state import BEST, PICTURE


def fill(trainer: L.Trainer, drawn: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
    """Logs figures, history.png, the results and the best checkpoint.

    Args:
        trainer: it has finished.
        drawn: figures by name.
        outcome: what results.json holds.
    """
    folder = Path(trainer.default_root_dir)
    best = [file for file in (folder / BEST,) if file.is_file()]
    results = {key: v for key, v in outcome.items() if isinstance(v, (int, float))}
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            fill_wandb(logger, drawn, folder / PICTURE, best, results)
        elif isinstance(logger, MLFlowLogger):
            client, run = logger.experiment, str(logger.run_id)
            for name, figure in drawn.items():
                client.log_figure(run, figure, f"{name}.png")
            for file in (folder / PICTURE, *best):
                client.log_artifact(run, str(file), "checkpoints" if file in best else None)
            logger.log_metrics({f"results/{key}": v for key, v in results.items()})
            client.set_terminated(run)


def fill_wandb(
    logger: WandbLogger,
    drawn: Mapping[str, Any],
    picture: Path,
    best: list[Path],
    results: Mapping[str, float],
) -> None:
    import wandb

    run = logger.experiment
    images = {name: wandb.Image(figure) for name, figure in drawn.items()}
    run.log({**images, "history": wandb.Image(str(picture))})
    run.summary.update({f"results/{key}": value for key, value in results.items()})
    for file in best:
        artifact = wandb.Artifact(f"model-{run.id}", type="model")
        artifact.add_file(str(file))
        run.log_artifact(artifact, aliases=["best"])
    run.finish()
