"""MNIST from the package; the other sets as torchvision downloads them, from 127.0.0.1 only."""

import functools
import gzip
import hashlib
import math
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.datasets

from mnist_cnn import pretrained
from mnist_cnn.data import mnist
from mnist_cnn.data.datamodule import MNISTDataModule
from tests.helpers.process import environment

NAMES = [f"{name}.gz" for name in mnist.SHA256]
COUNT = 200  # images of each file of the small set
NOWHERE = "http://127.0.0.1:9/"


def idx(shape: tuple[int, ...], values: bytes, code: int = 8) -> bytes:
    return struct.pack(f">4B{len(shape)}I", 0, 0, code, len(shape), *shape) + values


def original(name: str, count: int) -> bytes:
    """One of MNIST's files, or its beginning."""
    images = "images" in name
    shape = (count, 28, 28) if images else (count,)
    values = mnist.read_bundled(name, header=16 if images else 8)
    return idx(shape, values[: math.prod(shape)].tobytes())


@pytest.fixture(scope="session")
def mirrors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders good, with archives of 200 real digits, and damaged, with the same cut off."""
    folder = tmp_path_factory.mktemp("mirrors")
    for name in mnist.SHA256:
        archive = gzip.compress(original(name, COUNT), 1)
        for kind, content in (("good", archive), ("damaged", archive[:-1])):
            (folder / kind).mkdir(exist_ok=True)
            (folder / kind / f"{name}.gz").write_bytes(content)
    return folder


@pytest.fixture(scope="session")
def url(mirrors: Path) -> Iterator[str]:
    """The address of the mirrors' folder."""
    serve = functools.partial(SimpleHTTPRequestHandler, directory=str(mirrors))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def fashion(
    monkeypatch: pytest.MonkeyPatch, mirrors: Path, url: str
) -> Iterator[Callable[..., None]]:
    """Points torchvision's Fashion-MNIST to the small archives on these mirrors."""

    def use(*addresses: str) -> None:
        kind = torchvision.datasets.FashionMNIST
        sums = [hashlib.md5((mirrors / "good" / name).read_bytes()).hexdigest() for name in NAMES]
        places = [a if a == NOWHERE else f"{url}/{a}/" for a in addresses]
        monkeypatch.setattr(kind, "mirrors", places)
        monkeypatch.setattr(kind, "resources", list(zip(NAMES, sums, strict=True)))

    yield use
    mnist.load_split.cache_clear()


def refused(root: Path) -> str:
    """The line in which a set is refused."""
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
    for name in mnist.SHA256:
        (raw / name).write_bytes(original(name, 60_000 if "train" in name else 10_000))
    for split in ("train", "test"):
        x, y = mnist.load_split("mnist", "unused", split)
        theirs = torchvision.datasets.MNIST(tmp_path, train=split == "train")
        assert (x.dtype, y.dtype) == (torch.uint8, torch.int64)
        assert torch.equal(x, theirs.data)
        assert torch.equal(y, theirs.targets)


def test_mnist_needs_no_folder_and_no_home_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    with pytest.raises(RuntimeError, match="home directory"):
        Path("~").expanduser()
    monkeypatch.chdir(tmp_path)
    data = MNISTDataModule()
    data.prepare_data()
    data.setup("test")
    assert len(data.splits["test"][1]) == 10_000
    assert pretrained.data_root(pretrained.load()) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["a bit", "half"])
def test_a_damaged_copy_is_refused_in_one_line(tmp_path, monkeypatch, damage):
    path = tmp_path / "t10k-labels-idx1-ubyte.xz"
    content = bytearray((mnist.BUNDLED / path.name).read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content if damage == "a bit" else content[: len(content) // 2])
    monkeypatch.setattr(mnist, "BUNDLED", tmp_path)
    with pytest.raises(OSError, match=rf"^{path}: is damaged.*; install the package again$"):
        mnist.read_bundled(path.stem, header=8)


def test_classes_are_those_of_torchvision():
    for name, folder in mnist.FOLDERS.items():
        theirs = getattr(torchvision.datasets, folder).classes
        named = [text.partition(" - ")[0] for text in theirs]  # "0 - zero"
        assert list(mnist.CLASSES[name]) == named


def test_a_set_is_downloaded_once_and_then_read_where_nobody_may_write(
    tmp_path, fashion, monkeypatch
):
    fashion("good")
    data = MNISTDataModule(name="fashion_mnist", root=str(tmp_path), val_fraction=0.5)
    data.prepare_data()
    data.setup()
    images, labels = mnist.load_split("mnist", tmp_path, "train")
    assert torch.equal(data.splits["val"][0], images[:100].unsqueeze(1))
    assert torch.equal(data.splits["train"][1], labels[100:COUNT])
    mnist.load_split.cache_clear()
    fashion(NOWHERE)
    monkeypatch.delattr(mnist, "FileLock")
    mnist.prepare("fashion_mnist", tmp_path)


def test_a_mirror_that_fails_is_followed_by_the_next(tmp_path, fashion):
    fashion(NOWHERE, "damaged", "good")
    mnist.prepare("fashion_mnist", tmp_path)
    assert count(tmp_path) == COUNT


def test_archives_that_a_user_put_there_are_enough(tmp_path, mirrors, fashion):
    fashion(NOWHERE)
    shutil.copytree(mirrors / "good", tmp_path / "FashionMNIST" / "raw")
    mnist.prepare("fashion_mnist", tmp_path)
    assert count(tmp_path) == COUNT


@pytest.mark.parametrize("root", ["folder", "file/below"])
def test_without_network_or_folder_a_line_says_where_the_archives_belong(tmp_path, fashion, root):
    fashion(NOWHERE)
    (tmp_path / "file").write_text("")  # nobody can make a folder below it, root included
    assert ".gz" in refused(tmp_path / root)
    assert not mnist.is_there("fashion_mnist", tmp_path / root)


@pytest.mark.parametrize("change", [lambda x: x[:-1], lambda x: b"", lambda x: x[:-1] + b"\x0a"])
def test_a_damaged_file_is_refused_and_fetched_anew_once_it_is_deleted(tmp_path, fashion, change):
    fashion("good")
    mnist.prepare("fashion_mnist", tmp_path)
    mnist.load_split.cache_clear()
    path = tmp_path / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte"
    path.write_bytes(change(path.read_bytes()))
    assert "delete" in refused(tmp_path)
    path.unlink()
    mnist.prepare("fashion_mnist", tmp_path)
    assert count(tmp_path) == COUNT


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


def test_processes_that_download_at_once_all_succeed(tmp_path, mirrors, url):
    code = f"""
import hashlib, sys, torchvision.datasets
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from mnist_cnn.data import mnist
kind, good = torchvision.datasets.FashionMNIST, Path("{mirrors}", "good")
kind.mirrors = ["{url}/good/"]
files = [good / name for name, _ in kind.resources]
kind.resources = [(f.name, hashlib.md5(f.read_bytes()).hexdigest()) for f in files]
print("ready", flush=True)
sys.stdin.readline()
mnist.prepare("fashion_mnist", "{tmp_path}")
print(len(mnist.load_split("fashion_mnist", "{tmp_path}", "train")[0]))
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    options: Any = {**pipes, "text": True, "env": environment()}
    processes = [subprocess.Popen([sys.executable, "-c", code], **options) for _ in range(3)]
    assert [out.readline() for process in processes if (out := process.stdout)] == ["ready\n"] * 3
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        assert process.communicate(timeout=60)[0] == f"{COUNT}\n"
        assert process.returncode == 0
