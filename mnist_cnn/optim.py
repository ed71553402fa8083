"""Optimizers and learning rate schedules from a configuration."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from mnist_cnn.config.depends import LAID_OUT
from mnist_cnn.config.instantiate import CHECKPOINTS, class_name, instantiate_as


def make_optimizer(config: Mapping[str, Any], parameters: Sequence[nn.Parameter]) -> Any:
    """Make the Optimizer of a config; ValueError if it or an argument does not exist."""
    return instantiate_as(Optimizer, config, parameters, key="optimizer", allowlist=CHECKPOINTS)


def make_schedule(
    config: Mapping[str, Any], optimizer: Optimizer, length: Callable[[], int | float]
) -> Any:
    """Make the LRScheduler of a config; ValueError if it or an argument does not exist.

    Args:
        length: returns the number of steps or epochs of the run, which some schedules need.
    """
    args = {key: value for key, value in config.items() if key != "interval"}
    if (key := LAID_OUT.get(str(class_name(config)))) is not None:
        args[key] = int(length())
        if args.get("pct_start", 0) * args[key] == 1:
            # torch would divide by zero for a warm-up of no steps
            args["pct_start"] *= 1 + 1e-9
    return instantiate_as(LRScheduler, args, optimizer, key="scheduler", allowlist=CHECKPOINTS)


def step_schedule(schedule: Any, metric: Any) -> None:
    """Step a schedule; ReduceLROnPlateau is skipped in an epoch without its metric."""
    if isinstance(schedule, ReduceLROnPlateau):
        if metric is not None:
            schedule.step(metric)
    # not after the last step: OneCycleLR would fall below zero
    elif schedule.last_epoch + 1 < getattr(schedule, "total_steps", math.inf):
        schedule.step()
