"""Keeps the checkpoints of a run: exact ones, written whenever it may be interrupted."""

import math
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint as LightningCheckpoint

from mnist_cnn.callbacks.between_epochs import BetweenEpochs
from mnist_cnn.config.instantiate import class_name
from mnist_cnn.config.messages import must_be
from mnist_cnn.data.datamodule import described
from mnist_cnn.internals.lightning import (
    close_epoch,
    correct_counters,
    ends_after_this_batch,
    mid_epoch,
    stopped_early,
)
from mnist_cnn.internals.loaders import (
    begin_batches,
    fetches_ahead,
    make_resumable,
    resumable,
    take_positions,
)
from mnist_cnn.metrics import EpochMetrics
from mnist_cnn.pretrained import read_checkpoint
from mnist_cnn.runs.folder import BEST, LAST, RunFolder, replace
from mnist_cnn.runs.generators import generators, set_generators
from mnist_cnn.runs.signals import Interrupted, StopSignal


class Checkpoint(BetweenEpochs, LightningCheckpoint):
    """Keeps `last.ckpt`, and `best.ckpt` where the monitored metric was best.

    Both are complete: a run that is resumed from one ends, bit for bit, where it would have ended.
    A file is replaced by a whole new one or not at all, and only while all numbers are finite.
    A signal to stop is answered when the step is done: with a checkpoint, then Interrupted.
    They lie in `checkpoints/` of the trainer's default_root_dir.

    Args:
        monitor: a logged metric, such as val/loss; None: only the last is kept.
        mode: min or max, which way is better.
        every_seconds: within an epoch, `last.ckpt` is written when it is this old; None for never.
        every_steps: and after each this number of batches of an epoch; None for never.
        check_every_steps: batches between two looks for a loss that is no finite number, each of
            which waits for the device; there is one more before each checkpoint.

    Attributes:
        run: the run's folder, whose results are outdated by the first checkpoint; set it before
            fitting, where there is one.
        start: the checkpoint that the run starts from; likewise.
        data: the configuration of a user's own data, for who evaluates a checkpoint; likewise.
        best_epoch: counted from 1; None where the metric was not logged.

    Raises:
        Interrupted: SIGINT (Ctrl-C), SIGTERM or SIGUSR1 came.
        ValueError: a loss, a metric or a weight is not finite; a checkpoint in the middle of an
            epoch that another number of processes wrote.
        OSError: the disk is full, or the like.
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
        self.run: RunFolder | None = None
        self.start: Path | str | None = None
        self.data: dict[str, Any] = {}
        self.loaded: dict[str, Any] | None = None  # this process's random generators
        self.positions: list[dict[str, Any]] = []  # of its training loaders
        self.within_epochs = True  # whether its loaders can be resumed there
        self.due = math.inf
        self.stop = StopSignal()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        folder = Path(trainer.default_root_dir)
        self.best, self.last = folder / BEST, folder / LAST
        # Lightning does so too, but only after loading a checkpoint: 64 bits would become 32
        trainer.precision_plugin.convert_module(pl_module)

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        super().on_train_start(trainer, pl_module)
        self.within_epochs = not said_of_loaders(trainer, make_resumable(trainer))
        if self.loaded:
            for loader, position in zip(resumable(trainer), self.positions, strict=True):
                loader.load_state_dict(position)
            # last of all callbacks, since setting up draws numbers too
            set_generators(self.loaded, pl_module.device)
            callbacks: Any = trainer.callbacks  # type: ignore[attr-defined]
            trainer.should_stop |= any(map(stopped_early, callbacks))
        if self.loaded or resumable(trainer):
            begin_batches(trainer)
        self.due = time.monotonic() + self.every_seconds
        self.stop.listen(patient=trainer.world_size > 1)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done = batch_idx + 1
        if done % self.check_every_steps == 0:
            check_finite(trainer, pl_module, trainer.current_epoch + 1)
        if done % trainer.accumulate_grad_batches or ends_after_this_batch(trainer, batch_idx):
            return  # half a gradient is not kept; the epoch's own checkpoint comes soon
        due = time.monotonic() >= self.due or done % (self.every_steps or math.inf) == 0
        stop, save = agree(trainer, self.stop.received, due)
        if self.within_epochs and (stop or save):
            self.save(trainer, pl_module)
        if stop:
            raise Interrupted(stop)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        score = trainer.callback_metrics.get(self.monitor) if self.monitor else None
        if score is None:
            return
        if score < self.best_score if self.mode == "min" else score > self.best_score:
            self.best_score, self.best_epoch = float(score), trainer.current_epoch + 1

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        make_resumable(trainer)  # new ones, of trainer.reload_dataloaders_every_n_epochs
        super().on_train_epoch_start(trainer, pl_module)

    def epoch_done(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        close_epoch(trainer)
        for loader in resumable(trainer):
            loader.end_epoch()
        self.save(trainer, module)
        (stop,) = agree(trainer, self.stop.received)
        if stop:
            raise Interrupted(stop)

    def save(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        within, epoch = mid_epoch(trainer), trainer.current_epoch
        check_finite(trainer, module, epoch + within)
        new = self.last.with_suffix(".new")
        try:
            trainer.save_checkpoint(new, weights_only=False)
            if trainer.is_global_zero:
                if self.run is not None:
                    self.run.outdate()
                if self.best_epoch == epoch and not within:
                    copy_whole(new, self.best)
                replace(new, self.last)
        except OSError:  # a full disk, most likely: give back what was taken
            for file in self.last.parent.glob("*.new"):
                file.unlink()
            raise
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
        return {"best_score": self.best_score, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.best.exists():  # a run may start from a checkpoint without it
            self.best_score, self.best_epoch = state_dict["best_score"], state_dict["best_epoch"]

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        correct_counters(trainer, checkpoint)
        own: dict[str, Any] = {"generators": generators(pl_module.device)}
        own["loaders"] = take_positions(checkpoint)
        if mid_epoch(trainer) and hasattr(pl_module, "epoch_metrics"):
            own["tally"] = pl_module.epoch_metrics["train"].state_dict()
        every: list[Any] = [own]
        if trainer.world_size > 1:
            every = [None] * trainer.world_size
            torch.distributed.all_gather_object(every, own)
        checkpoint["processes"] = every
        checkpoint["circumstances"] = circumstances(trainer)
        if self.data:
            checkpoint["data"] = described(self.data, trainer.datamodule)  # type: ignore[attr-defined]

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        for part in ("optimizer", "scheduler"):
            args = checkpoint.get("hyper_parameters", {}), pl_module.hparams
            old, new = (class_name(each.get(part) or {}) for each in args)
            if old != new:
                allowed = f"{old}, as in the checkpoint that is resumed"
                raise ValueError(must_be(f"{part}._target_", allowed, new))
        self.take_over(trainer, checkpoint)
        if "processes" in checkpoint:  # else another callback wrote it
            self.restore_process(trainer, pl_module, checkpoint["processes"])
        now, before = circumstances(trainer), checkpoint.get("circumstances", {})
        changed = [f"{k} {before.get(k)}, now {v}" for k, v in now.items() if v != before.get(k)]
        if changed and trainer.is_global_zero:
            said = "; ".join(changed)
            print(f"not bit for bit the run that it was: {said}", file=sys.stderr)

    def take_over(self, trainer: L.Trainer, checkpoint: dict[str, Any]) -> None:
        """Copy another run's checkpoint that this run starts from, after the best beside it."""
        if not trainer.is_global_zero or self.last.exists() or self.start is None:
            return
        best = Path(self.start).with_name(self.best.name)
        best_epoch = checkpoint["callbacks"].get(self.state_key, {}).get("best_epoch")
        if best_epoch and best.is_file() and read_checkpoint(best)["epoch"] == best_epoch:
            copy_whole(best, self.best)
        copy_whole(Path(self.start), self.last)

    def restore_process(self, trainer: L.Trainer, module: Any, every: list[dict[str, Any]]) -> None:
        if len(every) == trainer.world_size:
            own = every[trainer.global_rank]
            self.loaded, self.positions = own["generators"], own["loaders"]
            if "tally" in own:
                module.epoch_metrics["train"] = tally = EpochMetrics()
                tally.load_state_dict(own["tally"], trainer.strategy.root_device)
        elif "tally" in every[0]:
            raise ValueError(
                f"ckpt_path must be a checkpoint that {trainer.world_size} processes wrote, or one "
                f"from the end of an epoch, got the middle of one and {len(every)} processes"
            )


def said_of_loaders(trainer: L.Trainer, others: Sequence[Any]) -> str:
    """Say on stderr, and return, why there can be no checkpoint within an epoch; nothing: `""`."""
    said = [f"{type(each).__name__} in train_dataloader cannot be replayed" for each in others]
    if fetches_ahead(trainer):
        said.append("trainer.limit_train_batches is no number, nor is the loader's length known")
    if not trainer.is_global_zero:
        return "; ".join(said)
    if said:
        print(f"no checkpoint within an epoch: {'; '.join(said)}", file=sys.stderr)
    if any(getattr(loader, "persistent_workers", False) for loader in resumable(trainer)):
        print(
            "train_dataloader: persistent_workers=True starts new workers each epoch all the same: "
            "the random states of old ones cannot be resumed",
            file=sys.stderr,
        )
    return "; ".join(said)


def check_finite(trainer: L.Trainer, module: Any, epoch: int) -> None:
    """Check the losses of an epoch (from 1), the metrics and the weights.

    Raises:
        ValueError: one is infinite or not a number. It names the step.
    """
    known = getattr(module, "epoch_metrics", {}).get("train")
    losses, fault = known.losses if known else [], ""
    finite = torch.stack(losses).isfinite().tolist() if losses else []
    if not all(finite):
        batch = finite.index(False)
        step = (epoch - 1) * trainer.num_training_batches + batch + 1
        loss = f"train/loss={losses[batch].item()}"
        fault = f"{loss} at step {step}, batch {batch + 1} of epoch {epoch}"
    for name, value in (*trainer.callback_metrics.items(), *module.named_parameters()):
        if not fault and not value.isfinite().all():
            fault = f"{name} is not finite in epoch {epoch}"
    if fault:
        raise ValueError(f"{fault}; a lower optimizer.lr or a trainer.gradient_clip_val may help")


def check_whole(path: Path | str) -> None:
    """Raise ValueError where a checkpoint that a run is to start from is damaged, or is none."""
    try:
        read_checkpoint(path)
    except ValueError as e:
        wanted = must_be("ckpt_path", "a checkpoint that training can resume", path)
        raise ValueError(f"{wanted}: {e}") from None


def copy_whole(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_suffix(".new")
    shutil.copyfile(source, new)
    replace(new, target)


def agree(trainer: L.Trainer, *numbers: int) -> list[int]:
    """The largest of each over all processes, which save and stop together or not at all."""
    if trainer.world_size == 1:
        return list(numbers)
    every = torch.tensor(numbers, device=trainer.strategy.root_device)
    torch.distributed.all_reduce(every, torch.distributed.ReduceOp.MAX)
    return [int(number) for number in every]


def circumstances(trainer: L.Trainer) -> dict[str, Any]:
    """Return what rounding depends on beside the configuration."""
    return {
        "torch": torch.__version__.split("+")[0],
        "device": trainer.strategy.root_device.type,
        "processes": trainer.world_size,
        "threads": torch.get_num_threads(),
    }
