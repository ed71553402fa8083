"""Checks for numbers that are not finite."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import lightning as L
import torch
from torch import Tensor

from mnist_cnn.internals.lightning import mid_epoch


class Loss(NamedTuple):
    """The loss of a batch: its epoch, its number in the epoch, both from 1, and a scalar."""

    epoch: int
    batch: int
    value: Tensor


def loss_in(outputs: Any) -> Tensor | None:
    """Return the loss in what Lightning hands on of a training step, None if there is none.

    With manual optimization it may have any shape; its mean is returned, which is NaN or infinite
    if a value is.
    """
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
    if not isinstance(loss, Tensor):
        return None
    return loss.detach() if loss.ndim == 0 else loss.detach().float().mean()


def check_finite(trainer: L.Trainer, module: L.LightningModule, losses: Sequence[Loss]) -> None:
    """Check the training losses, logged metrics and weights; synchronizes with the device.

    Raises:
        ValueError: one is infinite or NaN; the message names the step or the epoch.
    """
    fault = ""
    finite = torch.stack([loss.value for loss in losses]).isfinite().tolist() if losses else []
    if not all(finite):
        epoch, batch, value = losses[finite.index(False)]
        known, length = "", trainer.num_training_batches
        if math.isfinite(length):  # not of a loader without a length
            steps = [math.ceil(n / trainer.accumulate_grad_batches) for n in (length, batch)]
            known = f"step {(epoch - 1) * steps[0] + steps[1]}, "
        fault = f"train/loss={value.item()} at {known}batch {batch} of epoch {epoch}"
    for name, value in (*trainer.callback_metrics.items(), *module.named_parameters()):
        if not fault and not value.isfinite().all():
            fault = f"{name} is not finite in epoch {trainer.current_epoch + mid_epoch(trainer)}"
    if fault:
        raise ValueError(f"{fault}; a lower optimizer.lr or a trainer.gradient_clip_val may help")
