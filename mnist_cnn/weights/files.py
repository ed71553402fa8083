"""Reading, without running code, and writing of checkpoints and weights files."""

import contextlib
import json
import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mnist_cnn.config.instantiate import ForbiddenError
from mnist_cnn.config.messages import must_be
from mnist_cnn.runs.file_format import KEY, VERSION, check_format
from mnist_cnn.runs.terminal import reason
from mnist_cnn.weights.networks import is_reader

ABOUT = "about"  # key of a weights file's metadata
FOREIGN = "not a checkpoint or weights of this project"
NO_CLASSIFIER = (
    "a checkpoint of a module that is no classifier; only networks that give logits of images can "
    "be evaluated and exported, and predict"
)
READER = (
    "a reader of pictures, which reads whole pages and classifies no images; predict, demo and "
    "mnist_cnn.load_reader take it"
)
EXPORTED = (".onnx", ".pt2", ".html", ".c", ".h")  # files for other programs
SHIPPED = Path(__file__).parent / "shipped" / "weights.safetensors"


class NoClassifierError(ValueError):
    """A checkpoint of a module that has no network for `load`."""


class ReaderError(NoClassifierError):
    """A file of a reader of pictures."""


def find(path: Path | str | None = None) -> Path:
    """Find the file of a network: of a run's folder its best checkpoint, by default the shipped.

    Raises:
        ValueError: there is no such file, or it was exported for other programs.
    """
    file = Path(SHIPPED if path is None else os.path.expanduser(path))
    if file.is_dir():
        names = ("checkpoints/best.ckpt", "weights.safetensors", "checkpoints/last.ckpt")
        file = next((file / name for name in names if (file / name).exists()), file / names[1])
    if not file.is_file():
        raise ValueError(f"{path or file}: no such checkpoint, weights file or run's folder")
    if file.suffix in EXPORTED:
        what = "a run's folder, a checkpoint or a weights file"
        raise ValueError(f"{file}: must be {what}; {file.suffix} is exported for other programs")
    return file


def read_start(file: Path | str) -> Any:
    """Load the checkpoint that a run starts from, see `read_checkpoint`."""
    try:
        return read_checkpoint(file)
    except ValueError as e:
        raise ValueError(f"{no_start(file)}: {e}") from None


def no_start(file: Path | str) -> str:
    return must_be("ckpt_path", "a checkpoint that training can resume", file)


def read_checkpoint(file: Path | str) -> Any:
    """Load the content of a checkpoint: plain values, and memory-mapped tensors.

    No code in the file is run.

    Raises:
        ValueError: it is no checkpoint, or holds more than plain values and tensors.
    """
    try:
        if not zipfile.is_zipfile(file):
            raise ValueError("no file of PyTorch's, or cut off")
        with zipfile.ZipFile(file) as archive:
            if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                raise ValueError("it is compressed, which PyTorch's are not")
            if damaged := archive.testzip():  # torch.load ignores the checksums
                raise ValueError(f"not whole: {damaged} in it is damaged")
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        check_format(content)
        return content
    except pickle.UnpicklingError:  # PyTorch's own message suggests loading it anyway
        raise ValueError("it has more than tensors and plain values, which may run code") from None
    except Exception as e:  # PyTorch raises many types for foreign files
        raise ValueError(reason(e)) from None


@contextlib.contextmanager
def errors_of(file: Path) -> Iterator[None]:
    """Turn any error inside into a ValueError that names the file."""
    try:
        yield
    except NoClassifierError:
        raise
    except ForbiddenError as e:  # the file may be valid
        raise ValueError(f"{file}: {reason(e)}") from None
    except Exception as e:  # foreign files raise many types of errors
        raise ValueError(f"{file}: {FOREIGN}: {reason(e)}") from None


def read_file(path: Path | str) -> tuple[Mapping[str, Tensor], dict[str, Any], int | None]:
    """Read the weights of a file, the description of `model` and `data`, and the epoch.

    The epoch is a checkpoint's; of a weights file it is None.

    Args:
        path: a run's folder, a checkpoint or a weights file.

    Raises:
        ValueError: there is no such file, or it holds no weights of a network.
    """
    file = find(path)
    with errors_of(file):
        if not zipfile.is_zipfile(file) and file.suffix != ".ckpt":
            with safe_open(file, "pt") as tensors:
                about = json.loads((tensors.metadata() or {}).get(ABOUT, "{}"))
                weights = {key: tensors.get_tensor(key) for key in tensors.keys()}  # noqa: SIM118
            check_format(about)
            return weights, dict(about), None
        content = read_checkpoint(file)
        prefix = "net." if is_reader(content.get("state_dict", {})) else content.get("network")
        if prefix is None and "state_dict" in content:
            raise NoClassifierError(f"{file}: {NO_CLASSIFIER}")
        weights = {
            key.removeprefix(prefix): value
            for key, value in content["state_dict"].items()
            if key.startswith(prefix)  # a custom loss may have weights, too
        }
        data = content.get("data") or content.get("datamodule_hyper_parameters", {})
        about = {"model": content["hyper_parameters"].get("model"), "data": data}
        return weights, about, content.get("epoch")


def load_into(net: nn.Module, path: Path | str, strict: bool = True) -> list[str]:
    """Load a network's weights from a file, see `DigitClassifier.load_weights`."""
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
    """Raise ValueError for weights that are infinite or NaN."""
    if not all(weight.isfinite().all() for weight in weights.values()):
        raise ValueError("its weights are not all numbers: that training failed")


def weights_of(net: nn.Module) -> dict[str, Tensor]:
    """Copy a network's weights, as safetensors refuses tied weights, which share memory."""
    return {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in net.state_dict().items()
    }


def write_weights(net: nn.Module, about: Mapping[str, Any], path: Path) -> None:
    """Write a network's weights as safetensors, with the plain values `about` as metadata.

    Equal weights and values give equal bytes: as safetensors writes several keys in random order,
    all values are JSON under one key.
    """
    # save_file would make the file unreadable for others
    described = json.dumps({**about, KEY: VERSION}, sort_keys=True)
    path.write_bytes(save(weights_of(net), {ABOUT: described}))
