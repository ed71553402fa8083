"""Interval bound propagation: bounds of a network's outputs for changed images.

S. Gowal et al., On the effectiveness of interval bound propagation for training verifiably robust
models, 2018 (https://arxiv.org/abs/1810.12715). The bounds hold for exact arithmetic: they do not
cover a network's own rounding errors, some 1e-6 of a logit.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

HANDLERS: dict[Any, Callable[..., "Interval"]] = {}  # by function of torch


class Interval:
    """All tensors between center - radius and center + radius.

    A network takes an interval in place of images, and returns one in place of logits: its layers
    are dispatched by `__torch_function__`. Convolutions, linear layers, batch normalisation, ReLU,
    hardtanh and pooling are supported, and dropout in eval mode.

    Args:
        center, radius: of the same shape; radius is at least 0.
        layer: input and weight (K, D) of the linear layer that returned it.

    Raises:
        NotImplementedError: a network calls another function.
    """

    def __init__(self, center: Tensor, radius: Tensor, layer: Any = None):
        self.center, self.radius, self.layer = center, radius, layer

    @classmethod
    def between(cls, lower: Tensor, upper: Tensor) -> "Interval":
        return cls((upper + lower) / 2, (upper - lower) / 2)

    @classmethod
    def around(cls, images: Tensor, epsilon: float) -> "Interval":
        """Return the images in [0, 1] whose pixels differ from these by at most epsilon."""
        return cls.between((images - epsilon).clamp(min=0), (images + epsilon).clamp(max=1))

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in HANDLERS:
            raise NotImplementedError(f"{func.__name__} of an interval")
        return HANDLERS[func](*args, **(kwargs or {}))

    def __sub__(self, other: Tensor) -> "Interval":
        return Interval(self.center - other, self.radius)

    def __truediv__(self, other: Tensor) -> "Interval":
        return Interval(self.center / other, self.radius / other.abs())

    def dim(self) -> int:
        return self.center.dim()

    def flatten(self, *dims: int) -> "Interval":
        return Interval(self.center.flatten(*dims), self.radius.flatten(*dims))

    def margins(self, labels: Tensor) -> Tensor:
        """Return upper bounds (B, K) of each logit minus that of the label, for labels (B,).

        After a linear layer they are computed from differences of its weights, which is tighter
        than from its output bounds.
        """
        if self.layer is None:
            lower = (self.center - self.radius).gather(1, labels[:, None])
            upper = self.center + self.radius - lower
            return upper.scatter(1, labels[:, None], 0.0)
        inputs, weight = self.layer
        rows, k = torch.arange(len(labels)), len(weight)
        differences = (weight - weight[:, None]).abs()  # (K, K, D), by label and logit
        radius = F.linear(inputs.radius, differences.flatten(0, 1)).view(-1, k, k)[rows, labels]
        return self.center - self.center.gather(1, labels[:, None]) + radius


def linear(x: Interval, weight: Tensor, bias: Tensor | None = None) -> Interval:
    center, radius = F.linear(x.center, weight, bias), F.linear(x.radius, weight.abs())
    return Interval(center, radius, layer=(x, weight))


def conv2d(x: Interval, weight: Tensor, bias: Tensor | None = None, *args: Any) -> Interval:
    radius = F.conv2d(x.radius, weight.abs(), None, *args)
    return Interval(F.conv2d(x.center, weight, bias, *args), radius)


def monotone(function: Callable[..., Tensor]) -> Callable[..., Interval]:
    """Return the handler of a monotonically increasing function."""

    def handler(x: Interval, *args: Any, **kwargs: Any) -> Interval:
        bounds = (x.center - x.radius, x.center + x.radius)
        return Interval.between(*(function(bound, *args, **kwargs) for bound in bounds))

    return handler


def batch_norm(
    x: Interval,
    mean: Tensor | None,
    var: Tensor,
    weight: Tensor,
    bias: Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> Interval:
    """Apply batch normalisation, in training with the statistics of the centers."""
    if mean is None:  # evaluated with the batch's own statistics, which a change of pixels moves
        raise NotImplementedError("batch normalisation of an interval without running statistics")
    center = F.batch_norm(x.center, mean, var, weight, bias, training, momentum, eps)
    if training:
        var = x.center.var([d for d in range(x.dim()) if d != 1], correction=0)
    scale = weight.abs() * (var + eps).rsqrt()
    return Interval(center, x.radius * scale.view(-1, *[1] * (x.dim() - 2)))


def dropout(x: Interval, p: float, training: bool, inplace: bool) -> Interval:
    if training and p:
        raise NotImplementedError("dropout of an interval in training")
    return x


HANDLERS |= {F.linear: linear, F.conv2d: conv2d, F.batch_norm: batch_norm}
HANDLERS |= {F.dropout: dropout, F.dropout2d: dropout}
POOLING = (F.max_pool2d, F.avg_pool2d, F.adaptive_max_pool2d, F.adaptive_avg_pool2d)
INCREASING = (F.relu, torch.relu, F.hardtanh, *POOLING)
HANDLERS |= {function: monotone(function) for function in INCREASING}


@torch.no_grad()
def certified(net: Callable[..., Any], images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """Return which images are certified: correct for all changes of pixels by up to epsilon.

    The result is bool (B,), for images in [0, 1]. An image that is not certified may be robust too.

    Raises:
        NotImplementedError: the network calls a function that `Interval` does not support.
    """
    margins = net(Interval.around(images, epsilon)).margins(labels)
    return margins.scatter(1, labels[:, None], -torch.inf).amax(1) < 0
