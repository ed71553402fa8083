"""The networks: plain torch, no Lightning, no Hydra. A class written here is at once `model.name`.

Shapes: B images in a batch, 10 classes; an image is (1, 28, 28).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_PARAMETERS = 100_000_000  # 400 MB, and with Adam's moments and the gradients 1.6 GB


class CNN(nn.Module):
    """The article's network: two 3x3 convolutions, each pooled, then two dense layers.

    Args:
        channels: output channels of the two convolutions.
        hidden: units of the first dense layer.
        dropout: probability of dropping each of these units in training.

    225,034 parameters with channels=(32, 64), hidden=128.
    """

    def __init__(self, channels: Sequence[int], hidden: int, dropout: float):
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels[0], 3)
        self.conv2 = nn.Conv2d(channels[0], channels[1], 3)
        self.dense1 = nn.Linear(channels[1] * 5 * 5, hidden)
        self.dropout = nn.Dropout(dropout)
        self.dense2 = nn.Linear(hidden, 10)
        init_as_keras(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 10) of normalised images x (B, 1, 28, 28)."""
        # pool before ReLU: the same function and gradient, a quarter of the work
        x = F.relu(F.max_pool2d(self.conv1(x), 2))  # (B, 32, 13, 13)
        x = F.relu(F.max_pool2d(self.conv2(x), 2))  # (B, 64, 5, 5)
        x = F.relu(self.dense1(x.flatten(1)))  # (B, 128)
        return self.dense2(self.dropout(x))


class MLP(nn.Module):
    """One hidden layer over the pixels, the baseline without convolution.

    Args:
        hidden: units of the hidden layer.
        dropout: probability of dropping each of these units in training.

    407,050 parameters with hidden=512.
    """

    def __init__(self, hidden: int, dropout: float):
        super().__init__()
        self.dense1 = nn.Linear(28 * 28, hidden)
        self.dropout = nn.Dropout(dropout)
        self.dense2 = nn.Linear(hidden, 10)
        init_as_keras(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 10) of normalised images x (B, 1, 28, 28)."""
        x = F.relu(self.dense1(x.flatten(1)))  # (B, 512)
        return self.dense2(self.dropout(x))


class VGG(nn.Module):
    """Convolutions with batch normalisation, in stages that each halve the image.

    After Simonyan and Zisserman (2015, arXiv:1409.1556), with a first convolution that is cheap:
    at full resolution it would take most of the time.

    Args:
        stem: output channels of the first convolution.
        kernel: its size, odd.
        stride: 1 to halve its output by max-pooling, 2 to compute only a quarter of it.
        stages: output channels of the 3x3 convolutions, a list for each stage; max-pooling ends it.
        hidden: units of a dense layer before the last one, 0 for none.
        dropout: probability of dropping each input of the last layer in training.
    """

    def __init__(
        self,
        stem: int,
        kernel: int,
        stride: int,
        stages: Sequence[Sequence[int]],
        hidden: int,
        dropout: float,
    ):
        super().__init__()
        layers = convolution(1, stem, kernel, stride, pool=stride == 1)  # (B, stem, 14, 14)
        channels, side = stem, 14
        for widths in stages:
            for k, width in enumerate(widths, 1):
                layers += convolution(channels, width, 3, 1, pool=k == len(widths))
                channels = width
            side //= 2
        features = channels * side**2
        layers.append(nn.Flatten())
        if hidden:
            layers += [nn.Linear(features, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU()]
            features = hidden
        self.layers = nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(features, 10))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 10) of normalised images x (B, 1, 28, 28)."""
        return self.layers(x)


def convolution(channels: int, width: int, kernel: int, stride: int, pool: bool) -> list[nn.Module]:
    """A convolution that keeps the image's size but for its stride, normalised, with ReLU."""
    return [
        nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False),
        *([nn.MaxPool2d(2)] if pool else []),  # first, so that the rest is a quarter of the work
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ]


def init_as_keras(net: nn.Module) -> None:
    """Glorot-uniform weights and zero biases, the defaults of Keras' layers."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def build(config: Mapping[str, Any]) -> nn.Module:
    """The network that a model config describes: the class `name` of this file and its arguments.

    Only this file is looked in, so a checkpoint cannot name code to be imported, and what is too
    large to be meant is refused before it takes memory.

    Raises:
        ValueError: no such class, arguments that do not fit it, or over MAX_PARAMETERS.
    """
    args = dict(config)
    name = args.pop("name", None)
    known = {k: v for k, v in globals().items() if isinstance(v, type) and issubclass(v, nn.Module)}
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"model.name={name}: allowed: {', '.join(sorted(known))}")
    try:
        with torch.device("meta"):  # shapes without memory
            count = sum(p.numel() for p in known[name](**args).parameters())
    except (TypeError, ValueError, IndexError, RuntimeError) as e:
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise ValueError(f"model.name={name}: {reason}") from None
    if count > MAX_PARAMETERS:
        raise ValueError(f"model: {count:,} parameters; allowed: at most {MAX_PARAMETERS:,}")
    return known[name](**args)
