"""Checkpoints from which a run goes on exactly, written whenever it may be interrupted."""

import contextlib
import math
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Checkpoint as LightningCheckpoint
from lightning.pytorch.callbacks import EarlyStopping, StochasticWeightAveraging
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason as Reason
from omegaconf import DictConfig

from mnist_cnn.callbacks.between_epochs import BetweenEpochs
from mnist_cnn.callbacks.finite import check_finite
from mnist_cnn.internals.lightning import InPlace
from mnist_cnn.metrics import Tally
from mnist_cnn.runs import claim, configuration
from mnist_cnn.runs import state as state_
from mnist_cnn.runs.generators import generators, set_generators
from mnist_cnn.runs.results import replace
from mnist_cnn.runs.signals import Interrupted, StopSignal


class Checkpoint(BetweenEpochs, LightningCheckpoint):
    """Keeps `last.ckpt`, and `best.ckpt` where the monitored metric was best.

    Both are complete: a run that goes on from one ends, bit for bit, where it would have ended.
    A file is replaced by a whole new one or not at all, and only while all numbers are finite.
    A signal to stop is answered when the step is done: with a checkpoint, then Interrupted.
    They lie in `checkpoints/` of the trainer's default_root_dir, whose former results, if it is the
    folder of a run that was resumed, are removed when there is a newer checkpoint.

    Args:
        monitor: a logged metric, such as val/loss.
        mode: min or max, which way is better.
        every_seconds: within an epoch, `last.ckpt` is written when it is this old; None for never.
        every_steps: and after each so many batches of an epoch; None for never.

    Raises:
        Interrupted: SIGINT (Ctrl-C), SIGTERM or SIGUSR1 came.
        ValueError: a loss, a metric or a weight is not finite; a checkpoint in the middle of an
            epoch that another number of processes wrote.
        OSError: the disk is full, or the like.
    """

    def __init__(
        self,
        *,
        monitor: str,
        mode: str,
        every_seconds: float | None,
        every_steps: int | None,
    ):
        self.monitor, self.mode = monitor, mode
        self.every_seconds, self.every_steps = every_seconds or math.inf, every_steps
        self.best_score = math.inf if mode == "min" else -math.inf
        self.best_epoch: int | None = None  # counted from 1
        self.improved = False
        self.config: dict[str, Any] = {}  # of the run, flat, as it was written
        self.newer = False  # than what the run was resumed from
        self.loaded: dict[str, Any] | None = None  # this process's random generators
        self.position: dict[str, int] = {}  # of the loader
        self.cut = ""  # says that the last epoch ended before all its batches
        self.due = math.inf
        self.stop = StopSignal()

    @property
    def best(self) -> Path:
        return self.folder / state_.BEST

    @property
    def last(self) -> Path:
        return self.folder / state_.LAST

    @property
    def kept(self) -> Path:
        """The best, or the last where no metric was there to judge by."""
        return self.best if self.best.exists() else self.last

    @contextlib.contextmanager
    def fitting(self, config: DictConfig) -> Iterator[None]:
        """Keeps a run's configuration, and makes one kind of error of all that Lightning raises
        where values or files do not fit.

        Raises:
            ValueError: values that exclude each other; the checkpoint of another network.
        """
        self.config, ckpt_path = configuration.flat(config), config.ckpt_path
        try:
            yield
        except MisconfigurationException as e:
            raise ValueError(e) from e
        except (LookupError, TypeError, AttributeError, RuntimeError) as e:
            if ckpt_path is None or self.running:  # not while restoring it
                raise
            reason = " ".join(str(e).split())
            raise ValueError(f"ckpt_path={ckpt_path}: cannot go on from it: {reason}") from e

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        trainer.strategy.checkpoint_io = InPlace()
        self.folder = Path(trainer.default_root_dir)
        # Lightning does so too, but only after loading a checkpoint: 64 bits would become 32
        trainer.precision_plugin.convert_module(pl_module)

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        super().on_train_start(trainer, pl_module)
        if self.loaded:  # last of all callbacks, since setting up draws numbers too
            set_generators(self.loaded, pl_module.device)
            if self.running and self.position:
                # Lightning loses it where a schedule has asked for the number of steps before
                loader: Any = trainer.train_dataloader
                loader.load_state_dict(self.position)
            callbacks: Any = trainer.callbacks  # type: ignore[attr-defined]
            trainer.should_stop |= any(  # Lightning keeps that, through min_epochs too
                isinstance(c, EarlyStopping) and c.stopping_reason is not Reason.NOT_STOPPED
                for c in callbacks
            )
            if self.cut and not trainer.fit_loop.done and trainer.is_global_zero:
                print(f"not bit for bit the run that it was: {self.cut}", file=sys.stderr)
        self.due = time.monotonic() + self.every_seconds
        self.stop.listen(patient=trainer.world_size > 1)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done = batch_idx + 1
        last = done == trainer.num_training_batches or trainer.global_step == trainer.max_steps
        last = last or (trainer.should_stop and trainer.fit_loop._can_stop_early)
        if last or done % trainer.accumulate_grad_batches:
            return  # the epoch's own checkpoint comes soon; half a gradient is not kept
        due = time.monotonic() >= self.due or done % (self.every_steps or math.inf) == 0
        stop, save = agree(trainer, self.stop.received, due)
        if stop or save:
            self.save(trainer, pl_module)
        if stop:
            raise Interrupted(stop)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        score = trainer.callback_metrics.get(self.monitor)
        if score is None:
            return
        better = score < self.best_score if self.mode == "min" else score > self.best_score
        if better:
            self.best_score, self.best_epoch = float(score), trainer.current_epoch + 1
            self.improved = True

    def epoch_done(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        # Lightning would set these back in a moment, at the start of the next epoch; a checkpoint
        # with the old counts would skip that epoch
        loop = trainer.fit_loop.epoch_loop
        done, batches = loop.batch_progress.current.completed, trainer.num_training_batches
        self.cut = f"epoch {trainer.current_epoch} ended after {done} of {batches} batches"
        self.cut *= done < batches
        for progress in (
            loop.batch_progress,
            loop.scheduler_progress,
            loop.automatic_optimization.optim_progress,
        ):
            progress.reset_on_run()
        loop.val_loop.batch_progress.total.reset()
        self.save(trainer, module)
        (stop,) = agree(trainer, self.stop.received)
        if stop:
            raise Interrupted(stop)

    def save(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        check_finite(trainer, module)
        new = self.last.with_suffix(".new")
        try:
            trainer.save_checkpoint(new, weights_only=False)
            if trainer.is_global_zero:
                if not self.newer:
                    for name in claim.OUTCOME:
                        (self.folder / name).unlink(missing_ok=True)
                if self.improved:
                    copy = self.best.with_suffix(".new")
                    shutil.copyfile(new, copy)
                    replace(copy, self.best)
                replace(new, self.last)
        except OSError:  # a full disk, most likely: give back what was taken
            for file in self.last.parent.glob("*.new"):
                file.unlink()
            raise
        trainer.strategy.barrier("a checkpoint is in its place")
        self.improved, self.newer = False, True
        self.due = time.monotonic() + self.every_seconds

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        self.stop.ignore()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self.stop.ignore()

    def state_dict(self) -> dict[str, Any]:
        return {"best_score": self.best_score, "best_epoch": self.best_epoch, "cut": self.cut}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.best.exists():  # a checkpoint may have been copied without it
            self.best_score, self.best_epoch = state_dict["best_score"], state_dict["best_epoch"]
        self.cut = state_dict.get("cut", "")  # checkpoints of earlier versions lack it

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        own: dict[str, Any] = {"generators": generators(pl_module.device)}
        loops = checkpoint["loops"]["fit_loop"]
        steps = trainer.global_step
        if trainer.fit_loop.epoch_loop.batch_progress.current.ready:  # in the middle of an epoch
            own["tally"] = pl_module.tallies["train"].state_dict()
            steps -= 1  # Lightning counts the one under way when it goes on
        else:  # the next epoch, which Lightning calls ready by now, is not part of this
            for counts in loops["epoch_progress"].values():
                counts["ready"] = counts["completed"]
        loops["epoch_loop.state_dict"]["_batches_that_stepped"] = steps  # it loses count
        every: list[Any] = [own]
        if trainer.world_size > 1:
            every = [None] * trainer.world_size
            torch.distributed.all_gather_object(every, own)
        checkpoint["processes"] = every
        checkpoint["circumstances"] = circumstances(trainer)
        checkpoint["config"] = self.config

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        # none in what BatchSizeFinder writes before training
        loaders = checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader")
        (self.position,) = loaders or [{}]
        every = checkpoint["processes"]
        if len(every) == trainer.world_size:
            own = every[trainer.global_rank]
            self.loaded = own["generators"]
            if "tally" in own:
                pl_module.tallies["train"] = tally = Tally()
                tally.load_state_dict(own["tally"], trainer.strategy.root_device)
        elif "tally" in every[0]:
            raise ValueError(
                f"ckpt_path: written in the middle of an epoch by {len(every)} processes; allowed: "
                f"going on with as many, not {trainer.world_size}"
            )
        now = circumstances(trainer)
        changed = [
            f"{key} {value}, now {now[key]}"
            for key, value in checkpoint["circumstances"].items()
            if value != now[key]
        ]
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            state = checkpoint["callbacks"].get(callback.state_key, {})
            if isinstance(callback, EarlyStopping) and state.get("patience") != callback.patience:
                # by force: Lightning would go back to the former patience
                state.update(patience=callback.patience, stopping_reason=Reason.NOT_STOPPED.value)
            if isinstance(callback, StochasticWeightAveraging):
                changed.append("StochasticWeightAveraging is not resumed exactly")
        if changed and trainer.is_global_zero:
            print(f"not bit for bit the run that it was: {'; '.join(changed)}", file=sys.stderr)


def agree(trainer: L.Trainer, *numbers: int) -> list[int]:
    """The largest of each over all processes, which save and stop together or not at all."""
    if trainer.world_size == 1:
        return list(numbers)
    every = torch.tensor(numbers, device=trainer.strategy.root_device)
    torch.distributed.all_reduce(every, torch.distributed.ReduceOp.MAX)
    return every.tolist()


def circumstances(trainer: L.Trainer) -> dict[str, Any]:
    """What rounding depends on beside the configuration."""
    return {
        "torch": torch.__version__.split("+")[0],
        "device": trainer.strategy.root_device.type,
        "processes": trainer.world_size,
        "threads": torch.get_num_threads(),
    }
