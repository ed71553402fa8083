"""A trial step on a copy of a module, so that what would fail late in training fails at once."""

import warnings
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from mnist_cnn.config.instantiate import rejection
from mnist_cnn.config.messages import must_be
from mnist_cnn.data.datamodule import ImageDataModule
from mnist_cnn.metrics import EpochMetrics
from mnist_cnn.optim import make_optimizer
from mnist_cnn.runs.terminal import reason
from mnist_cnn.weights.files import weights_of


def try_step(module: Any, data: ImageDataModule, n: int) -> None:
    """Run a training step of a copy of a module on n black images, and save and load its weights.

    Raises:
        ValueError: the network, loss, optimizer or a metric fails or returns a wrong shape, or the
            weights cannot be saved.
    """
    try:
        copy = type(module)(**module.hparams).to(module.device)
        for new, old in zip(copy.parameters(), module.parameters(), strict=True):
            new.data = torch.empty_like(old, dtype=new.dtype).copy_(new)  # its memory format
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
    except Exception as e:  # user code may raise anything
        key = f"data.batch_size={data.batch_size}: the last batch: " if n < 2 else ""
        raise ValueError(f"{key}the network or the loss fails on {n} image(s): {reason(e)}") from e
    try_optimizer(copy, loss)
    try_metrics(copy, metrics)


def try_optimizer(module: Any, loss: Tensor) -> None:
    """Raise ValueError if a module's optimizer cannot make a step after its loss's backward."""
    config = module.hparams["optimizer"]
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = make_optimizer(config, trained)
    try:
        optimizer.step(lambda: loss.detach())  # LBFGS asks for it
    except Exception as e:  # of arguments that its constructor does not check
        raise ValueError(rejection("optimizer", config, e)) from e


def try_metrics(module: Any, outputs: EpochMetrics) -> None:
    """Raise ValueError if a metric of a module fails or returns more than one number."""
    logits, labels = torch.cat(outputs.logits), torch.cat(outputs.labels)
    for name, metric in module.metrics.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # such as for classes without images
                metric.to(module.device).update(logits, labels)
                value = metric.compute()
        except Exception as e:  # user code may raise anything
            raise ValueError(f"metrics.{name} fails on {len(labels)} image(s): {reason(e)}") from e
        if not torch.is_tensor(value) or value.numel() != 1:
            found = tuple(value.shape) if torch.is_tensor(value) else type(value).__name__
            raise ValueError(must_be(f"metrics.{name}", "one number", found))
