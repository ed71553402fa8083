"""Optimizers and schedules as a configuration describes them: by name, or of any package."""

import inspect
import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from mnist_cnn.config.own import OF_CHECKPOINTS, make

# schedules over a whole run, and the argument that is its length
LENGTHS = {"OneCycleLR": "total_steps", "CosineAnnealingLR": "T_max"}


def make_schedule(optimizer: Optimizer, module: Any) -> Any:
    """The schedule of a module's hyper-parameters, as `construct` makes it; None where it is none.

    A schedule over a whole run has the length that the module's trainer has.
    """
    args = dict(module.hparams["scheduler"])
    interval, name = args.pop("interval", "epoch"), class_name(args)
    if name is None:
        return None
    if (key := LENGTHS.get(name)) is not None:
        trainer, by_step = module.trainer, interval == "step"
        args[key] = int(trainer.estimated_stepping_batches) if by_step else trainer.max_epochs
        if args.get("pct_start", 0) * args[key] == 1:
            # torch divides by the length of a warm-up of no step
            args["pct_start"] *= 1 + 1e-9
    return construct(torch.optim.lr_scheduler, LRScheduler, "scheduler", args, optimizer)


def step_schedule(schedule: Any, metric: Any) -> None:
    """Steps a schedule after a step or an epoch; a plateau schedule looks at the metric."""
    if isinstance(schedule, ReduceLROnPlateau):
        schedule.step(metric)
    # after the last step there is no next rate: OneCycleLR would go on falling, below zero
    elif schedule.last_epoch + 1 < getattr(schedule, "total_steps", math.inf):
        schedule.step()


def keep_current(
    checkpoint: dict[str, Any], now: Mapping[str, Any], optimizer: Optimizer, schedule: Any
) -> None:
    """Keeps this optimizer and schedule where a checkpoint's are others, as force=true allows.

    An optimizer of the same class takes over what the other has gathered, such as momentum. A
    schedule is stepped to where the run is; a plateau schedule starts from optimizer.lr, or
    from the rate that was reached if only the schedule's own values have changed. Where
    other layers are frozen, the optimizer starts anew.
    """
    before, interval = checkpoint["hyper_parameters"], now["scheduler"].get("interval", "epoch")
    parts = ("optimizer", "scheduler", "freeze")
    changed = [part for part in parts if (before.get(part) or None) != (now[part] or None)]
    length = LENGTHS.get(str(class_name(now["scheduler"])), "")
    lengths = {state.get(length) for state in checkpoint["lr_schedulers"]}
    if not changed and lengths <= {getattr(schedule, length, None)}:
        return  # Lightning restores both, exactly
    alike = [p for p in parts[:2] if class_name(before[p]) == class_name(now[p])]
    (old,) = checkpoint["optimizer_states"]
    if "optimizer" in alike and "freeze" not in changed:
        optimizer.load_state_dict({**optimizer.state_dict(), "state": old["state"]})
    if not isinstance(schedule, ReduceLROnPlateau | None):
        with warnings.catch_warnings():
            # this optimizer has not taken a step yet
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
            for _ in range(checkpoint["global_step" if interval == "step" else "epoch"]):
                step_schedule(schedule, None)
    elif "scheduler" in alike and "optimizer" not in changed:
        optimizer.param_groups[0]["lr"] = old["param_groups"][0]["lr"]
    checkpoint["optimizer_states"] = checkpoint["lr_schedulers"] = []


def find_class(module: Any, kind: type, group: str, name: Any) -> type:
    """The subclass `name` of `kind` in a torch module, and nothing else that lies there."""
    cls = getattr(module, str(name), None)
    if not isinstance(cls, type) or not issubclass(cls, kind):
        raise ValueError(
            f"{group}.name must be a subclass of {kind.__name__} in {module.__name__}, got {name}"
        )
    return cls


def class_name(config: Mapping[str, Any]) -> str | None:
    """The name of the class that the config of a part describes."""
    name = config.get("_target_", config.get("name"))
    return None if name is None else str(name).rpartition(".")[2]


def construct(module: Any, kind: type, group: str, config: Mapping[str, Any], *args: Any) -> Any:
    """An object of the class `name` of a torch module, or of the class `_target_` of any package.

    Args:
        kind: what the class must be.
        config: the name, and arguments after `args`.

    Raises:
        ValueError: there is no such class, or its arguments do not fit it.
    """
    options = dict(config)
    if "_target_" in options:
        return make(kind, options, *args, key=group, known=OF_CHECKPOINTS)
    name = options.pop("name")
    cls = find_class(module, kind, group, name)
    if "fused" not in inspect.signature(cls).parameters:  # the files of some others have it
        options.pop("fused", None)
    try:
        return cls(*args, **options)
    except (TypeError, ValueError) as e:
        raise ValueError(f"{group}.name={name}: {e}") from None
