"""A trained network ready for use, wherever it lies: bytes in, probabilities out."""

import contextlib
import json
import math
import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mnist_cnn.config.instantiate import CHECKPOINTS, ForbiddenError, instantiate_as
from mnist_cnn.config.messages import must_be
from mnist_cnn.config.schema import DataDescription
from mnist_cnn.data import mnist
from mnist_cnn.model import SHAPE, VGG
from mnist_cnn.runs.file_format import KEY, VERSION, check_format
from mnist_cnn.terminal import printable

if TYPE_CHECKING:
    from PIL import Image

Images: TypeAlias = "Tensor | np.ndarray[Any, Any] | Sequence[Any] | Image.Image"

BATCH = 250  # images that are computed at once
MAX_PIXELS = 10_000_000  # of an image, times its channels
ABOUT = "about"  # the key of a weights file's metadata
FOREIGN = "not a checkpoint or weights of this project"
NO_CLASSIFIER = (
    "a checkpoint of a module that is no classifier; only networks that give logits of images can "
    "be evaluated and exported, and predict"
)
READER = (
    "a reader of pictures, which reads whole pages and classifies no images; predict, demo and "
    "detection.trained.load_reader take it"
)
EXPORTED = (".onnx", ".pt2", ".html", ".c", ".h")  # files for other programs
SHIPPED = Path(__file__).parent / "pretrained" / "weights.safetensors"


class NoClassifierError(ValueError):
    """A checkpoint of a module that has no network for `load`."""


class ReaderError(NoClassifierError):
    """A file of a reader of pictures."""


class Probabilities(nn.Module):
    """The computation of `Trained` alone, without checks and batches: this is what is exported.

    Args:
        net: gives logits (N, K) of images (N, C, H, W) in [0, 1].
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities (N, K) of uint8 or float images (N, H, W) or (N, C, H, W)."""
        x = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        return self.net(x.unsqueeze(1) if x.dim() == 3 else x).softmax(1)


class Trained(Probabilities):
    """A network together with a description of it.

    Args:
        net: as `Probabilities` has it.
        classes: the classes' names, by label; none where they are not known.
        about: where it is known, the configuration of the network (`model`) and of its data.
        epoch: the epochs after which a checkpoint was written.
    """

    def __init__(
        self,
        net: nn.Module,
        classes: tuple[str, ...],
        about: Mapping[str, Any] | None = None,
        epoch: int | None = None,
    ):
        super().__init__(net)
        self.classes, self.epoch, self.about = classes, epoch, dict(about or {})
        model = self.about.get("model") or {}
        shapes = ((self.about.get("data") or {}).get("shape"), model.get("shape"))
        usual = SHAPE if is_ours(model) else None  # a network of the user's may take any
        self.given_shape = next(filter(None, shapes), usual)
        check_shape(self.given_shape or SHAPE)
        self.eval()

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of an image, as far as it is known; else MNIST's."""
        return tuple(self.given_shape or SHAPE)

    def example(self, n: int) -> Tensor:
        """n black images: uint8 (n, H, W), of several channels (n, C, H, W)."""
        return torch.zeros(n, *self.shape[self.shape[0] == 1 :], dtype=torch.uint8)

    if TYPE_CHECKING:  # of a Module it takes and gives anything

        def __call__(self, images: Images) -> Tensor: ...

    @torch.no_grad()
    def forward(self, images: Images) -> Tensor:
        """Probabilities (N, K) of images, white on black, which are computed in batches of 250.

        Args:
            images: a tensor, an array, a list of these or of numbers, or PIL images (1, L or RGB);
                uint8 in 0..255 or float in [0, 1]; (N, C, H, W), or of one channel (N, H, W) or
                (H, W).

        Raises:
            ValueError: images of another type, range or size.
        """
        try:
            given = tensor_of(images)
            x = given.unsqueeze(0) if given.dim() == 2 else given
            x = x.unsqueeze(1) if x.dim() == 3 else x
            # NaN is in no range
            in_range = x.dtype == torch.uint8 or bool(((x >= 0) & (x <= 1)).all())
            kind = f"{given.dtype} {tuple(given.shape)}".removeprefix("torch.")
        except (TypeError, ValueError, RuntimeError):  # what has no numbers, or sides that differ
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
    """Images as a tensor; whole numbers of a list up to 255 as uint8.

    Raises:
        RuntimeError, TypeError, ValueError: they have no numbers, or are of several sizes.
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
    elif (mode := getattr(images, "mode", None)) in ("1", "L", "RGB"):  # of PIL
        pixels = np.array(images.convert("L" if mode == "1" else mode))
        images = pixels.transpose(2, 0, 1) if mode == "RGB" else pixels
    if not isinstance(images, np.ndarray):
        raise TypeError(type(images).__name__)
    # a copy: a tensor can be neither read-only nor backwards
    return torch.from_numpy(np.array(images, images.dtype.newbyteorder("=")))


def check_shape(shape: Any) -> None:
    """Raise ValueError for a shape (C, H, W) of images that is none, or too large to be meant."""
    sides = shape if isinstance(shape, list | tuple) and len(shape) == 3 else [0]
    whole = all(isinstance(side, int) and side > 0 for side in sides)
    if not whole or math.prod(sides) > MAX_PIXELS:
        raise ValueError(must_be("shape", f"three sides, of at most {MAX_PIXELS:,} pixels", shape))


def is_ours(model: Mapping[str, Any]) -> bool:
    """Tell whether a model config is of a network of model.py, which has `classes` and `shape`."""
    return str(model.get("_target_")).startswith("mnist_cnn.model.")


def is_reader(model: Any) -> bool:
    """Tell whether a model config is of a network that finds characters on pages."""
    return isinstance(model, Mapping) and str(model.get("_target_")).startswith(
        "mnist_cnn.detection."
    )


def build_network(config: Mapping[str, Any]) -> nn.Module:
    """The network of a model config: `_target_`, a class of model.py or another, and arguments.

    Raises:
        ForbiddenError: the class is on no allowlist.
        ValueError: arguments that do not fit it, or one that is too large.
    """
    net = instantiate_as(nn.Module, config, key="model", allowlist=CHECKPOINTS)
    # convolutions run about a third faster with the channels innermost, but a user's network may
    # view what comes out of one as a row
    return net.to(memory_format=torch.channels_last) if is_ours(config) else net


def find(path: Path | str | None = None) -> Path:
    """The file of the network: of a run's folder its best checkpoint, by default the one shipped.

    Raises:
        ValueError: there is no such file.
    """
    file = Path(SHIPPED if path is None else path).expanduser()
    if file.is_dir():
        names = ("checkpoints/best.ckpt", "weights.safetensors", "checkpoints/last.ckpt")
        file = next((file / name for name in names if (file / name).exists()), file / names[1])
    if not file.is_file():
        raise ValueError(f"{path or file}: no such checkpoint, weights file or run's folder")
    if file.suffix in EXPORTED:
        what = "a run's folder, a checkpoint or a weights file"
        raise ValueError(f"{file}: must be {what}; {file.suffix} is exported for other programs")
    return file


def read_checkpoint(file: Path | str) -> Any:
    """The content of a checkpoint: plain values, and tensors that stay in the file until used.

    No code of the file's is run.

    Raises:
        ValueError: it is no checkpoint, or holds more than plain values and tensors.
    """
    try:
        if not zipfile.is_zipfile(file):
            raise ValueError("no file of PyTorch's, or cut off")
        with zipfile.ZipFile(file) as archive:
            if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                raise ValueError("it is compressed, which PyTorch's are not")
            if damaged := archive.testzip():  # torch.load takes no notice of the checksums
                raise ValueError(f"not whole: {damaged} in it is damaged")
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        check_format(content)
        return content
    except pickle.UnpicklingError:  # PyTorch's own message tells how to load it all the same
        raise ValueError("it has more than tensors and plain values, which may run code") from None
    except Exception as e:  # PyTorch raises many kinds for files that are not its own
        raise ValueError(reason(e)) from None


@contextlib.contextmanager
def errors_of(file: Path) -> Iterator[None]:
    """Raise one ValueError that names the file, whatever its content makes fail inside."""
    try:
        yield
    except NoClassifierError:
        raise
    except ForbiddenError as e:  # the file may well be sound
        raise ValueError(f"{file}: {reason(e)}") from None
    except Exception as e:  # a foreign file fails in as many ways as there are formats
        raise ValueError(f"{file}: {FOREIGN}: {reason(e)}") from None


def read_file(path: Path | str) -> tuple[Mapping[str, Tensor], dict[str, Any], int | None]:
    """The weights in a file, a description of their `model` and `data`, and a checkpoint's epoch.

    Args:
        path: a run's folder, a checkpoint or a weights file.

    Raises:
        ValueError: there is no such file, or it holds no weights of a network.
    """
    file = find(path)
    with errors_of(file):
        if not zipfile.is_zipfile(file):
            with safe_open(file, "pt") as tensors:
                about = json.loads((tensors.metadata() or {}).get(ABOUT, "{}"))
                weights = {key: tensors.get_tensor(key) for key in tensors.keys()}  # noqa: SIM118
            check_format(about)
            return weights, dict(about), None
        content = read_checkpoint(file)
        if "state_dict" in content and "network" not in content:
            if is_reader(content.get("hyper_parameters", {}).get("model")):
                raise ReaderError(f"{file}: {READER}")
            raise NoClassifierError(f"{file}: {NO_CLASSIFIER}")
        prefix = content["network"]
        weights = {
            key.removeprefix(prefix): value
            for key, value in content["state_dict"].items()
            if key.startswith(prefix)  # a loss of the user's own has weights too
        }
        data = content.get("data") or content.get("datamodule_hyper_parameters", {})
        about = {"model": content["hyper_parameters"].get("model"), "data": data}
        return weights, about, content.get("epoch")


def load(path: Path | str | None = None) -> Trained:
    """The network of a run's folder, a checkpoint, a weights file, or by default the one shipped.

    Only tensors and plain values are read: no code of the file's is run.

    Raises:
        ValueError: there is no such file, it is not one of this project's or of its readers of
            pictures, or it needs code that the user has not allowed.
    """
    file = find(path)
    weights, about, epoch = read_file(file)
    if is_reader(about.get("model")):
        raise ReaderError(f"{file}: {READER}")
    with errors_of(file):
        model, data = dict(about.get("model") or {}), dict(about.get("data") or {})
        if not data:
            raise ValueError("it does not say what it was trained on; weights.safetensors does")
        DataDescription.model_validate(data)
        net = build_network(model)
        net.load_state_dict(weights)
        check_finite_weights(net.state_dict())
        if isinstance(net, VGG):
            net.round_weights()
        classes = tuple(data.get("classes") or mnist.CLASSES.get(data["name"], ()))
        return Trained(net, classes, {"model": model, "data": data}, epoch)


def load_into(net: nn.Module, path: Path | str, strict: bool = True) -> list[str]:
    """Replace a network's weights by those of a file, as `DigitClassifier.load_weights` has it."""
    new, old = read_file(path)[0], net.state_dict()
    fitting = {k: w for k, w in new.items() if k in old and w.shape == old[k].shape}
    faults = []
    for key in sorted((new.keys() | old.keys()) - fitting.keys()):
        there, here = (tuple(w[key].shape) if key in w else "none" for w in (new, old))
        faults.append(f"{key}: {there} in the file, {here} in the net")
    if faults and (strict or not fitting):
        hint = "; init_strict=false starts from the rest" * bool(fitting)
        raise ValueError(f"{path} does not fit this network: {'; '.join(faults)}{hint}")
    check_finite_weights(fitting)
    net.load_state_dict({**old, **fitting})
    return faults


def check_finite_weights(weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError for weights that are infinite or no numbers."""
    if not all(weight.isfinite().all() for weight in weights.values()):
        raise ValueError("its weights are not all numbers: that training failed")


def load_digits(path: Path | str | None = None) -> Trained:
    """As `load`; ValueError for a network that was not trained on digits."""
    net = load(path)
    data, digits = net.about["data"]["name"], mnist.DIGITS
    if net.classes != digits:
        unnamed = "" if net.classes else ", whose classes have no names"
        raise ValueError(f"{path}: must be a network trained on digits, got one of {data}{unnamed}")
    return net


def data_root(net: Trained) -> str | None:
    """The folder with the data of the network's training; None where it is not on this machine."""
    data = net.about["data"]
    root, folder = data.get("root"), mnist.FOLDERS.get(data["name"], ".")
    # without a home folder ~ is a name like any other
    if isinstance(root, str) and Path(os.path.expanduser(Path(root, folder))).is_dir():
        return root
    return None


def weights_of(net: nn.Module) -> dict[str, Tensor]:
    """Copies of a network's weights: safetensors refuses tied weights, which share memory."""
    return {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in net.state_dict().items()
    }


def write_weights(net: nn.Module, about: Mapping[str, Any], path: Path) -> None:
    """Writes a network's weights as safetensors, with the plain values `about` as metadata.

    Equal weights and values give equal bytes: safetensors writes several keys in random order, so
    there is one, with all values as JSON.
    """
    # save_file would make the file unreadable for others
    described = json.dumps({**about, KEY: VERSION}, sort_keys=True)
    path.write_bytes(save(weights_of(net), {ABOUT: described}))


def load_all(files: Sequence[Path | str | None]) -> list[Trained]:
    """As `load`, several that may predict together; ValueError for different sets of data."""
    nets = [load(file) for file in files]
    names = [net.about["data"]["name"] for net in nets]
    if len(set(names)) > 1:
        raise ValueError(must_be(f"all of {len(files)} networks", f"of {names[0]}", names))
    return nets


def reason(error: Exception) -> str:
    """One line for an error, without what a hostile file could make a terminal do."""
    line = " ".join(str(error).split()) or type(error).__name__
    return printable(line)[:400]
