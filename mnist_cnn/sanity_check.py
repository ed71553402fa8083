"""A step of training that is tried on a copy: what would fail late fails at once."""

import warnings
from typing import Any

import torch
from safetensors.torch import load, save

from mnist_cnn.config.messages import must_be
from mnist_cnn.data.datamodule import ImageDataModule
from mnist_cnn.metrics import EpochMetrics
from mnist_cnn.runs.generators import generators, set_generators
from mnist_cnn.weights.files import reason, weights_of


def try_step(module: Any, data: ImageDataModule, n: int) -> None:
    """Takes a copy of a module through a step on n black images, and saves and loads its weights.

    The random generators are left where they were.

    Raises:
        ValueError: the network, the loss or a metric fails or does not give what it must, or the
            weights cannot be saved.
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
    else:
        try_metrics(copy, metrics)
    finally:
        set_generators(states, module.device)


def try_metrics(module: Any, outputs: EpochMetrics) -> None:
    """Raise ValueError for a metric of a module that fails, or that is more than one number."""
    logits, labels = torch.cat(outputs.logits), torch.cat(outputs.labels)
    for name, metric in module.metrics.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # such as of classes that these images lack
                metric.to(module.device).update(logits, labels)
                value = metric.compute()
        except Exception as e:  # whatever a user's code raises
            raise ValueError(f"metrics.{name} fails on {len(labels)} image(s): {reason(e)}") from e
        if not torch.is_tensor(value) or value.numel() != 1:
            found = tuple(value.shape) if torch.is_tensor(value) else type(value).__name__
            raise ValueError(must_be(f"metrics.{name}", "one number", found))
