"""MNIST, bundled with the package, and datasets of its shape, downloaded by torchvision."""

import functools
import hashlib
import lzma
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from mnist_cnn.runs.terminal import reason

BUNDLED = Path(__file__).parent / "bundled"
DIGITS = tuple("0123456789")
# class names by label of each dataset
CLASSES = {
    "mnist": DIGITS,
    "fashion_mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    "qmnist": DIGITS,
}
# torchvision's classes of the downloaded datasets, which fill a folder of that name in data.root
FOLDERS = {"fashion_mnist": "FashionMNIST", "kmnist": "KMNIST", "qmnist": "QMNIST"}
# SHA-256 of MNIST's decompressed files; their format: http://yann.lecun.com/exdb/mnist/
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
# MNIST's test labels that annotators consider wrong, by row, as corrected by their majority, and
# rows on which they disagree: C. G. Northcutt et al., Pervasive Label Errors in Test Sets
# Destabilize Machine Learning Benchmarks, NeurIPS 2021 (https://arxiv.org/abs/2103.14749)
CORRECTED = {947: 9, 1621: 6, 1901: 4, 2462: 0, 2597: 3}
CORRECTED |= {3558: 0, 5937: 3, 6651: 6, 6783: 6, 9729: 6}
AMBIGUOUS = (2130, 2654, 3520, 8527, 9679)


def hits_by_labels(predicted: Tensor, labels: Tensor, rows: Tensor) -> dict[str, Tensor]:
    """Return hits, bool (M,), on MNIST's test labels without the wrong ones.

    `sound` excludes the 15 images whose label is wrong or ambiguous; `corrected` corrects the
    wrong labels and excludes the ambiguous ones.

    Args:
        predicted, labels: int64 (N,).
        rows: int64 (N,), rows of the images in the test file.
    """
    right = labels.clone()
    for row, label in CORRECTED.items():
        right[rows == row] = label
    clear = ~torch.isin(rows, torch.tensor(AMBIGUOUS))
    sound = clear & (right == labels)
    return {"sound": (predicted == labels)[sound], "corrected": (predicted == right)[clear]}


def prepare(name: str, root: str | Path) -> None:
    """Download a dataset, a key of CLASSES, unless it is in the folder `root`; ~ is home.

    MNIST needs no file outside of the package.

    Raises:
        OSError: it cannot be downloaded, written or read.
    """
    for split in ("train", "test") if name in FOLDERS else ():
        try:  # before writing, as the folder may be read-only
            load_split(name, root, split)
        except OSError:
            torchvision_set(name, root, split, download=True)


@functools.cache  # the jobs of a sweep share the tensors, which are never modified
def load_split(name: str, root: str | Path, split: str) -> tuple[Tensor, Tensor]:
    """Load the images uint8 (N, 28, 28) and labels int64 (N,) of `train` or `test`.

    Raises:
        OSError: a file is damaged or missing, see `prepare`.
    """
    if name in FOLDERS:
        known = torchvision_set(name, root, split)
        # QMNIST's labels are class, writer and more
        return known.data, known.targets if known.targets.ndim == 1 else known.targets[:, 0].clone()
    part = {"train": "train", "test": "t10k"}[split]
    images = read_bundled(f"{part}-images-idx3-ubyte", header=16)
    return images.view(-1, 28, 28), read_bundled(f"{part}-labels-idx1-ubyte", header=8).long()


def read_bundled(file: str, header: int) -> Tensor:
    """Return the bytes uint8 (N,) of one of MNIST's files after its header."""
    path = BUNDLED / f"{file}.xz"
    try:
        content = bytearray(lzma.decompress(path.read_bytes()))
    except lzma.LZMAError:
        content = bytearray()
    if hashlib.sha256(content).hexdigest() != SHA256[file]:
        raise OSError(f"{path}: is damaged, its SHA-256 is another; install the package again")
    return torch.frombuffer(content, dtype=torch.uint8, offset=header)


def torchvision_set(name: str, root: str | Path, split: str, download: bool = False) -> Any:
    """Return torchvision's dataset of that name; with `download`, download missing files.

    Raises:
        OSError: see `load_split` and `prepare`.
    """
    import torchvision.datasets  # takes a second; MNIST does not need it

    try:
        folder = Path(root).expanduser()
    except RuntimeError:
        raise OSError(f"data.root={root} needs a home folder, and HOME is not set") from None
    kind = getattr(torchvision.datasets, FOLDERS[name])
    try:
        if not download:
            return kind(folder, train=split == "train")
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".download.lock"):  # another process may be unpacking the files
            return kind(folder, train=split == "train", download=True)
    except Exception as error:  # torchvision raises many types, some with several lines
        raise OSError(
            f"data.root={folder} has no {name}: {reason(error)}; put the set's .gz archives into "
            f"{folder / FOLDERS[name] / 'raw'}, or, where its files are damaged, delete them"
        ) from None
