"""Short runs for the checks, stopped at chosen batches."""

import contextlib
import signal
from pathlib import Path
from typing import Any, cast

from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf

from mnist_cnn.runs.folder import LAST
from mnist_cnn.runs.signals import Interrupted
from mnist_cnn.train import train
from mnist_cnn.weights.files import read_checkpoint


class Stop(Callback):
    """Stops a training by SIGTERM before batch `at`, counted from 0 over all epochs."""

    at: int | None = None

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.current_epoch * trainer.num_training_batches + batch_idx == self.at:
            signal.raise_signal(signal.SIGTERM)


def run(cfg: DictConfig, folder: Path, *stops: int, **changes: Any) -> Any:
    """Run in a folder, stop and resume at these batches, and return the last checkpoint."""
    changed: dict[Any, Any] = {**changes, "run_dir": str(folder)}
    merged = cast(DictConfig, OmegaConf.merge(cfg, changed))
    for Stop.at in (*stops, None):
        with contextlib.suppress(Interrupted):
            train(merged)
    return read_checkpoint(folder / LAST)


def logged(checkpoint: Any) -> Any:
    """Return the rows of the history without measured times."""
    (rows,) = (state["rows"] for state in checkpoint["callbacks"].values() if "rows" in state)
    return [{k: v for k, v in row.items() if k not in ("seconds", "images/s")} for row in rows]


def different(one: Any, two: Any) -> list[str]:
    """Return the names of tensors that are not identical."""
    import torch

    return [name for name in one if not torch.equal(one[name], two[name])]
