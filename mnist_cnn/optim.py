"""Optimizers and schedules, as a configuration describes them."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from mnist_cnn.config.instantiate import CHECKPOINTS, class_name, instantiate_as
from mnist_cnn.config.messages import must_be

# the tutorial's, as conf/ has them
OPTIMIZER = {
    **{"_target_": "torch.optim.Adam", "_partial_": True, "lr": 1e-3, "betas": [0.9, 0.999]},
    **{"eps": 1e-7, "weight_decay": 0.0, "fused": True},
}
SCHEDULER = {
    **{"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau", "_partial_": True},
    **{"interval": "epoch", "mode": "min", "factor": 0.5, "patience": 1, "threshold": 1e-4},
    **{"threshold_mode": "abs", "min_lr": 1e-5},
}
# schedules over a whole run, and the argument that is its length
LENGTHS = {"OneCycleLR": "total_steps", "CosineAnnealingLR": "T_max"}


def make_optimizer(config: Mapping[str, Any], parameters: Sequence[nn.Parameter]) -> Any:
    """The Optimizer of a config; ValueError where it or an argument does not exist."""
    return instantiate_as(Optimizer, config, parameters, key="optimizer", allowlist=CHECKPOINTS)


def make_schedule(
    config: Mapping[str, Any], optimizer: Optimizer, length: Callable[[], int | float]
) -> Any:
    """The LRScheduler of a config; ValueError where it or an argument does not exist.

    Args:
        length: gives the steps or epochs of the run, over which some schedules are laid out.
    """
    args = {key: value for key, value in config.items() if key != "interval"}
    if (key := LENGTHS.get(str(class_name(config)))) is not None:
        args[key] = int(length())
        if args.get("pct_start", 0) * args[key] == 1:
            # torch divides by the length of a warm-up of no step
            args["pct_start"] *= 1 + 1e-9
    return instantiate_as(LRScheduler, args, optimizer, key="scheduler", allowlist=CHECKPOINTS)


def step_schedule(schedule: Any, metric: Any) -> None:
    """Steps a schedule; one of a plateau not in an epoch without its metric."""
    if isinstance(schedule, ReduceLROnPlateau):
        if metric is not None:
            schedule.step(metric)
    # after the last step there is no next rate: OneCycleLR would go on falling, below zero
    elif schedule.last_epoch + 1 < getattr(schedule, "total_steps", math.inf):
        schedule.step()


def check_resumed(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raises ValueError for a checkpoint whose state is of another optimizer or schedule.

    Args:
        old, new: the module's arguments, as the checkpoint has them and now.
    """
    schedule = class_name(old["scheduler"])
    same = {
        "optimizer._target_": [class_name(args["optimizer"]) for args in (old, new)],
        "scheduler": [args["scheduler"] for args in (old, new)],
    }
    if schedule not in (None, "ReduceLROnPlateau"):  # which was laid out from that rate
        same["optimizer.lr"] = [args["optimizer"].get("lr") for args in (old, new)]
    for key, (before, now) in same.items():
        if before != now:
            raise ValueError(must_be(key, f"{before}, as in the checkpoint that is resumed", now))
