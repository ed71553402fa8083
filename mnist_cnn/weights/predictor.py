"""Prediction with trained networks: images in, probabilities out."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from mnist_cnn.config.instantiate import also_allowed
from mnist_cnn.config.messages import must_be
from mnist_cnn.config.schema import PUBLIC, DataDescription, check_shape
from mnist_cnn.data import mnist
from mnist_cnn.data.picture import Source, as_image, is_on_light
from mnist_cnn.model import SHAPE, VGG
from mnist_cnn.weights.files import (
    READER,
    ReaderError,
    check_finite_weights,
    errors_of,
    find,
    read_file,
)
from mnist_cnn.weights.networks import build_network, is_ours, is_reader

if TYPE_CHECKING:
    from PIL import Image

Images: TypeAlias = "Tensor | np.ndarray[Any, Any] | Sequence[Any] | Image.Image"

BATCH = 250  # images per batch
LIKELIEST = 5  # classes of a picture that are shown


class Probabilities(nn.Module):
    """The computation of `Trained` without checks and batches, for export.

    Args:
        net: network that returns logits (N, K) of images (N, C, H, W) in [0, 1].
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """Return probabilities (N, K) of uint8 or float images (N, H, W) or (N, C, H, W)."""
        x = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        return self.net(x.unsqueeze(1) if x.dim() == 3 else x).softmax(1)


class Trained(Probabilities):
    """A network together with its description.

    Args:
        net: network, see `Probabilities`; weights of few bits are rounded in place.
        classes: class names by label; empty if unknown.
        about: if known, the configuration of the network (`model`) and of its data (`data`).
        epoch: epoch of the checkpoint.
    """

    def __init__(
        self,
        net: nn.Module,
        classes: tuple[str, ...],
        about: Mapping[str, Any] | None = None,
        epoch: int | None = None,
    ):
        if isinstance(net, VGG):
            net.round_weights()  # once, in place of at each image
        super().__init__(net)
        self.classes, self.epoch, self.about = classes, epoch, dict(about or {})
        self.model = self.about.get("model") or {}  # configurations; empty if unknown
        self.data = self.about.get("data") or {}
        shapes = (self.data.get("shape"), self.model.get("shape"))
        usual = SHAPE if is_ours(self.model) else None  # a user's network may take any
        self.given_shape = next(filter(None, shapes), usual)
        check_shape(self.given_shape or SHAPE)
        self.eval()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (C, H, W) of an image; MNIST's if unknown."""
        return tuple(self.given_shape or SHAPE)

    @property
    def reads_digits(self) -> bool:
        """Whether it classifies the digits on a page; else it classifies whole pictures.

        The reader cuts out digits white on black, which a network of dark digits does not know.
        """
        return self.classes == mnist.DIGITS and self.shape == SHAPE and not self.is_on_light

    @property
    def is_on_light(self) -> bool:
        """Whether most of training's images are dark on light; False if unknown."""
        return bool(self.data.get("on_light"))

    def image_of(self, picture: "Source | Image.Image") -> Tensor:
        """Load a picture as an image of training, uint8 (C, H, W).

        The public sets are white on black: for them a picture on light ground is inverted.

        Raises:
            OSError, ValueError: see `load_picture`; or the shape of the images is unknown.
        """
        if self.given_shape is None:
            allowed = "known: a data module has it as `shape`, (C, H, W)"
            raise ValueError(must_be("the shape of training's images", allowed, None))
        image = as_image(picture, self.shape[0], self.shape[1:])
        return 255 - image if self.is_white_on_black and is_on_light(image) else image

    @property
    def is_white_on_black(self) -> bool:
        return self.data.get("name") in mnist.CLASSES

    def classify(
        self, picture: "Source | Image.Image", most: int = LIKELIEST
    ) -> list[tuple[str, float]]:
        """Return the most likely classes of a whole picture, each with its probability.

        Args:
            picture: see `load_picture`; it is scaled and converted as in training.
            most: maximum number of classes. Those without names are named by their numbers.

        Raises:
            OSError, ValueError: see `image_of`.
        """
        return self.named(self(self.image_of(picture)[None])[0], most)

    def named(self, probabilities: Tensor, most: int = LIKELIEST) -> list[tuple[str, float]]:
        """Return the most likely of the classes with probabilities (K,), the most likely first."""
        numbers = tuple(map(str, range(len(probabilities))))
        names = self.classes if len(self.classes) == len(numbers) else numbers
        best, places = probabilities.topk(min(most, len(probabilities)))
        pairs = zip(places.tolist(), best.tolist(), strict=True)
        return [(names[place], p) for place, p in pairs]

    def example(self, n: int) -> Tensor:
        """Return n black images: uint8 (n, H, W), with several channels (n, C, H, W)."""
        return torch.zeros(n, *self.shape[self.shape[0] == 1 :], dtype=torch.uint8)

    if TYPE_CHECKING:  # nn.Module's takes and returns Any

        def __call__(self, images: Images) -> Tensor: ...

    @torch.no_grad()
    def forward(self, images: Images) -> Tensor:
        """Return probabilities (N, K) of images, white on black, computed in batches of 250.

        Args:
            images: a tensor, an array, a list of these or of numbers, or PIL images (1, L or RGB);
                uint8 in 0..255 or float in [0, 1]; (N, C, H, W), or of one channel (N, H, W) or
                (H, W).

        Raises:
            ValueError: the images have another type, range or size.
        """
        try:
            given = tensor_of(images)
            x = given.unsqueeze(0) if given.dim() == 2 else given
            x = x.unsqueeze(1) if x.dim() == 3 else x
            # NaN is out of range
            in_range = x.dtype == torch.uint8 or bool(((x >= 0) & (x <= 1)).all())
            kind = f"{given.dtype} {tuple(given.shape)}".removeprefix("torch.")
        except (TypeError, ValueError, RuntimeError):  # not numeric, or ragged
            x, in_range, kind = torch.empty(0), False, type(images).__name__
        fits = tuple(x.shape[1:]) == self.shape or (self.given_shape is None and x.dim() == 4)
        if not (fits and in_range and (x.dtype == torch.uint8 or x.is_floating_point())):
            size = ", ".join(map(str, self.shape))
            allowed = f"uint8 in 0..255 or float in [0, 1], (N, {size})"
            taken = "tensors, arrays, lists or PIL images (1, L, RGB)"
            raise ValueError(f"images must be {allowed}, {taken}, got {kind}")
        device = next(self.parameters(), x).device
        return torch.cat([super(Trained, self).forward(part.to(device)) for part in x.split(BATCH)])


def tensor_of(images: Any) -> Tensor:
    """Convert images to a tensor; integers of a list up to 255 become uint8.

    Raises:
        RuntimeError, TypeError, ValueError: they are not numeric, or of several sizes.
    """
    if isinstance(images, Tensor):
        return images
    if isinstance(images, list | tuple):
        inner = [tensor_of(image) for image in images if not isinstance(image, list | float | int)]
        if inner and len(inner) == len(images):
            return torch.stack(inner)
        images = np.array(images)
        if images.dtype.kind == "i" and ((images >= 0) & (images <= 255)).all():
            images = images.astype(np.uint8)
    elif (mode := getattr(images, "mode", None)) in ("1", "L", "RGB"):  # a PIL image
        pixels = np.array(images.convert("L" if mode == "1" else mode))
        images = pixels.transpose(2, 0, 1) if mode == "RGB" else pixels
    if not isinstance(images, np.ndarray):
        raise TypeError(type(images).__name__)
    # a copy, as tensors support neither read-only memory nor negative strides
    return torch.from_numpy(np.array(images, images.dtype.newbyteorder("=")))


def load(path: Path | str | None = None, targets: Sequence[str] = ()) -> Trained:
    """Load the network of a run's folder, a checkpoint or a weights file, by default the shipped.

    Only tensors and plain values are read: no code in the file is run.

    Args:
        targets: code of your own that the file may name, such as ["my_pkg.*"].

    Raises:
        ValueError: there is no such file, it is not one of this project's or is of a reader of
            pictures, or it needs code that the user has not allowed.
    """
    file = find(path)
    weights, about, epoch = read_file(file)
    if is_reader(weights):
        raise ReaderError(f"{file}: {READER}")
    with errors_of(file), also_allowed(targets):
        model, data = dict(about.get("model") or {}), dict(about.get("data") or {})
        if not data:
            raise ValueError("it does not say what it was trained on; weights.safetensors does")
        DataDescription.model_validate(data)
        net = build_network(model)
        net.load_state_dict(weights)
        check_finite_weights(net.state_dict())
        classes = tuple(data.get("classes") or mnist.CLASSES.get(data["name"], ()))
        return Trained(net, classes, {"model": model, "data": data}, epoch)


def data_root(net: Trained) -> str | None:
    """Return the folder of the network's training data; None for a public set that is not there.

    A public set is then taken from elsewhere; nothing can take the place of the user's own.
    """
    root, name = net.data.get("root"), str(net.data.get("name"))
    if not isinstance(root, str):
        return None
    # without a home folder, ~ is not expanded
    place = Path(os.path.expanduser(Path(root, mnist.FOLDERS.get(name, "."))))
    return root if name not in PUBLIC or place.is_dir() else None
