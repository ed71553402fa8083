"""The history of a run: history.csv and history.png."""

import csv
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning as L

from mnist_cnn.callbacks.between_epochs import BetweenEpochs
from mnist_cnn.optim import class_name
from mnist_cnn.plots import training
from mnist_cnn.analysis.results import now
from mnist_cnn.runs.folder import replace


class History(BetweenEpochs):
    """One row an epoch, written to history.csv as it comes and drawn as history.png at the end.

    A row has `epoch` (from 1), the logged metrics, `lr` (the epoch's; of a schedule that steps
    within epochs, where the epoch ended), `seconds` of training, from the epoch's first batch to
    its last, and `images/s` in them. Validation and the test are not in the seconds; checkpoints
    are, those of the epoch before among them. The files lie in the trainer's default_root_dir.
    """

    order = -2

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.run_started = now()  # the first time, in a resumed run
        self.started = self.trained = 0.0  # of this epoch's clock
        self.elapsed = 0.0  # of an interrupted epoch

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.folder = Path(trainer.default_root_dir)
        pl_module.epochs_are_steps = True  # type: ignore[assignment]

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
        images = module.tallies["train"].images * trainer.world_size
        row: dict[str, float] = {"epoch": trainer.current_epoch}
        row |= {
            key: value for key, value in sorted(module.epoch_metrics().items()) if key != "step"
        }
        row["seconds"] = self.trained - self.started
        row["images/s"] = images / row["seconds"]
        self.rows.append(row)
        if trainer.is_global_zero:
            self.write()

    def write(self) -> None:
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        new = self.folder / "history.csv.new"
        with new.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows)
        replace(new, self.folder / "history.csv")

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # after the last checkpoint, which removes what was drawn of an earlier state
        if self.rows and trainer.is_global_zero:
            self.write()  # a run that had nothing left to train has no file yet
            best = getattr(trainer.checkpoint_callback, "best_epoch", None)
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            what = [getattr(data, "name", ""), class_name(pl_module.hparams["model"])]
            title = f"{'/'.join(self.folder.parts[-2:])}: {', '.join(filter(None, what))}"
            training.history(self.rows, best, title).savefig(self.folder / "history.png", dpi=150)

    def state_dict(self) -> dict[str, Any]:
        elapsed = time.perf_counter() - self.started
        return {"rows": self.rows, "elapsed": elapsed, "started": self.run_started.isoformat()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.elapsed = state_dict["rows"], state_dict["elapsed"]
        if "started" in state_dict:  # checkpoints of earlier versions lack it
            self.run_started = datetime.fromisoformat(state_dict["started"])
