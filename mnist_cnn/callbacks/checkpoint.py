"""Checkpoints that resume a run exactly, also from within an epoch."""

import copy
import math
import shutil
import time
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint as LightningCheckpoint
from torch import Tensor

from mnist_cnn.callbacks.between_epochs import (
    BetweenEpochs,
    check_epochs_end_validated,
    first_of,
)
from mnist_cnn.callbacks.finite import Loss, check_finite, loss_in
from mnist_cnn.callbacks.process_state import (
    all_reduce_max,
    environment,
    process_of,
    process_state,
    restore_process,
    resume_loaders,
    unresumable,
)
from mnist_cnn.config.instantiate import class_name
from mnist_cnn.config.messages import must_be
from mnist_cnn.data.datamodule import described
from mnist_cnn.data.replay import keep_workers, make_resumable, resumable
from mnist_cnn.internals.lightning import (
    close_epoch,
    correct_counters,
    mid_epoch,
    stopped_early,
    validated_now,
)
from mnist_cnn.internals.loaders import begin_batches
from mnist_cnn.runs.file_format import KEY, VERSION
from mnist_cnn.runs.folder import BEST, LAST, RunFolder, replacing
from mnist_cnn.runs.ranks import say
from mnist_cnn.runs.signals import Interrupted, StopSignal
from mnist_cnn.weights.files import read_checkpoint


class Checkpoint(BetweenEpochs, LightningCheckpoint):
    """Saves `last.ckpt`, and `best.ckpt` of the epoch with the best monitored metric.

    They are in `checkpoints/` of the trainer's default_root_dir. Both are complete: a run that is
    resumed from one is identical to an uninterrupted run. A file is replaced atomically, and
    only while all numbers are finite. A stop signal is answered after the current step, by a
    checkpoint and then Interrupted.

    State that a module keeps between batches belongs in its state_dict, on_save_checkpoint or a
    torchmetrics.Metric, which is saved for each process. A module may also have
    `epoch_state_dict()` and `load_epoch_state_dict(state)`, for what a process needs to continue
    within an epoch.

    Args:
        monitor: a logged metric, such as val/loss; None to save only `last.ckpt`. A validation
            counts if it comes at the end of the epoch, as only then it is of the saved weights.
        mode: min or max, whichever is better.
        every_seconds: within an epoch, save `last.ckpt` when it is this old; None for never.
        every_steps: also save it after this number of batches in an epoch; None for never.
        check_every_steps: the number of batches between checks for losses that are not finite,
            which synchronize with the device; each checkpoint is preceded by another check.

    Attributes:
        run: the run's folder, if any, whose results the first checkpoint outdates; set it before
            fitting.
        start: the checkpoint that the run starts from, if any; set it before fitting.
        data: the configuration of a user's own data, if any, saved for evaluating the checkpoint;
            set it before fitting.
        best_epoch: counted from 1; None if the metric was not logged.

    Raises:
        Interrupted: SIGINT (Ctrl-C), SIGTERM, SIGUSR1 or SIGUSR2 was received.
        ValueError: a loss, a metric or a weight is not finite, validations of the monitored metric
            do not come at the end of an epoch, or another number of processes wrote the checkpoint
            to resume from in the middle of an epoch.
        OSError: a checkpoint cannot be written, for example as the disk is full.
    """

    def __init__(
        self,
        *,
        monitor: str | None,
        mode: str,
        every_seconds: float | None,
        every_steps: int | None,
        check_every_steps: int,
    ):
        self.monitor, self.mode = monitor, mode
        self.every_seconds, self.every_steps = every_seconds or math.inf, every_steps
        self.check_every_steps = check_every_steps
        self.best_score = math.inf if mode == "min" else -math.inf
        self.best_epoch: int | None = None
        self.scored: int | None = None  # the epoch's batch before its last validation of `monitor`
        self.run: RunFolder | None = None
        self.start: Path | str | None = None
        self.data: dict[str, Any] = {}
        self.process: dict[str, Any] | None = None  # this process's state in a checkpoint
        self.known: dict[str, Tensor] = {}  # metrics when the last validation began
        self.callbacks: dict[str, Any] = {}  # states of all callbacks in it
        self.losses: list[Loss] = []  # since the last check that they are finite
        self.within_epochs = True  # whether the loaders can be resumed within epochs
        self.epoch_begins = False  # whether on_train_epoch_start is running
        self.due = math.inf
        self.stop = StopSignal()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        folder = Path(trainer.default_root_dir)
        self.best, self.last = folder / BEST, folder / LAST
        # Lightning does so only after loading a checkpoint: 64-bit weights would become 32-bit
        trainer.precision_plugin.convert_module(pl_module)

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        super().on_train_start(trainer, pl_module)
        reasons = unresumable(trainer, self.take_loaders(trainer, pl_module))
        if reasons:
            say(f"no checkpoint within an epoch: {'; '.join(reasons)}")
        self.within_epochs = not reasons
        callbacks: Any = trainer.callbacks  # type: ignore[attr-defined]
        trainer.should_stop |= any(map(stopped_early, callbacks))
        if self.process:
            resume_loaders(trainer, self.process, partial(self.restore, trainer, pl_module))
            if not self.process["within_epoch"] and not self.process["epoch_begins"]:
                self.restore(trainer, pl_module)  # a finished run is extended
        if self.process or resumable(trainer):
            begin_batches(trainer)
        self.due = time.monotonic() + self.every_seconds
        self.stop.listen(patient=trainer.world_size > 1)

    def take_loaders(self, trainer: L.Trainer, module: L.LightningModule) -> list[Any]:
        """Make the training loaders resumable; return those that cannot be."""
        keep_workers(trainer)
        others = make_resumable(trainer)
        for loader in resumable(trainer)[:1]:
            loader.between = partial(self.between_batches, trainer, module)
        return others

    def restore(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Restore the state of this process, after the last hooks before a batch."""
        assert self.process
        restore_process(trainer, module, self.process)
        validated, earlier = False, [*trainer.callback_metrics]
        if self.process["within_epoch"]:
            validated, earlier = self.process["validated"], self.process["earlier"]
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # untyped
            if isinstance(callback, BetweenEpochs):
                callback.resume_epoch(trainer, validated=validated, earlier=earlier)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.take_loaders(trainer, pl_module)  # trainer.reload_dataloaders_every_n_epochs
        self.epoch_begins = True
        super().on_train_epoch_start(trainer, pl_module)
        self.epoch_begins = False
        if self.process and self.process["epoch_begins"]:
            # this hook of all callbacks ran before the checkpoint was written, and now ran again
            self.restore(trainer, pl_module)
            for callback in trainer.callbacks:  # type: ignore[attr-defined]  # untyped
                if state := self.callbacks.get(callback.state_key):
                    callback.load_state_dict(state)
            begin_batches(trainer)
        self.process = self.scored = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (loss := loss_in(outputs)) is not None:
            self.losses.append(Loss(trainer.current_epoch + 1, batch_idx + 1, loss))
        if (batch_idx + 1) % self.check_every_steps == 0:
            self.check_losses(trainer, pl_module)
        if not self.within_epochs:
            self.answer_stop(trainer)

    def check_losses(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        losses, self.losses = self.losses, []
        check_finite(trainer, module, losses)

    def between_batches(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Save a checkpoint if one is due, and stop after a signal.

        No hook is called this late, after the module's on_train_batch_end and after a validation.
        """
        done = trainer.fit_loop.batch_idx + 1
        if done % (self.every_steps or math.inf) == 0:
            self.due = -math.inf
        # not while gradients are accumulated
        if not self.within_epochs or done % trainer.accumulate_grad_batches:
            return
        if validated_now(trainer):
            return
        stop, save = all_reduce_max(trainer, self.stop.received, time.monotonic() >= self.due)
        if stop or save:
            self.save(trainer, module)
        if stop:
            raise Interrupted(stop)

    def answer_stop(self, trainer: L.Trainer) -> None:
        (stop,) = all_reduce_max(trainer, self.stop.received)
        if stop:
            raise Interrupted(stop)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.known = dict(trainer.callback_metrics)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if self.monitor is None or not self.validated:
            return
        if trainer.callback_metrics.get(self.monitor) is not self.known.get(self.monitor):
            check_epochs_end_validated(trainer)
            self.scored = trainer.fit_loop.batch_idx

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        score = self.logged(trainer).get(self.monitor) if self.monitor else None
        if score is None or self.scored not in (None, trainer.fit_loop.batch_idx):
            return  # trainer.max_steps or max_time may end an epoch after its last validation
        if score < self.best_score if self.mode == "min" else score > self.best_score:
            self.best_score, self.best_epoch = score, trainer.current_epoch + 1

    def epoch_done(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        close_epoch(trainer)
        for loader in resumable(trainer):
            loader.end_epoch()
        self.save(trainer, module)
        self.answer_stop(trainer)

    def save(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        within, epoch = mid_epoch(trainer), trainer.current_epoch
        self.check_losses(trainer, module)
        # all processes take part, the first one writes
        place = replacing(self.last) if trainer.is_global_zero else nullcontext(self.last)
        with place as new:
            trainer.save_checkpoint(new, weights_only=False)
            if trainer.is_global_zero:
                if self.run is not None:
                    self.run.outdate()
                if self.best_epoch is None:  # one of another metric, from before
                    self.best.unlink(missing_ok=True)
                if self.best_epoch == epoch and not within:
                    copy_whole(new, self.best)
        trainer.strategy.barrier("a checkpoint is in its place")
        self.due = time.monotonic() + self.every_seconds

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        self.stop.ignore()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self.stop.ignore()

    def state_dict(self) -> dict[str, Any]:
        best = {"best_score": self.best_score, "best_epoch": self.best_epoch}
        return {**best, "scored": self.scored, "monitor": self.monitor, "mode": self.mode}

    def has_scored(self, state: Mapping[str, Any]) -> bool:
        """Return whether the best score in a state is one of the monitored metric."""
        now = {"monitor": self.monitor, "mode": self.mode}
        return all(state.get(key, value) == value for key, value in now.items())  # older have none

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.scored = state_dict["scored"]
        # a run may start from a checkpoint without the best one, or follow another metric than then
        if self.best.exists() and self.has_scored(state_dict):
            self.best_score, self.best_epoch = state_dict["best_score"], state_dict["best_epoch"]

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        correct_counters(trainer, checkpoint)
        checkpoint[KEY] = VERSION
        own = process_state(trainer, pl_module, checkpoint)
        own |= {"validated": self.validated, "earlier": self.earlier(trainer)}
        own |= {"epoch_begins": self.epoch_begins}
        every: list[Any] = [own]
        if trainer.world_size > 1:
            every = [None] * trainer.world_size
            torch.distributed.all_gather_object(every, own)
        checkpoint["processes"] = every
        checkpoint["environment"] = environment(trainer)
        if self.data:
            checkpoint["data"] = described(self.data, trainer.datamodule)  # type: ignore[attr-defined]

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        parameters = checkpoint.get("hyper_parameters", {}), pl_module.hparams
        for part in ("optimizer", "scheduler"):
            old, new = (class_name(args.get(part) or {}) for args in parameters)
            if old != new:
                allowed = f"{old}, as in the checkpoint that is resumed"
                raise ValueError(must_be(f"{part}._target_", allowed, new))
        self.take_over(trainer, checkpoint)
        if "processes" in checkpoint:  # else another callback wrote it
            self.process = process_of(trainer, checkpoint["processes"])
            self.callbacks = copy.deepcopy(checkpoint["callbacks"])
        now, before = environment(trainer), checkpoint.get("environment", {})
        # another program's checkpoint has none
        changed = [f"{k} {before[k]}, now {v}" for k, v in now.items() if before.get(k, v) != v]
        if changed:
            say(f"not identical to an uninterrupted run: {'; '.join(changed)}")

    def take_over(self, trainer: L.Trainer, checkpoint: dict[str, Any]) -> None:
        """Copy another run's checkpoint that this run starts from, and the best one beside it."""
        if not trainer.is_global_zero or self.last.exists() or self.start is None:
            return
        best = Path(self.start).with_name(self.best.name)
        state = checkpoint["callbacks"].get(self.state_key, {})
        best_epoch = self.has_scored(state) and state.get("best_epoch")
        if best_epoch and best.is_file() and read_checkpoint(best)["epoch"] == best_epoch:
            copy_whole(best, self.best)
        copy_whole(Path(self.start), self.last)


def best_epoch(trainer: L.Trainer) -> int | None:
    """Return the epoch of a Trainer's best checkpoint (from 1), None if there is none."""
    kept = first_of(trainer, Checkpoint)
    return None if kept is None else kept.best_epoch


def copy_whole(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as new:
        shutil.copyfile(source, new)
