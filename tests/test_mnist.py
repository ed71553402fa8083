"""MNIST from the package, and other data sets from the archives that torchvision downloads."""

import functools
import gzip
import hashlib
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision.datasets

from mnist_cnn.data import mnist
from mnist_cnn.data.datamodule import MNISTDataModule
from mnist_cnn.weights import predictor
from tests.helpers.process import finish, start

COUNT = 200  # images in each file of the small data set


def idx(shape: tuple[int, ...], values: bytes, code: int = 8) -> bytes:
    return struct.pack(f">4B{len(shape)}I", 0, 0, code, len(shape), *shape) + values


@functools.cache
def original(name: str, count: int) -> bytes:
    """Return the first `count` items of one of MNIST's files."""
    images = "images" in name
    shape = (count, 28, 28) if images else (count,)
    values = mnist.read_bundled(name, header=16 if images else 8)
    return idx(shape, values[: math.prod(shape)].numpy().tobytes())


@pytest.fixture
def fashion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a folder with archives of 200 digits, for a torchvision that cannot download any."""
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    archives = {f"{name}.gz": gzip.compress(original(name, COUNT), 1) for name in mnist.SHA256}
    for name, content in archives.items():
        (raw / name).write_bytes(content)
    sums = [(name, hashlib.md5(content).hexdigest()) for name, content in archives.items()]
    kind = torchvision.datasets.FashionMNIST
    monkeypatch.setattr(kind, "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setattr(kind, "resources", sums)
    yield tmp_path
    mnist.load_split.cache_clear()


def refused(root: Path) -> str:
    """Return the error line for a missing data set."""
    with pytest.raises(OSError, match=rf"^data\.root={root} has no fashion_mnist: ") as error:
        mnist.prepare("fashion_mnist", root)
    line = str(error.value)
    assert "\n" not in line
    assert str(root / "FashionMNIST" / "raw") in line
    return line


def count(root: Path) -> int:
    return len(mnist.load_split("fashion_mnist", root, "test")[0])


def test_mnist_is_what_torchvision_reads_of_the_original_files(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, checksum in mnist.SHA256.items():
        content = original(name, 60_000 if "train" in name else 10_000)
        assert hashlib.sha256(content).hexdigest() == checksum
        (raw / name).write_bytes(content)
    for split in ("train", "test"):
        x, y = mnist.load_split("mnist", "unused", split)
        theirs = torchvision.datasets.MNIST(tmp_path, train=split == "train")
        assert (x.dtype, y.dtype) == (torch.uint8, torch.int64)
        assert torch.equal(x, theirs.data)
        assert torch.equal(y, theirs.targets)


def test_mnist_needs_no_folder_and_no_home_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    monkeypatch.chdir(tmp_path)
    data = MNISTDataModule()
    data.prepare_data()
    data.setup("test")
    assert len(data.splits["test"][1]) == 10_000
    assert predictor.data_root(predictor.load()) is None
    assert not list(tmp_path.iterdir())


def test_a_set_is_unpacked_once_and_then_read_where_nobody_may_write(fashion, monkeypatch):
    data = MNISTDataModule(name="fashion_mnist", root=str(fashion), val_fraction=0.5)
    data.prepare_data()
    data.setup()
    images, labels = mnist.load_split("mnist", fashion, "train")
    assert torch.equal(data.splits["val"][0], images[:100].unsqueeze(1))
    assert torch.equal(data.splits["train"][1], labels[100:COUNT])
    mnist.load_split.cache_clear()
    monkeypatch.delattr(mnist, "FileLock")
    mnist.prepare("fashion_mnist", fashion)


@pytest.mark.parametrize("root", ["folder", "file/below"])
def test_without_network_or_folder_a_line_says_where_the_archives_belong(fashion, root):
    (fashion / "file").write_text("")  # not even root can make a folder below it
    assert ".gz" in refused(fashion / root)


def test_without_a_home_folder_a_line_says_so(monkeypatch):
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 2)  # an unknown user
    with pytest.raises(OSError, match=r"data.root=~/x .* HOME"):
        mnist.prepare("kmnist", "~/x")


def test_a_damaged_file_is_refused_and_unpacked_anew_once_it_is_deleted(fashion):
    mnist.prepare("fashion_mnist", fashion)
    mnist.load_split.cache_clear()
    path = fashion / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    assert "delete" in refused(fashion)
    path.unlink()
    mnist.prepare("fashion_mnist", fashion)
    assert count(fashion) == COUNT


def test_qmnists_class_is_the_first_column_of_its_labels(tmp_path):
    images, labels = mnist.load_split("mnist", tmp_path, "test")
    raw = tmp_path / "QMNIST" / "raw"
    raw.mkdir(parents=True)
    rows = b"".join(struct.pack(">8i", y, *range(-1, 6)) for y in labels.tolist())
    for split in ("train", "test"):
        content = original("t10k-images-idx3-ubyte", 10_000)
        (raw / f"qmnist-{split}-images-idx3-ubyte").write_bytes(content)
        (raw / f"qmnist-{split}-labels-idx2-int").write_bytes(idx((10_000, 8), rows, code=12))
    mnist.prepare("qmnist", tmp_path)
    x, y = mnist.load_split("qmnist", tmp_path, "train")
    assert torch.equal(x, images)
    assert torch.equal(y, labels)


def test_processes_that_unpack_at_once_all_succeed(fashion):
    kind = torchvision.datasets.FashionMNIST
    (fashion / "unpack.py").write_text(f"""
import torchvision.datasets
from mnist_cnn.data import mnist
kind = torchvision.datasets.FashionMNIST
kind.mirrors, kind.resources = {kind.mirrors}, {kind.resources}
mnist.prepare("fashion_mnist", "{fashion}")
print(len(mnist.load_split("fashion_mnist", "{fashion}", "train")[0]))
""")
    for process in [start(fashion, "unpack.py") for _ in range(2)]:
        assert finish(process)[:2] == (0, f"{COUNT}\n")


@pytest.mark.parametrize("damage", ["a bit", "half"])
def test_a_damaged_copy_is_refused_in_one_line(tmp_path, monkeypatch, damage):
    path = tmp_path / "t10k-labels-idx1-ubyte.xz"
    content = bytearray((mnist.BUNDLED / path.name).read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content if damage == "a bit" else content[: len(content) // 2])
    monkeypatch.setattr(mnist, "BUNDLED", tmp_path)
    with pytest.raises(OSError, match=rf"^{path}: is damaged.*; install the package again$"):
        mnist.read_bundled(path.stem, header=8)
