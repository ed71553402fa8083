"""The end of a run at a loss that is not a number."""

from typing import Any

import lightning as L
import torch

from mnist_cnn.callbacks.between_epochs import BetweenEpochs


class NaNGuard(BetweenEpochs):
    """Ends a run whose loss is no longer a finite number.

    Args:
        every_steps: batches between two checks, each of which waits for the device; there is one
            more at the end of an epoch.

    Raises:
        ValueError: see `check_finite`.
    """

    order = -5

    def __init__(self, *, every_steps: int):
        self.every_steps = every_steps

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % self.every_steps == 0:
            check_finite(trainer, pl_module, trainer.current_epoch + 1)

    def epoch_done(self, trainer: L.Trainer, module: Any) -> None:
        check_finite(trainer, module, trainer.current_epoch)


def check_finite(trainer: L.Trainer, module: Any, epoch: int) -> None:
    """Check the losses of an epoch (from 1) since the last check, the metrics and the weights.

    Raises:
        ValueError: one is infinite or not a number. It names the step.
    """
    tally = module.epoch_metrics["train"]
    fault = ""
    new = tally.losses[tally.looked_at :]
    if new and not torch.stack(new).isfinite().all():
        batch = next(k for k, loss in enumerate(tally.losses) if not loss.isfinite())
        step = (epoch - 1) * trainer.num_training_batches + batch + 1
        value = tally.losses[batch].item()
        fault = f"train/loss={value} at step {step}, batch {batch + 1} of epoch {epoch}"
    tally.looked_at = len(tally.losses)
    for name, value in (*trainer.callback_metrics.items(), *module.named_parameters()):
        if not fault and not value.isfinite().all():
            fault = f"{name} is not finite in epoch {epoch}"
    if fault:
        advice = "a lower optimizer.lr or a trainer.gradient_clip_val may help"
        raise ValueError(f"{fault}; {advice}")
