"""A step of training that is tried on a copy: what would fail late fails at once."""

from typing import Any

import torch
from safetensors.torch import load, save

from mnist_cnn.config.messages import must_be
from mnist_cnn.data.datamodule import ImageDataModule
from mnist_cnn.metrics import EpochMetrics
from mnist_cnn.pretrained import reason, weights_of
from mnist_cnn.runs.generators import generators, set_generators


def try_step(module: Any, data: ImageDataModule, n: int) -> None:
    """Takes a copy of a module through a step on n black images, and saves and loads its weights.

    The random generators are left where they were.

    Raises:
        ValueError: the network or the loss fails, does not give what it must, or cannot be saved.
    """
    states = generators(module.device)
    try:
        copy = type(module)(**module.hparams).to(module.device)
        copy.epoch_metrics["train"] = metrics = EpochMetrics()
        x, y = torch.zeros(n, *data.shape), torch.zeros(n, dtype=torch.int64)
        loss = copy.shared_step("train", (x.to(module.device), y.to(module.device)))
        wanted, found = (n, len(data.classes)), tuple(metrics.logits[0].shape)
        if found != wanted:
            raise ValueError(must_be("logits", f"{wanted}", found))
        if loss.dim():
            raise ValueError(must_be("loss", "one number, the mean of a batch", tuple(loss.shape)))
        loss.backward()
        copy.net.load_state_dict(load(save(weights_of(copy.net))))
    except Exception as e:  # whatever a user's code raises
        key = f"data.batch_size={data.batch_size}: the last batch: " if n < 2 else ""
        raise ValueError(f"{key}the network or the loss fails on {n} image(s): {reason(e)}") from e
    finally:
        set_generators(states, module.device)
