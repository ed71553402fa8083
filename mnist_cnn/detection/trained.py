"""Loading of trained readers."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mnist_cnn.config.instantiate import also_allowed
from mnist_cnn.detection.network import Block, Detector
from mnist_cnn.weights import files
from mnist_cnn.weights.files import check_finite_weights, errors_of, read_file
from mnist_cnn.weights.networks import build_network, is_reader

SHIPPED = files.SHIPPED.with_name("reader.safetensors")


def load_reader(path: Path | str | None = None, targets: Sequence[str] = ()) -> Detector:
    """Load the network of a run of experiment=reader or of a weights file; by default the shipped.

    It is for reading alone: its normalisations are fused with its convolutions.

    Args:
        targets: code of your own that the file may name, such as ["my_pkg.*"].

    Raises:
        ValueError: there is no such file, or it is not a reader's.
    """
    file = Path(SHIPPED if path is None else os.path.expanduser(path))
    # not a run's checkpoints, as only its weights file has calibrated scores
    file = file / "weights.safetensors" if file.is_dir() else file
    weights, about, epoch = read_file(file)
    if is_reader(weights) and epoch is not None:
        raise ValueError(
            f"{file}: a checkpoint, whose scores are not calibrated: name the run's folder or its "
            "weights.safetensors"
        )
    with errors_of(file), also_allowed(targets):
        net = build_network(dict(about.get("model") or {}))
        net.load_state_dict(weights)
        check_finite_weights(net.state_dict())
    if not isinstance(net, Detector):
        raise ValueError(f"{file}: a network of images, no reader of pictures")
    fuse(net.eval())
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # convolutions are faster
    return net


def fuse(net: Detector) -> None:
    """Fuse the normalisation of each block with its convolution, in place."""
    for block in net.modules():
        if isinstance(block, Block):
            block.conv = fuse_conv_bn_eval(block.conv, block.norm)
            block.norm = nn.Identity()  # type: ignore[assignment]


@functools.cache
def shipped() -> Detector:
    """Load the shipped reader, once."""
    return load_reader()
