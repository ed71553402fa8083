"""Random transforms of training images, as torchvision.transforms.v2 has them."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from mnist_cnn.config.instantiate import (
    TRANSFORMS,
    ForbiddenError,
    instantiate_as,
    locate,
    not_allowed,
)
from mnist_cnn.config.messages import must_be
from mnist_cnn.runs.generators import seeded_generators
from mnist_cnn.runs.terminal import reason


class Transforms:
    """Transforms of torchvision.transforms.v2, or of the user's, drawn anew for each image.

    They draw from the global generators of PyTorch, NumPy and Python, which are seeded from the
    generator of each call and restored afterwards.

    Args:
        config: `_target_` and arguments of each transform by a name of any choice, in order; None
            for a name leaves it out. A transform that takes `size` gets the images' by default.
        size: (H, W) of the images.

    Raises:
        ForbiddenError: a name is on no allowlist.
        ValueError: it is no transform, or rejects its arguments.
    """

    def __init__(self, config: Mapping[str, Any], size: Sequence[int]):
        named = {f"data.augment.{name}": node for name, node in config.items() if node}
        self.transforms = {key: made(node, key, size) for key, node in named.items()}

    def __call__(self, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        """Return transformed copies (B, C, H, W) in [0, 1] of images x (B, C, H, W) in [0, 1].

        Raises:
            ValueError: a transform fails, or they change the images' shape.
        """
        seed = torch.randint(2**62, (), generator=generator, device=generator.device)
        with seeded_generators(int(seed), x.device):
            images = [self.transformed(image) for image in x]
        return torch.stack(images).clamp(0, 1)

    def transformed(self, image: Tensor) -> Tensor:
        """Return a transformed copy of an image (C, H, W)."""
        new = image
        shape = tuple(image.shape)
        for key, transform in self.transforms.items():
            try:
                new = transform(new)
            except Exception as e:  # a transform may raise anything
                raise ValueError(f"{key} fails on images {shape}: {reason(e)}") from e
        found = tuple(new.shape) if torch.is_tensor(new) else type(new).__name__
        if found != shape:
            allowed = f"transforms that keep the images' shape {shape}"
            raise ValueError(must_be("data.augment", allowed, f"images {found}"))
        return new


def made(node: Mapping[str, Any], key: str, size: Sequence[int]) -> Any:
    """Instantiate a transform."""
    from torchvision.transforms import v2  # takes a second; other augmentation does not need it

    if faults := not_allowed(node, key, TRANSFORMS):
        raise ForbiddenError("; ".join(faults))
    taken = inspect.signature(locate(node["_target_"], f"{key}._target_", TRANSFORMS)).parameters
    missing = {"size": list(size)} if "size" in taken and "size" not in node else {}
    return instantiate_as(v2.Transform, node, key=key, allowlist=TRANSFORMS, **missing)
