"""Networks built from their configuration."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mnist_cnn.config.instantiate import CHECKPOINTS, instantiate_as


def is_ours(model: Mapping[str, Any]) -> bool:
    """Return whether a model config is of a network of model.py, with `classes` and `shape`."""
    return str(model.get("_target_")).startswith("mnist_cnn.model.")


def is_reader(weights: Mapping[str, object]) -> bool:
    """Return whether weights, by name, are of a `Detector`, or a class derived from it."""
    return {"character_weights", "line_weights"} <= {key.rpartition(".")[2] for key in weights}


def build_network(config: Mapping[str, Any]) -> nn.Module:
    """Build the network of a model config: `_target_`, a class of model.py or not, and arguments.

    Raises:
        ForbiddenError: the class is on no allowlist.
        ValueError: the arguments do not fit the class, or one is too large.
    """
    net = instantiate_as(nn.Module, config, key="model", allowlist=CHECKPOINTS)
    # convolutions run about a third faster with channels last, but a user's network may call
    # `view` on the output of one
    return net.to(memory_format=torch.channels_last) if is_ours(config) else net
