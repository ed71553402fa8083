"""The networks, in plain torch, with their input normalisation.

Shapes: B images in a batch, K classes; an image is (C, H, W). The defaults are MNIST's.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

CLASSES, SHAPE = 10, (1, 28, 28)  # of MNIST

Pixels = float | Sequence[float] | Literal["auto"]  # one value, one per channel, or to be fitted


class Normalize(nn.Module):
    """Normalize images as (x - mean) / std, with both constants saved as buffers.

    Args:
        mean, std: of the training images' pixels, which are in [0, 1]: one number, one per
            channel, or `auto`, which is NaN until `fit`.
    """

    mean: Tensor  # (C, 1, 1)
    std: Tensor

    def __init__(self, mean: Pixels, std: Pixels, channels: int = 1):
        super().__init__()
        for name, value in (("mean", mean), ("std", std)):
            values = torch.as_tensor(math.nan if value == "auto" else value, dtype=torch.float32)
            constants = values.view(-1, 1, 1).expand(channels, 1, 1)
            self.register_buffer(name, constants.clone())

    @property
    def fitted(self) -> bool:
        return not bool(self.mean.isnan().any() or self.std.isnan().any())

    def fit(self, mean: Tensor, std: Tensor) -> None:
        """Set `auto` constants to the values (C,) of the channels; a std of 0 becomes 1."""
        for name, values in (("mean", mean), ("std", std.where(std > 0, 1.0))):
            if (buffer := getattr(self, name)).isnan().any():
                setattr(self, name, values.view(-1, 1, 1).to(buffer))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize images (B, C, H, W)."""
        return (x - self.mean) / self.std


class Network(nn.Module):
    """Base class of the networks below, which normalise images (B, C, H, W) in [0, 1] themselves.

    Args:
        mean, std: see `Normalize`.
        classes: K.
        shape: (C, H, W).
    """

    def __init__(
        self,
        mean: Pixels = 0.0,
        std: Pixels = 1.0,
        classes: int = CLASSES,
        shape: Sequence[int] = SHAPE,
    ):
        super().__init__()
        self.normalize = Normalize(mean, std, shape[0])
        self.classes, self.shape = classes, shape


class CNN(Network):
    """The tutorial's network: two 3x3 convolutions, each pooled, then two dense layers.

    Args:
        channels: output channels of the two convolutions.
        hidden: units of the first dense layer.
        dropout: probability of dropping each of these units in training.
        images: arguments of `Network`.

    225,034 parameters with channels=(32, 64), hidden=128.
    """

    def __init__(self, channels: Sequence[int], hidden: int, dropout: float, **images: Any):
        super().__init__(**images)
        first, second = channels
        self.conv1 = nn.Conv2d(self.shape[0], first, 3)
        self.conv2 = nn.Conv2d(first, second, 3)
        height, width = (((side - 2) // 2 - 2) // 2 for side in self.shape[1:])
        self.dense1 = nn.Linear(pixels(second, height, width), hidden)
        self.dropout = nn.Dropout(dropout)
        self.dense2 = nn.Linear(hidden, self.classes)
        init_as_keras(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, K) for images x (B, C, H, W) in [0, 1]."""
        # pool before ReLU: the same function and gradient, a quarter of the work
        x = self.normalize(x)
        x = F.relu(F.max_pool2d(self.conv1(x), 2))  # (B, 32, 13, 13)
        x = F.relu(F.max_pool2d(self.conv2(x), 2))  # (B, 64, 5, 5)
        x = F.relu(self.dense1(x.flatten(1)))  # (B, 128)
        return self.dense2(self.dropout(x))


class FastCNN(Network):
    """Two convolutions on small feature maps, to train in seconds.

    Nothing is computed at full resolution: the first convolution is strided, then pooled at once.

    Args:
        channels: output channels of the two convolutions.
        hidden: units of the first dense layer.
        images: arguments of `Network`.

    109,050 parameters with channels=(16, 32), hidden=128.
    """

    def __init__(self, channels: Sequence[int], hidden: int, **images: Any):
        super().__init__(**images)
        first, second = channels
        self.conv1 = nn.Conv2d(self.shape[0], first, 5, stride=2, padding=2, bias=False)
        self.norm1 = nn.BatchNorm2d(first)
        self.conv2 = nn.Conv2d(first, second, 3, bias=False)
        self.norm2 = nn.BatchNorm2d(second)
        height, width = ((side + 1) // 2 // 2 - 2 for side in self.shape[1:])
        self.dense1 = nn.Linear(pixels(second, height, width), hidden, bias=False)
        self.norm3 = nn.BatchNorm1d(hidden)
        self.dense2 = nn.Linear(hidden, self.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, K) for images x (B, C, H, W) in [0, 1]; in training, B > 1."""
        x = self.normalize(x)
        x = F.relu(self.norm1(F.max_pool2d(self.conv1(x), 2)))  # (B, 16, 7, 7)
        x = F.relu(self.norm2(self.conv2(x)))  # (B, 32, 5, 5)
        x = F.relu(self.norm3(self.dense1(x.flatten(1))))  # (B, 128)
        return self.dense2(x)


def odd_multiples(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Round weights (O, ...) to odd integers, up to 2**bits - 1, times a unit; return both.

    The unit (O, 1, ...), one per output, is such that its greatest weight is exact: rounding again
    changes nothing.
    """
    top = 2**bits - 1
    greatest = weight.abs().flatten(1).amax(1).clamp(min=1e-12)
    unit = greatest.view(-1, *[1] * (weight.dim() - 1)) / top
    return (2 * (weight / (2 * unit)).floor() + 1).clamp(-top, top), unit


def rounded(weight: Tensor, bits: int | None) -> Tensor:
    """Round weights (O, ...) to a number of bits, see `odd_multiples`; None leaves them unchanged.

    The gradient is a straight-through estimate, as if nothing were rounded: Y. Bengio et al.,
    Estimating or propagating gradients through stochastic neurons, 2013,
    https://arxiv.org/abs/1308.3432.
    """
    if bits is None:
        return weight
    odd, unit = odd_multiples(weight.detach(), bits)
    # a clone keeps the strides of the weights, a sum may not, which would slow the next layers
    return weight.clone().add_(odd * unit - weight.detach())


class VGG(Network):
    """3x3 convolutions with batch normalisation, in stages that each halve the image.

    After Simonyan and Zisserman (2015, arXiv:1409.1556).

    Args:
        stages: output channels of the convolutions, one list per stage; max-pooling ends a stage.
        channel_dropout: probability of dropping each whole channel after a stage in training
            (J. Tompson et al., Efficient object localization using convolutional networks, CVPR
            2015, section 3.2, https://arxiv.org/abs/1411.4280).
        dropout: probability of dropping each input of the last layer in training.
        bits: per weight, at least 2, see `rounded`; None for floats.
        images: arguments of `Network`.

    168,554 parameters with stages=((32,), (48, 48), (96, 96)).
    """

    def __init__(
        self,
        stages: Sequence[Sequence[int]],
        channel_dropout: float,
        dropout: float,
        bits: int | None = None,
        **images: Any,
    ):
        super().__init__(**images)
        self.bits = bits
        layers: list[nn.Module] = []
        channels, height, width = self.shape
        for widths in stages:
            for k, new in enumerate(widths, 1):
                layers.append(nn.Conv2d(channels, new, 3, padding=1, bias=False))
                if k == len(widths):  # pool first: the rest is a quarter of the work
                    layers.append(nn.MaxPool2d(2))
                layers += [nn.BatchNorm2d(new), nn.ReLU()]
                channels = new
            layers.append(nn.Dropout2d(channel_dropout))
            height, width = height // 2, width // 2
        inputs = pixels(channels, height, width)
        layers += [nn.Flatten(), nn.Dropout(dropout), nn.Linear(inputs, self.classes)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, K) for images x (B, C, H, W) in [0, 1]."""
        x = self.normalize(x)
        if self.bits is None:
            return self.layers(x)
        named = self.layers.named_parameters()
        weights = {name: rounded(p, self.bits) for name, p in named if p.dim() > 1}
        return functional_call(self.layers, weights, x)

    def round_weights(self) -> None:
        """Replace the weights by their rounded values; the outputs do not change."""
        for weight in (p for p in self.layers.parameters() if p.dim() > 1):
            weight.data = rounded(weight.data, self.bits)
        self.bits = None


class ClippedCNN(Network):
    """Strided 4x4 convolutions with batch normalisation and two dense layers, on clipped pixels.

    Pixels up to `mean` become 0, those from `mean` + `std` on become 1: the layers do not see small
    changes of black or white pixels, which keeps their interval bounds tight.

    Args:
        channels: output channels of the convolutions, each of which halves the image.
        hidden: units of the first dense layer.
        images: arguments of `Network`.

    1,645,258 parameters with channels=(32, 64), hidden=512, and 839,370 parameters with hidden=256.
    """

    def __init__(self, channels: Sequence[int], hidden: int, **images: Any):
        super().__init__(**images)
        layers: list[nn.Module] = []
        old, height, width = self.shape
        for new in channels:
            layers += [nn.Conv2d(old, new, 4, stride=2, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(new), nn.ReLU()]
            old, height, width = new, height // 2, width // 2
        layers += [nn.Flatten(), nn.Linear(pixels(old, height, width), hidden, bias=False)]
        layers += [nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, self.classes)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, K) for images x (B, C, H, W) in [0, 1]; in training, B > 1."""
        return self.layers(F.hardtanh(self.normalize(x), 0.0, 1.0))


def pixels(channels: int, height: int, width: int) -> int:
    """Return the number of values in a feature map; ValueError if it is empty."""
    if min(height, width) < 1:
        raise ValueError("the images are too small for it")
    return channels * height * width


def init_as_keras(net: nn.Module) -> None:
    """Initialize weights as Glorot-uniform and biases as zero, as Keras does by default."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def frozen(net: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Return the layers of these names, such as conv1 or layers.0.

    Raises:
        ValueError: a name is not that of a layer with weights, or no weights are left to train.
    """
    layers = {
        name: layer
        for name, layer in net.named_modules()
        if name and next(layer.parameters(), None) is not None
    }
    if unknown := [name for name in names if name not in layers]:
        raise ValueError(f"module.freeze must be of {', '.join(layers)}, got {', '.join(unknown)}")
    chosen = [layers[name] for name in names]
    still = {p for layer in chosen for p in layer.parameters()}
    if still.issuperset(net.parameters()):
        raise ValueError(
            f"module.freeze must leave a layer to train, got all of {', '.join(layers)}"
        )
    return chosen
