"""Optimizers and learning rate schedules from a configuration, and the optimizer Muon."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from mnist_cnn.config.depends import LAID_OUT
from mnist_cnn.config.instantiate import CHECKPOINTS, class_name, instantiate_as
from mnist_cnn.config.messages import must_be


def make_optimizer(config: Mapping[str, Any], parameters: Sequence[nn.Parameter]) -> Any:
    """Make the Optimizer of a config; ValueError if it or an argument does not exist."""
    return instantiate_as(Optimizer, config, parameters, key="optimizer", allowlist=CHECKPOINTS)


def make_schedule(
    config: Mapping[str, Any], optimizer: Optimizer, length: Callable[[], int]
) -> Any:
    """Make the LRScheduler of a config; ValueError if it or an argument does not exist.

    Args:
        length: returns the number of steps or epochs of the run, which some schedules need.
    """
    args = {key: value for key, value in config.items() if key != "interval"}
    if (key := LAID_OUT.get(str(class_name(config)))) is not None:
        for given in args.keys() & {key, "epochs", "steps_per_epoch"}:
            allowed = "left out, as the run sets it"
            raise ValueError(must_be(f"scheduler.{given}", allowed, args[given]))
        args[key] = length()
        start = args.get("pct_start")  # torch itself refuses what is no number
        if isinstance(start, float) and start * args[key] == 1:
            # torch would divide by zero for a warm-up of no steps
            args["pct_start"] *= 1 + 1e-9
    return instantiate_as(LRScheduler, args, optimizer, key="scheduler", allowlist=CHECKPOINTS)


def training_length(trainer: L.Trainer, interval: str = "step") -> int:
    """Return the number of steps or epochs of a training; ValueError if it is unknown."""
    limit = trainer.max_steps if interval == "step" else trainer.max_epochs
    length = trainer.estimated_stepping_batches if interval == "step" else limit
    if interval == "epoch" and limit is not None and trainer.max_steps > 0:
        steps = trainer.estimated_stepping_batches  # this makes the loaders
        each = trainer.num_training_batches / trainer.accumulate_grad_batches
        length = min(limit, math.ceil(steps / each))
    if length is None or not 0 < length < math.inf:  # -1 for data without a length
        wanted = "positive where a schedule or callback spans a training of unknown length"
        raise ValueError(must_be(f"trainer.max_{interval}s", wanted, limit))
    return int(length)


def step_schedule(schedule: Any, metric: Any) -> None:
    """Step a schedule; ReduceLROnPlateau is skipped in an epoch without its metric.

    Raises:
        ValueError: an argument of the schedule is of no use.
    """
    try:
        if isinstance(schedule, ReduceLROnPlateau):
            if metric is not None:
                schedule.step(metric)
        # not after the last step: OneCycleLR would fall below zero
        elif schedule.last_epoch + 1 < getattr(schedule, "total_steps", math.inf):
            schedule.step()
    except (TypeError, ArithmeticError) as e:
        raise ValueError(f"scheduler: {type(schedule).__name__}: {e}") from e


class Muon(Optimizer):
    """Muon for weights of two or more dimensions, AdamW for all others, at one learning rate.

    Muon (K. Jordan et al., 2024, https://kellerjordan.github.io/posts/muon) moves a matrix by its
    gradient's momentum with all singular values set to about 1; a filter is a row of it. Such an
    update is scaled to the size of AdamW's (J. Liu et al., Muon is scalable for LLM training, 2025,
    https://arxiv.org/abs/2502.16982). torch.optim.Muon takes matrices alone.

    Args:
        parameters: of a network.
        lr: learning rate of both.
        weight_decay: decoupled weight decay of both.
        momentum: Nesterov momentum of Muon.
        betas: AdamW's coefficients of the running means of gradients and of their squares.
        eps: added to AdamW's denominator.

    Raises:
        ValueError: a number is out of its range, or betas are not two numbers.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ):
        if len(betas) != 2:
            raise ValueError(must_be("betas", "two numbers", betas))
        check_range(math.inf, lr=lr, weight_decay=weight_decay, eps=eps)
        check_range(1, momentum=momentum, **dict(zip(("betas.0", "betas.1"), betas, strict=True)))
        settings = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(parameters, {**settings, "betas": tuple(betas), "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters once, and return the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                of = muon_update if weight.ndim > 1 else adam_update
                update = of(weight.grad, self.state[weight], group)
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update, alpha=-group["lr"])
        return loss


def check_range(end: float, **values: float) -> None:
    """Raise ValueError for a value that is no number in [0, end)."""
    for name, value in values.items():
        if not isinstance(value, int | float) or not 0 <= value < end:
            raise ValueError(must_be(name, f"a number in [0, {end})", value))


def muon_update(gradient: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> Tensor:
    """Return Muon's update of a weight, as large as AdamW's typically is."""
    if not state:
        state["momentum"] = torch.zeros_like(gradient)
    state["momentum"].lerp_(gradient, 1 - group["momentum"])
    ahead = gradient.lerp(state["momentum"], group["momentum"])
    matrix = orthogonalized(ahead.flatten(1))
    return (0.2 * math.sqrt(max(matrix.shape)) * matrix).view(gradient.shape)


def adam_update(gradient: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> Tensor:
    """Return Adam's update of a weight."""
    if not state:
        state |= {"step": 0, "mean": torch.zeros_like(gradient)}
        state["square"] = torch.zeros_like(gradient)
    state["step"] += 1
    one, two = group["betas"]
    state["mean"].lerp_(gradient, 1 - one)
    state["square"].lerp_(gradient.square(), 1 - two)
    mean, square = state["mean"] / (1 - one ** state["step"]), state["square"]
    return mean / ((square / (1 - two ** state["step"])).sqrt() + group["eps"])


def orthogonalized(matrix: Tensor) -> Tensor:
    """Return a matrix with the same singular vectors, and singular values of about 1.

    Five iterations of a quintic polynomial, with Jordan's coefficients: the values end between 0.7
    and 1.2, which is exact enough, as is bfloat16. A processor without instructions for bfloat16
    would take many times as long with it, so it is for GPUs alone.
    """
    x = matrix.bfloat16() if matrix.is_cuda else matrix.float()
    x = x / (x.norm() + 1e-7)
    is_tall = x.shape[0] > x.shape[1]
    x = x.T if is_tall else x
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x
    return (x.T if is_tall else x).to(matrix.dtype)
