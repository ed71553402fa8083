"""The history of a run: history.csv and history.png."""

import csv
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning as L

from mnist_cnn.analysis.results import now
from mnist_cnn.callbacks.between_epochs import BetweenEpochs
from mnist_cnn.plots import training
from mnist_cnn.runs.folder import replace


class History(BetweenEpochs):
    """One row an epoch, written to history.csv as it comes and drawn as history.png at the end.

    A row has `epoch` (from 1), the logged metrics, `lr` (the epoch's; of a schedule that steps
    within epochs, where the epoch ended), `seconds` of training, from the epoch's first batch to
    its last, and `images/s` in them. Validation and the test are not in the seconds; checkpoints
    are, those of the epoch before among them. The files lie in the trainer's default_root_dir.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.run_started = now()  # the first time, in a resumed run
        self.started = self.trained = 0.0  # of this epoch's clock
        self.elapsed = 0.0  # of an interrupted epoch

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        pl_module.epochs_are_steps = True  # type: ignore[assignment]  # declared as a Tensor

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self.started = time.perf_counter() - self.elapsed

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        self.started, self.trained = time.perf_counter(), 0.0

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.trained = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.trained = self.trained or time.perf_counter()

    def epoch_done(self, trainer: L.Trainer, module: Any) -> None:
        metrics, seconds = module.logged_metrics(), self.trained - self.started
        metrics.pop("step", None)
        images = module.epoch_metrics["train"].images * trainer.world_size
        row = {"epoch": trainer.current_epoch, **dict(sorted(metrics.items()))}
        self.rows.append({**row, "seconds": seconds, "images/s": images / seconds})
        self.write(trainer)

    def write(self, trainer: L.Trainer) -> None:
        if not trainer.is_global_zero:
            return
        file = Path(trainer.default_root_dir, "history.csv")
        new = file.with_suffix(".csv.new")
        with new.open("w", encoding="utf-8", newline="") as opened:
            writer = csv.DictWriter(opened, dict.fromkeys(key for row in self.rows for key in row))
            writer.writeheader()
            writer.writerows(self.rows)
        replace(new, file)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # after the last checkpoint, which removes what was drawn of an earlier state
        if self.rows and trainer.is_global_zero:
            self.write(trainer)  # a run that had nothing left to train has no file yet
            folder = Path(trainer.default_root_dir)
            best = getattr(trainer.checkpoint_callback, "best_epoch", None)
            figure = training.history(self.rows, best, "/".join(folder.parts[-2:]))
            figure.savefig(folder / "history.png", dpi=150)

    def state_dict(self) -> dict[str, Any]:
        elapsed = time.perf_counter() - self.started
        return {"rows": self.rows, "elapsed": elapsed, "started": self.run_started.isoformat()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.elapsed = state_dict["rows"], state_dict["elapsed"]
        self.run_started = datetime.fromisoformat(state_dict["started"])
