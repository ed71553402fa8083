"""What Lightning is kept from doing, and how a checkpoint is written."""

import io
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
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
    # the data module hands out the batches that trainer.overfit_batches asks for
    warnings.filterwarnings("ignore", r"You requested to overfit but enabled")
    # mixed precision keeps the weights in 32 bits, as the summary has it
    warnings.filterwarnings("ignore", r"Precision .* is not supported by the model summary")


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
