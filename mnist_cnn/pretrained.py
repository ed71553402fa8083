"""A trained network ready for use, wherever it lies: bytes in, probabilities out."""

import json
import pickle
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mnist_cnn.config.own import make
from mnist_cnn.config.schema import Seen
from mnist_cnn.data import sets
from mnist_cnn.model import build

ABOUT = "about"  # the key of a weights file's metadata
SHIPPED = Path(__file__).parent / "pretrained" / "weights.safetensors"


class Trained(nn.Module):
    """A network together with what is known of it.

    Args:
        net: gives logits (N, 10) of images (N, C, H, W) in [0, 1].
        classes: the classes' names, by label.
        about: where it is known, the configuration of the network (`model`) and of its data.
    """

    def __init__(
        self,
        net: nn.Module,
        classes: tuple[str, ...],
        about: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        self.net, self.classes = net, classes
        self.about = dict(about or {})
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities (N, 10) of uint8 images (N, 28, 28), white on black."""
        return self.net(images.unsqueeze(1).float() / 255).softmax(1)


def build_network(config: Mapping[str, Any]) -> nn.Module:
    """The network of a model config: one of model.py by `name`, or the user's own by `_target_`.

    Raises:
        ValueError: as `model.build` does; code that the user has not allowed by targets=.
    """
    if "_target_" in config:
        net: nn.Module = make(nn.Module, config, key="model", known=())
        return net
    return build(config)


def find(path: Path | str | None = None) -> Path:
    """The file of the network: of a run's folder its best checkpoint, by default the one shipped.

    Raises:
        ValueError: there is no such file.
    """
    file = Path(path or SHIPPED).expanduser()
    if file.is_dir():
        kept = file / "checkpoints" / "best.ckpt"
        file = kept if kept.exists() else file / "weights.safetensors"
    if not file.is_file():
        raise ValueError(f"{path or file}: no such checkpoint, weights file or run's folder")
    return file


def read_checkpoint(file: Path | str) -> Any:
    """What a checkpoint holds: plain values, and tensors that stay in the file until they are used.

    No code of the file's is run.

    Raises:
        ValueError: it is no checkpoint, or holds more than plain values and tensors.
    """
    try:
        if not zipfile.is_zipfile(file):
            alone = Path(file).suffix == ".safetensors"
            raise ValueError(
                "weights alone, without the state of a training"
                if alone
                else "it is no file of PyTorch's, or cut off"
            )
        with zipfile.ZipFile(file) as archive:
            if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                raise ValueError("it is compressed, which PyTorch's are not")
            if damaged := archive.testzip():  # torch.load takes no notice of the checksums
                raise ValueError(f"not whole: {damaged} in it is damaged")
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:  # PyTorch's own message tells how to load it all the same
        raise ValueError("it has more than tensors and plain values, which may run code") from None
    except Exception as e:  # PyTorch raises many kinds for files that are not its own
        raise ValueError(reason(e)) from None


def read(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a checkpoint or a weights file says of its network, and the network's weights.

    Only tensors and plain values are read: no code of the file's is run.

    Returns:
        `model` and `data`, as far as the file has them; the tensors by their names in the network.

    Raises:
        ValueError: it is neither, or has weights that are no numbers.
    """
    if zipfile.is_zipfile(file):
        content = read_checkpoint(file)
        about = {
            "model": content["hyper_parameters"].get("model"),
            "data": content.get("datamodule_hyper_parameters", {}),
        }
        weights = {
            key.removeprefix("net."): value
            for key, value in content["state_dict"].items()
            if key.startswith("net.")  # a loss of the user's own has weights too
        }
    else:
        with safe_open(file, "pt") as tensors:
            about = unpacked(tensors.metadata() or {})
            weights = {key: tensors.get_tensor(key) for key in tensors.keys()}  # noqa: SIM118
    if not all(weight.isfinite().all() for weight in weights.values()):
        raise ValueError("its weights are not all numbers: that training failed")
    return about, weights


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """The weights in a run's folder, a checkpoint or a weights file, by their names in the network.

    Raises:
        ValueError: there is no such file, or it holds no sound weights.
    """
    file = find(path)
    try:
        return read(file)[1]
    except Exception as e:  # a foreign file fails in as many ways as there are formats
        raise ValueError(f"{path} holds no weights of a network: {reason(e)}") from None


def load(path: Path | str | None = None) -> Trained:
    """The network of a run's folder, a checkpoint, a weights file, or by default the one shipped.

    Only tensors and plain values are read: no code of the file's is run.

    Raises:
        ValueError: there is no such file, or it is not one of this project's.
    """
    file = find(path)
    try:
        about, weights = read(file)
        model, data = about["model"], about["data"]
        Seen.model_validate({key: data.get(key) for key in Seen.model_fields})
        check_normalized(model, weights)
        # a batch of 256 runs about three times faster with the channels innermost
        net = build_network(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        net.load_state_dict(weights)
        classes = tuple(data.get("classes") or sets.SETS[data["name"]].classes)
        return Trained(net, classes, {"model": model, "data": data})
    except Exception as e:  # a foreign file fails in as many ways as there are formats
        raise ValueError(
            f"{file}: not a checkpoint or weights of this project: {reason(e)}"
        ) from None


def check_normalized(model: Mapping[str, Any], weights: Collection[str]) -> None:
    """Raises ValueError for a network of this project whose normalisation lay outside of it."""
    if "_target_" not in model and not any(key.endswith("normalize.mean") for key in weights):
        raise ValueError(
            "it is from before the normalisation was a layer of the network: use the version that "
            "wrote it (git_commit in the run's results.json), or train it anew"
        )


def load_digits(path: Path | str | None = None) -> Trained:
    """As `load`, a network that reads digits.

    Raises:
        ValueError: as `load` does; or the network was trained on something else.
    """
    net = load(path)
    if net.classes != sets.SETS["mnist"].classes:
        raise ValueError(
            f"{path}: must be a network trained on digits, got one of {net.about['data']['name']}"
        )
    return net


def data_root(net: Trained) -> str | None:
    """The folder with the data of the network's training; None where it is not on this machine."""
    data = net.about["data"]
    root = data.get("root")
    known = sets.SETS.get(data["name"])
    folder = Path(root, known.folder if known else ".") if isinstance(root, str) else None
    there = folder is not None and folder.expanduser().is_dir()
    return root if there else None


def write_weights(net: nn.Module, about: Mapping[str, Any], path: Path) -> None:
    """Writes a network's weights as safetensors, with plain values `about` them in its metadata.

    Equal weights and values give equal bytes: safetensors writes several keys in random order, so
    there is one, with all values as JSON.
    """
    weights = {k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}
    # save_file would make the file unreadable for others
    path.write_bytes(save(weights, {ABOUT: json.dumps(about, sort_keys=True)}))


def unpacked(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The values in a weights file's metadata; earlier versions wrote a key for each."""
    if ABOUT in metadata:
        return dict(json.loads(metadata[ABOUT]))
    return {key: json.loads(value) for key, value in metadata.items()}


def load_all(files: Sequence[Path | str | None]) -> list[Trained]:
    """Networks that may predict together. Each has its own architecture.

    Raises:
        ValueError: as `load` does; or they were trained on different sets.
    """
    nets = [load(file) for file in files]
    first, *others = (net.about["data"]["name"] for net in nets)
    for file, name in zip(files[1:], others, strict=True):
        if name != first:
            raise ValueError(f"{file} must be trained on {first}, as {files[0]} is, got {name}")
    return nets


def reason(error: Exception) -> str:
    """One line for an error, without what a hostile file could make a terminal do."""
    line = " ".join(str(error).split()) or type(error).__name__
    return "".join(sign if sign.isprintable() else "?" for sign in line)[:200]
