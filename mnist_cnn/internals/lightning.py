"""What Lightning is kept from doing, and how a checkpoint is written."""

import io
import logging
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO


def quiet_lightning() -> None:
    """Silences what Lightning tells a user without need."""
    # which devices there are, and advertising
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # but a profiler's table was asked for
    profilers = logging.getLogger("lightning.pytorch.profilers")
    profilers.setLevel(logging.INFO)
    if not (profilers.handlers or logging.getLogger("lightning.pytorch").handlers):
        profilers.addHandler(logging.StreamHandler())
    # its own use of a torch class that is on its way out
    warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning)
    # metrics are sums over all processes already
    warnings.filterwarnings("ignore", r".*sync_dist=True")
    # data.val_fraction=0 leaves no validation images
    warnings.filterwarnings("ignore", r"Total length of `tuple` across ranks is zero")
    # nothing is logged at single steps
    warnings.filterwarnings("ignore", r".*smaller than the logging interval")
    # mixed precision keeps the weights in 32 bits, as the summary has it
    warnings.filterwarnings("ignore", r"Precision .* is not supported by the model summary")


STEP_HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)


def skip_idle_hooks(owners: Iterable[Callback | L.LightningModule]) -> None:
    """Takes away the hooks of a step that a callback or module does not use.

    Lightning calls the empty ones too, six a step for each owner, each in a context of its own:
    1 % of a step of the article's network. It passes over a hook that is None.
    """
    for owner in owners:
        base = Callback if isinstance(owner, Callback) else L.LightningModule
        for hook in STEP_HOOKS:
            if getattr(type(owner), hook) is getattr(base, hook):
                setattr(owner, hook, None)


class InPlace(TorchCheckpointIO):
    """Writes a checkpoint where it is to be; Lightning takes the way over the temporary folder."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        buffer = io.BytesIO()  # torch.save turns the errors of a file into errors of its own
        torch.save(checkpoint, buffer)
        file = Path(path)  # callbacks of Lightning's own pass text
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(buffer.getbuffer())
