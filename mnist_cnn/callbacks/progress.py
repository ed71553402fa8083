"""The progress bar, and one line an epoch."""

import logging
import time
from typing import Any

import lightning as L
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mnist_cnn import terminal
from mnist_cnn.callbacks.between_epochs import BetweenEpochs

log = logging.getLogger(__name__)


class ProgressBar(BetweenEpochs):
    """A bar with loss, accuracy, images/s and time left, and one line for each finished epoch.

    It draws at intervals of time, not of steps, and from this thread, so it costs the same
    whatever the batch size. Without a terminal only the lines are written.

    Args:
        refresh_seconds: seconds between two drawings.
        quiet: only the log gets the lines.
    """

    order = -3
    averaged = 50  # batches behind the loss and accuracy on the bar

    def __init__(self, *, refresh_seconds: float, quiet: bool):
        self.refresh_seconds = refresh_seconds
        self.console = terminal.console(stderr=True, quiet=quiet, soft_wrap=False)
        self.due = 0.0  # the next drawing
        self.bar: Progress | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        super().on_train_start(trainer, pl_module)
        if trainer.is_global_zero and self.console.is_terminal and not self.console.quiet:
            status = TextColumn("epoch {task.fields[epoch]}  {task.fields[status]}")
            columns = (BarColumn(bar_width=None), status, TimeRemainingColumn(), TextColumn("left"))
            self.bar = Progress(
                *columns, console=self.console, auto_refresh=False, transient=True, expand=True
            )
            total = (trainer.max_epochs or 1) * trainer.num_training_batches
            self.task = self.bar.add_task("", total=total, epoch="", status="")
            self.bar.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if now < self.due or self.bar is None:
            return
        metrics, done = pl_module.epoch_metrics["train"], batch_idx + 1
        loss, images, hits, labelled = metrics.totals(last=self.averaged)
        accuracy = hits / max(labelled, 1)
        batches = self.bar.tasks[0].speed or 0  # a second
        speed = batches * metrics.images / done * trainer.world_size
        self.due = now + self.refresh_seconds
        self.bar.update(
            self.task,
            completed=trainer.current_epoch * trainer.num_training_batches + done,
            epoch=f"{trainer.current_epoch + 1}/{trainer.max_epochs}",
            status=f"loss {loss / images:.4f}  acc {accuracy:.2%}  {speed:,.0f} images/s",
        )
        self.bar.refresh()

    def epoch_done(self, trainer: L.Trainer, module: Any) -> None:
        if not trainer.is_global_zero:
            return
        metrics, epoch = module.logged_metrics(), trainer.current_epoch
        cells = [f"epoch {epoch:>2}/{trainer.max_epochs}"]
        for stage in ("train", "val"):
            if f"{stage}/loss" in metrics:
                loss, accuracy = metrics[f"{stage}/loss"], metrics[f"{stage}/acc"]
                cells.append(f"{stage} {loss:.4f} {accuracy:7.2%}")
        cells.append(f"lr {metrics['lr']:.1e}")
        if epoch == getattr(trainer.checkpoint_callback, "best_epoch", None):
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
