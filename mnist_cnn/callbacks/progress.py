"""Progress bar, and one line per epoch."""

import logging
import math
import time
from typing import Any

import lightning as L
from rich.progress import Progress

from mnist_cnn.callbacks.between_epochs import BetweenEpochs
from mnist_cnn.callbacks.checkpoint import best_epoch
from mnist_cnn.callbacks.finite import loss_in
from mnist_cnn.runs import terminal

log = logging.getLogger(__name__)


class ProgressBar(BetweenEpochs):
    """A bar with the batch loss and the remaining time, and one line for each finished epoch.

    It is refreshed at intervals of time, not of steps, and from the training thread, so its cost
    does not depend on the batch size. Without a terminal only the lines are written.

    Args:
        refresh_seconds: seconds between two refreshes.
        quiet: write the lines only to the log.
    """

    def __init__(self, *, refresh_seconds: float, quiet: bool):
        self.refresh_seconds = refresh_seconds
        self.console = terminal.console(stderr=True, quiet=quiet, soft_wrap=False)
        self.due = 0.0  # time of the next refresh
        self.bar: Progress | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        super().on_train_start(trainer, pl_module)
        if trainer.is_global_zero and self.console.is_terminal and not self.console.quiet:
            self.bar = Progress(console=self.console, auto_refresh=False, transient=True)
            total = (trainer.max_epochs or 1) * trainer.num_training_batches
            if trainer.max_steps > 0:
                total = min(total, trainer.max_steps * trainer.accumulate_grad_batches)
            # without a total it only shows that time passes: a loader may have no length
            self.task = self.bar.add_task("", total=total if math.isfinite(total) else None)
            self.bar.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if now < self.due or self.bar is None:
            return
        self.due = now + self.refresh_seconds
        epoch = trainer.current_epoch
        about = f"epoch {epoch + 1}/{trainer.max_epochs}"
        if (loss := loss_in(outputs)) is not None:
            about += f"  loss {loss * trainer.accumulate_grad_batches:.4f}"  # Lightning divides it
        done = epoch * trainer.num_training_batches + batch_idx + 1
        self.bar.update(self.task, completed=done, description=about)
        self.bar.refresh()

    def epoch_done(self, trainer: L.Trainer, module: Any) -> None:
        if not trainer.is_global_zero:
            return
        metrics, epoch = self.logged(trainer), trainer.current_epoch
        cells = [f"epoch {epoch:>2}/{trainer.max_epochs}"]
        for stage in ("train", "val"):
            names = [name for name in metrics if name.startswith(f"{stage}/")]
            shown = (brief(name.partition("/")[2], metrics.pop(name)) for name in names)
            cells += [" ".join((stage, *shown))] if names else []
        cells += [brief(name, value) for name, value in metrics.items()]
        if epoch == best_epoch(trainer):
            cells.append("best")
        line = " │ ".join(cells)
        log.info(line)
        self.console.print(line)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        self.stop()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self.stop()

    def stop(self) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None


def brief(name: str, value: float) -> str:
    """Format a metric for the line of an epoch; loss and accuracy go without their names."""
    forms = {"loss": f"{value:.4f}", "acc": f"{value:7.2%}", "lr": f"lr {value:.1e}"}
    return forms.get(name, f"{name} {value:.4g}")
