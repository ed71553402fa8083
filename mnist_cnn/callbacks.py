"""Callbacks that Lightning does not have: a history, a stop at NaN, histograms, a light bar."""

import csv
import logging
import math
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mnist_cnn import plots, runs, sweep, terminal
from mnist_cnn.results import now, replace

log = logging.getLogger(__name__)


STEP_HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)


def skip_idle_hooks(owners: Iterable[Callback | L.LightningModule]) -> None:
    """Takes away the hooks of a step that a callback or module does not use.

    Lightning calls the empty ones too, six a step for each owner, each in a context of its own:
    1 % of a step of the article's network. It passes over a hook that is None.
    """
    for owner in owners:
        base = Callback if isinstance(owner, Callback) else L.LightningModule
        for hook in STEP_HOOKS:
            if getattr(type(owner), hook) is getattr(base, hook):
                setattr(owner, hook, None)


class BetweenEpochs(Callback):
    """Calls `epoch_done` when an epoch is over altogether.

    Only then are its metrics logged, early stopping consulted and the schedule stepped: Lightning
    calls on_train_epoch_end of a callback before some of that.
    """

    running = False

    def epoch_done(self, trainer: L.Trainer, module: Any) -> None:
        raise NotImplementedError

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.running = trainer.fit_loop.restarted_mid_epoch  # Lightning won't announce it again

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.running:
            self.epoch_done(trainer, pl_module)
        self.running = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.running:
            self.epoch_done(trainer, pl_module)
        self.running = False


class Finite(BetweenEpochs):
    """Ends a run whose loss is no longer a finite number.

    Args:
        every_steps: batches between two looks, each of which waits for the device; there is one
            more at the end of an epoch.

    Raises:
        ValueError: see `check_finite`.
    """

    def __init__(self, *, every_steps: int):
        self.every_steps = every_steps

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % self.every_steps == 0:
            check_finite(trainer, pl_module)

    def epoch_done(self, trainer: L.Trainer, module: Any) -> None:
        check_finite(trainer, module)


def check_finite(trainer: L.Trainer, module: Any) -> None:
    """Looks at the losses since the last look, at the metrics and at the weights.

    Raises:
        ValueError: one is infinite or not a number. It tells the step, the batch's images by their
            rows in the training file, and the last checkpoint from before.
    """
    tally = module.tallies["train"]
    epoch: int = trainer.fit_loop.epoch_progress.state_dict()["current"]["started"]  # from 1
    fault = ""
    new = tally.losses[tally.looked_at :]
    if new and not torch.stack(new).isfinite().all():
        batch = next(k for k, loss in enumerate(tally.losses) if not loss.isfinite())
        step = (epoch - 1) * trainer.num_training_batches + batch + 1
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        loader: Any = trainer.train_dataloader
        rows = data.rows["train"][loader.rows(epoch - 1, batch).cpu()].tolist()
        named = " ".join(map(str, rows[:10])) + (f" and {len(rows) - 10} more" if rows[10:] else "")
        fault = f"train/loss={tally.losses[batch].item()} at step {step}, batch {batch + 1} of "
        fault += f"epoch {epoch}, rows {named} of the training file"
    tally.looked_at = len(tally.losses)
    for name, value in (*trainer.callback_metrics.items(), *module.named_parameters()):
        if not fault and not value.isfinite().all():
            fault = f"{name} is not finite in epoch {epoch}"
    if fault:
        last = getattr(trainer.checkpoint_callback, "last", None)
        kept = f"{last} is from before" if last and last.exists() else "there is no checkpoint yet"
        advice = "a lower optimizer.lr or a trainer.gradient_clip_val may help"
        raise ValueError(f"{fault}; {kept}; {advice}")


class Prune(BetweenEpochs):
    """Gives a hopeless trial of a search up, and tells the search's study how each epoch went.

    Args:
        sweep: the folder of the search.
        trial: the number of the job in it.
        monitor: the objective, a logged metric.
        pruner: one of optuna.pruners.

    Raises:
        runs.Pruned: from fitting, at the end of an epoch that is not the last.
    """

    def __init__(self, *, sweep: str, trial: int | str, monitor: str, pruner: Any):
        self.sweep, self.trial = Path(sweep), int(trial)
        self.monitor, self.pruner = monitor, pruner

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = optuna.load_study(
            study_name=sweep.STUDY, storage=sweep.storage(self.sweep), sampler=None
        )
        self.storage = optuna.storages.get_storage(sweep.storage(self.sweep))
        study = self.storage.get_study_id_from_name(sweep.STUDY)
        self.id = self.storage.get_trial_id_from_study_id_trial_number(study, self.trial)

    def epoch_done(self, trainer: L.Trainer, module: Any) -> None:
        value = module.epoch_metrics().get(self.monitor, math.nan)
        if not math.isfinite(value):
            return
        epoch = trainer.fit_loop.epoch_progress.current.completed
        self.storage.set_trial_intermediate_value(self.id, epoch, value)
        hopeless = self.pruner.prune(self.study, self.storage.get_trial(self.id))
        if hopeless and not trainer.fit_loop.done:
            raise runs.Pruned(epoch, self.monitor, value)


class History(BetweenEpochs):
    """One row an epoch, written to history.csv as it comes and drawn as history.png at the end.

    A row has `epoch` (from 1), the logged metrics, `lr` (the epoch's; of a schedule that steps
    within epochs, where the epoch ended), `seconds` of training, from the epoch's first batch to
    its last, and `images/s` in them. Validation and the test are not in the seconds; checkpoints
    are, those of the epoch before among them. The files lie in the trainer's default_root_dir.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.run_started = now()  # the first time, in a run that was gone on with
        self.started = self.trained = 0.0  # of this epoch's clock
        self.elapsed = 0.0  # of an interrupted epoch

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.folder = Path(trainer.default_root_dir)

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
        row: dict[str, float] = {"epoch": len(self.rows) + 1}
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
            what = [getattr(data, "set", ""), pl_module.hparams["model"]["name"]]
            title = f"{'/'.join(self.folder.parts[-2:])}: {', '.join(filter(None, what))}"
            plots.history(self.rows, best, title).savefig(self.folder / runs.PICTURE, dpi=150)

    def state_dict(self) -> dict[str, Any]:
        elapsed = time.perf_counter() - self.started
        return {"rows": self.rows, "elapsed": elapsed, "started": self.run_started.isoformat()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.elapsed = state_dict["rows"], state_dict["elapsed"]
        if "started" in state_dict:  # checkpoints of earlier versions lack it
            self.run_started = datetime.fromisoformat(state_dict["started"])


class Histograms(BetweenEpochs):
    """The distribution of each weight after every epoch, for TensorBoard: 20 ms an epoch."""

    def epoch_done(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
                check_finite(trainer, module)  # there is no histogram of what is not
                for name, weights in module.named_parameters():
                    tag = name.removeprefix("net.").replace(".", "/")
                    # at the epoch, as the curves are: a resumed run drops what lies after it
                    logger.experiment.add_histogram(tag, weights.detach(), trainer.current_epoch)


class ProgressBar(BetweenEpochs):
    """A bar with loss, accuracy, images/s and time left, and one line for each finished epoch.

    It draws at intervals of time, not of steps, and from this thread, so it costs the same
    whatever the batch size. Without a terminal only the lines are written.

    Args:
        refresh_seconds: seconds between two drawings.
        quiet: only the log gets the lines.
    """

    averaged = 50  # batches behind the loss and accuracy on the bar

    def __init__(self, *, refresh_seconds: float, quiet: bool):
        self.refresh_seconds = refresh_seconds
        self.console = terminal.console(stderr=True, quiet=quiet, soft_wrap=False)
        self.due = math.inf
        self.bar: Progress | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        super().on_train_start(trainer, pl_module)
        if not trainer.is_global_zero:
            return
        if self.console.is_terminal and not self.console.quiet:
            self.bar = Progress(
                TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[status]}"),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=self.console,
                auto_refresh=False,
                transient=True,
                expand=True,
            )
            epochs = trainer.max_epochs or 1
            self.task = self.bar.add_task(
                "", total=epochs * trainer.num_training_batches, epoch=1, epochs=epochs, status=""
            )
            self.bar.start()
        if self.running:
            self.begin(pl_module.tallies["train"].images)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        self.begin(0)

    def begin(self, images: int) -> None:
        self.mark = (time.perf_counter(), images)  # when the bar was drawn, images seen by then
        if self.bar:
            self.due = self.mark[0] + self.refresh_seconds

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if now < self.due:
            return
        assert self.bar is not None
        self.due = now + self.refresh_seconds
        tally = pl_module.tallies["train"]
        loss, hits, images = tally.totals(last=self.averaged)
        seen = tally.images * trainer.world_size
        speed = (seen - self.mark[1]) / (now - self.mark[0])
        self.mark = (now, seen)
        self.bar.update(
            self.task,
            completed=trainer.current_epoch * trainer.num_training_batches + batch_idx + 1,
            epoch=trainer.current_epoch + 1,
            status=f"loss {loss / images:.4f}  acc {hits / images:.2%}  {speed:,.0f} images/s",
        )
        self.bar.refresh()

    def epoch_done(self, trainer: L.Trainer, module: Any) -> None:
        if not trainer.is_global_zero:
            return
        metrics = module.epoch_metrics()
        epoch = trainer.fit_loop.epoch_progress.current.completed
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
        self.due = math.inf
        if self.bar:
            self.bar.stop()
            self.bar = None
