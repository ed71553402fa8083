"""The history of a run: history.csv and history.png."""

import contextlib
import csv
import io
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from mnist_cnn.analysis.results import now
from mnist_cnn.callbacks.between_epochs import BetweenEpochs
from mnist_cnn.callbacks.checkpoint import best_epoch
from mnist_cnn.config.messages import either, must_be
from mnist_cnn.internals.results import count_exactly
from mnist_cnn.metrics import sum_over_ranks
from mnist_cnn.plots import training
from mnist_cnn.runs.folder import replacing


class History(BetweenEpochs):
    """Writes a row for each epoch to history.csv, and plots them as history.png at the end.

    A row has `epoch` (from 1), the metrics logged in it, `lr` (the epoch's; at its end for a
    schedule that steps within epochs), `seconds` of training, from the epoch's first batch to its
    last, and `images/s` in that time. The seconds exclude validation and the test but include
    checkpoints, also those of the epoch before. The files are in the trainer's default_root_dir.

    Raises:
        ValueError: a monitored metric is not logged, or an epoch has no batches.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.run_started = now()  # for a resumed run, its first start
        self.started = self.trained = 0.0  # clock times of this epoch, without its validations
        self.validating = 0.0  # seconds of its validations so far
        self.elapsed = 0.0  # seconds of an interrupted epoch
        self.samples = 0  # of this epoch, in this process
        self.monitored: dict[str, str] = {}  # metrics that must be logged, by their keys

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self.started, self.validating = time.perf_counter() - self.elapsed, 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        self.started, self.samples = time.perf_counter(), 0
        self.trained = self.validating = 0.0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.samples += batch_size(batch)
        self.trained = 0.0  # the validation before it was not the epoch's end
        count_exactly(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        count_exactly(trainer)

    on_test_batch_end = on_validation_batch_end

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.trained = self.clock()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        self.validating += self.clock() - self.trained

    def clock(self) -> float:
        """Return the time, without that of this epoch's validations."""
        return time.perf_counter() - self.validating

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.fit_loop.batch_idx < 0:  # such as a stream that is used up
            allowed = f"data with batches in each of trainer.max_epochs={trainer.max_epochs} epochs"
            got = f"none in epoch {trainer.current_epoch + 1}"
            raise ValueError(must_be("train_dataloader", allowed, got))
        self.trained = self.trained or self.clock()
        log_epoch(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        log_epoch(trainer, pl_module)

    on_test_epoch_end = on_validation_epoch_end

    def epoch_done(self, trainer: L.Trainer, module: Any) -> None:
        metrics, seconds = self.logged(trainer), self.trained - self.started
        self.check_monitored(trainer, metrics)
        samples = int(sum_over_ranks(torch.tensor(self.samples), trainer))
        row = {"epoch": trainer.current_epoch, **dict(sorted(metrics.items()))}
        self.rows.append({**row, "seconds": seconds, "images/s": samples / seconds})
        self.write(trainer)

    def check_monitored(self, trainer: L.Trainer, metrics: Mapping[str, float]) -> None:
        """Raise ValueError if a monitored metric is not logged by the first validation.

        A run that never validates may monitor val/loss, which is the default.
        """
        if not self.validated and may_validate(trainer):
            return
        for key, metric in self.monitored.items():
            if metric not in metrics and (self.validated or not metric.startswith("val/")):
                logged = either(list(metrics)) or "logged, which nothing is"
                raise ValueError(must_be(key, logged, metric))
        if self.validated:
            self.monitored = {}

    def write(self, trainer: L.Trainer) -> None:
        if not trainer.is_global_zero:
            return
        file = Path(trainer.default_root_dir, "history.csv")
        columns = dict.fromkeys(key for row in self.rows for key in row)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows(self.rows)
        # on Windows, it may be open in another program
        with contextlib.suppress(PermissionError), replacing(file) as new:
            new.write_text(text.getvalue(), "utf-8", newline="")

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # after the last checkpoint, which removes a plot of an earlier state
        if self.rows and trainer.is_global_zero:
            self.write(trainer)  # a run that had nothing left to train has no file yet
            folder = Path(trainer.default_root_dir)
            best = best_epoch(trainer)
            figure = training.history(self.rows, best, "/".join(folder.parts[-2:]))
            figure.savefig(folder / "history.png", dpi=150)

    def state_dict(self) -> dict[str, Any]:
        elapsed = self.clock() - self.started
        state = {"rows": self.rows, "elapsed": elapsed, "samples": self.samples}
        return {**state, "started": self.run_started.isoformat()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.elapsed = state_dict["rows"], state_dict["elapsed"]
        self.samples = state_dict["samples"]
        self.run_started = datetime.fromisoformat(state_dict["started"])


def log_epoch(trainer: L.Trainer, module: L.LightningModule) -> None:
    """Log the step of an epoch's metrics, as Lightning's own is wrong in a resumed run.

    The step of the test follows the last epoch's, where a resumed run drops it from the logs.
    """
    module.log("step", float(step_of(trainer, ended=trainer.testing)))


def step_of(trainer: L.Trainer, *, ended: bool) -> int:
    """Return the step for loggers: the epoch, or the optimizer's step if epochs validate often.

    Args:
        ended: return the step after the last, as the training has ended.
    """
    if validates_often(trainer):
        return trainer.global_step + ended
    return trainer.current_epoch + 1  # current_epoch is one more after the end of training


def validates_often(trainer: L.Trainer) -> bool:
    """Return whether an epoch may have several validations."""
    interval = trainer.val_check_interval
    return isinstance(interval, int) or interval not in (None, 1.0)  # 1 is a batch


def may_validate(trainer: L.Trainer) -> bool:
    """Return whether there are data to validate on, or may be: they are loaded when needed."""
    unknown = trainer.val_dataloaders is None
    return trainer.enable_validation and (unknown or any(trainer.num_val_batches))


def batch_size(batch: Any) -> int:
    """Return the number of samples in a batch: the length of its first tensor, 1 without one."""
    return next((len(tensor) for tensor in tensors(batch) if tensor.dim()), 1)


def tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping | list | tuple):
        for part in batch.values() if isinstance(batch, Mapping) else batch:
            yield from tensors(part)
