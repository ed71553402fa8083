"""The state of a training process that Lightning leaves out of checkpoints."""

from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import torch

from mnist_cnn.analysis.results import processor
from mnist_cnn.config.messages import must_be
from mnist_cnn.data.replay import own_states, resumable, set_own_states
from mnist_cnn.internals.lightning import mid_epoch
from mnist_cnn.internals.loaders import fetches_ahead, take_positions
from mnist_cnn.internals.results import logged, metric_states, restore_logged, restore_metrics
from mnist_cnn.runs.generators import generators, set_generators
from mnist_cnn.runs.ranks import say


def process_state(trainer: L.Trainer, module: Any, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the state of this process, for a checkpoint that is about to be written.

    It has the states of the random generators, the positions of the training loaders (removed from
    the checkpoint), what was logged in the epoch, the states of the module's torchmetrics, the
    gradients with manual optimization, and, within an epoch, the module's `epoch_state_dict()`, if
    it has one.
    """
    within = mid_epoch(trainer)
    state: dict[str, Any] = {
        "within_epoch": within,
        "generators": generators(module.device),
        "own_generators": own_states(**holders(trainer, module)),
        "loaders": take_positions(checkpoint),
        "logged": logged(trainer),
        "metrics": metric_states(module),
    }
    if not module.automatic_optimization:  # it may accumulate gradients
        grads = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
        state["gradients"] = {name: grad.cpu() for name, grad in grads.items()}
    if within and hasattr(module, "epoch_state_dict"):
        state["epoch"] = module.epoch_state_dict()
    return state


def holders(trainer: L.Trainer, module: Any) -> dict[str, Any]:
    """Return what may hold random generators of the user's own, besides the training loaders."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]  # untyped
    return {"data": data, "module": module, "val": trainer.val_dataloaders}


def process_of(trainer: L.Trainer, every: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return this process's state in a checkpoint; None if another number of processes wrote it.

    Raises:
        ValueError: another number wrote it, and in the middle of an epoch.
    """
    if len(every) == trainer.world_size:
        return every[trainer.global_rank]
    if every[0]["within_epoch"]:
        raise ValueError(
            f"ckpt_path must be a checkpoint that {trainer.world_size} processes wrote, or one "
            f"from the end of an epoch, got the middle of one and {len(every)} processes"
        )
    return None


def unresumable(trainer: L.Trainer, others: Sequence[Any]) -> list[str]:
    """Return the reasons why a run cannot be resumed within an epoch.

    Also print a line if persistent workers are restarted each epoch.

    Args:
        others: training loaders that cannot be replayed.
    """
    reasons = [f"{type(each).__name__} in train_dataloader cannot be replayed" for each in others]
    if fetches_ahead(trainer):
        reasons.append("trainer.limit_train_batches is no number, and the loader's length unknown")
    # after a validation nothing is saved, see `validated_now`, nor while gradients are accumulated
    interval, steps = trainer.val_check_interval, trainer.accumulate_grad_batches
    if isinstance(interval, int) and steps % interval == 0 and trainer.enable_validation:
        reasons.append(f"trainer.val_check_interval={interval} validates after each step")
    stay = any(getattr(loader, "persistent_workers", False) for loader in resumable(trainer))
    if stay:
        say(
            "train_dataloader: persistent_workers=True starts new workers each epoch all the same: "
            "the random states of old ones cannot be resumed"
        )
    return reasons


def restore_process(trainer: L.Trainer, module: Any, state: dict[str, Any]) -> None:
    """Restore all but the positions of the loaders, after the last hook before a batch."""
    set_generators(state["generators"], module.device)
    set_own_states(state.get("own_generators", {}), **holders(trainer, module))
    restore_logged(trainer, state["logged"], state["within_epoch"])
    restore_metrics(module, state["metrics"])
    for name, p in module.named_parameters():
        if "gradients" in state:
            grad = state["gradients"].get(name)
            p.grad = grad if grad is None else grad.to(p.device)
    if "epoch" in state:
        module.load_epoch_state_dict(state["epoch"])


def resume_loaders(trainer: L.Trainer, state: dict[str, Any], restore: Callable[[], Any]) -> None:
    """Set the training loaders to their positions; `restore` is called before the first batch.

    Raises:
        ValueError: the number of loaders differs from the checkpoint's.
    """
    loaders, positions = resumable(trainer), state["loaders"]
    if len(loaders) != len(positions):
        allowed = f"{len(positions)} loaders, as in the checkpoint that is resumed"
        raise ValueError(must_be("train_dataloader", allowed, len(loaders)))
    for loader, position in zip(loaders, positions, strict=True):
        loader.load_state_dict(position)
        loader.restore = restore


def all_reduce_max(trainer: L.Trainer, *numbers: int) -> list[int]:
    """Return the maximum of each number over all processes, so that they save and stop together."""
    if trainer.world_size == 1:
        return list(numbers)
    every = torch.tensor(numbers, device=trainer.strategy.root_device)
    torch.distributed.all_reduce(every, torch.distributed.ReduceOp.MAX)
    return [int(number) for number in every]


def environment(trainer: L.Trainer) -> dict[str, Any]:
    """Return what rounding depends on besides the configuration."""
    return {
        "torch": torch.__version__.split("+")[0],
        "device": trainer.strategy.root_device.type,
        "processor": processor(),
        "processes": trainer.world_size,
        "threads": torch.get_num_threads(),
    }
