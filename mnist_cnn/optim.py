"""Optimizers and schedules, as a configuration describes them."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from mnist_cnn.config.depends import LAID_OUT
from mnist_cnn.config.instantiate import CHECKPOINTS, class_name, instantiate_as


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
    if (key := LAID_OUT.get(str(class_name(config)))) is not None:
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
