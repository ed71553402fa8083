"""What a checkpoint holds beside Lightning's own, so that a run is resumed bit for bit."""

import sys
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    EarlyStopping,
    LearningRateFinder,
    StochasticWeightAveraging,
)

from mnist_cnn.internals.lightning import keep_patience, mid_epoch
from mnist_cnn.metrics import Tally
from mnist_cnn.runs.generators import generators

# the finders search anew
INEXACT = (BatchSizeFinder, LearningRateFinder, StochasticWeightAveraging)


def agree(trainer: L.Trainer, *numbers: int) -> list[int]:
    """The largest of each over all processes, which save and stop together or not at all."""
    if trainer.world_size == 1:
        return list(numbers)
    every = torch.tensor(numbers, device=trainer.strategy.root_device)
    torch.distributed.all_reduce(every, torch.distributed.ReduceOp.MAX)
    return [int(number) for number in every]


def each_process(trainer: L.Trainer, module: Any) -> list[dict[str, Any]]:
    """What each process has of its own: `generators` and, in the middle of an epoch, `tally`."""
    own: dict[str, Any] = {"generators": generators(module.device)}
    if mid_epoch(trainer):
        own["tally"] = module.tallies["train"].state_dict()
    every: list[Any] = [own]
    if trainer.world_size > 1:
        every = [None] * trainer.world_size
        torch.distributed.all_gather_object(every, own)
    return every


def restore_process(
    trainer: L.Trainer, module: Any, every: list[dict[str, Any]]
) -> dict[str, Any] | None:
    """Restores this process's share of `processes`, but for the generators, which it returns.

    Returns:
        The states of the generators; None where another number of processes wrote the checkpoint.

    Raises:
        ValueError: another number of processes wrote it in the middle of an epoch.
    """
    if len(every) == trainer.world_size:
        own = every[trainer.global_rank]
        if "tally" in own:
            module.tallies["train"] = tally = Tally(bool(module.metrics))
            tally.load_state_dict(own["tally"], trainer.strategy.root_device)
        states: dict[str, Any] = own["generators"]
        return states
    if "tally" in every[0]:
        raise ValueError(
            f"ckpt_path must be a checkpoint that {trainer.world_size} processes wrote, or one "
            f"from the end of an epoch, got the middle of one and {len(every)} processes"
        )
    return None


def circumstances(trainer: L.Trainer) -> dict[str, Any]:
    """What rounding depends on beside the configuration."""
    return {
        "torch": torch.__version__.split("+")[0],
        "device": trainer.strategy.root_device.type,
        "processes": trainer.world_size,
        "threads": torch.get_num_threads(),
    }


def restore_callbacks(trainer: L.Trainer, checkpoint: dict[str, Any]) -> list[str]:
    """Lets callbacks of Lightning keep what is configured now; says which are not resumed exactly.

    Args:
        checkpoint: its states of the callbacks are changed, before the callbacks load them.
    """
    inexact = []
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        state = checkpoint["callbacks"].get(callback.state_key, {})
        if isinstance(callback, EarlyStopping):
            keep_patience(callback, state)
        if isinstance(callback, INEXACT):
            inexact.append(f"{type(callback).__name__} is not resumed exactly")
    return inexact


def tell_inexact(trainer: L.Trainer, reasons: list[str]) -> None:
    """Tells on stderr, once for all processes, why a resumed run is not the one that it was."""
    if reasons and trainer.is_global_zero:
        print(f"not bit for bit the run that it was: {'; '.join(reasons)}", file=sys.stderr)
