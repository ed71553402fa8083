"""Where the dataset's files come from, and the proof that they are the right ones.

A set is four IDX files (http://yann.lecun.com/exdb/mnist/ describes the format) in
`<root>/<set>/raw`, as torchvision lays them out. Three proofs are known, tried in this order:

1. the SHA-256 of the content in `SETS` (MNIST);
2. the SHA-256 in `SHA256SUMS` beside the file, written when its archive passed 3;
3. the archive beside the file, as torchvision leaves it, whose MD5 is in `SETS`.

A file that none of them proves is fetched anew. The sums guard against damage and wrong downloads,
not against somebody who may write to the folder.
"""

import gzip
import hashlib
import io
import lzma
import math
import os
import queue
import stat
import struct
import textwrap
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import torch
from filelock import FileLock
from rich import progress
from torch import Tensor

from mnist_cnn import terminal

SOURCES = ("auto", "bundled", "download")
SUMS = "SHA256SUMS"
BUNDLED = Path(__file__).parent / "bundled"
SLOWEST = 8 * 1024  # bytes/s: a server below this average is given up
# what a bad file, a bad archive or a bad server raises
UNUSABLE = (OSError, EOFError, ValueError, HTTPException, lzma.LZMAError, zlib.error)


@dataclass(frozen=True)
class File:
    """One IDX file: its name, the shape of its array, and what proves it.

    Args:
        digest: SHA-256 of the content (64 hex digits) or, where only that is published, MD5 of
            the `.gz` archive (32 hex digits).
    """

    name: str
    shape: tuple[int, ...]
    digest: str

    @property
    def sha256(self) -> str | None:
        return self.digest if len(self.digest) == 64 else None

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(">i4" if self.name.endswith("-int") else "u1")

    @property
    def header(self) -> bytes:
        code = {"i": 12, "u": 8}[self.dtype.kind]
        return struct.pack(f">4B{len(self.shape)}I", 0, 0, code, len(self.shape), *self.shape)

    @property
    def size(self) -> int:
        """Bytes of the content."""
        return len(self.header) + math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class ImageSet:
    """A dataset of 28x28 images in classes; each mirror is a base URL of its `.gz` archives.

    Args:
        files: train images, train labels, test images, test labels. Labels of two dimensions
            carry the class in column 0.
        bundled: whether the package holds a copy.
        wrong_test_labels: rows of the test images whose label people hold to be wrong.
    """

    folder: str
    classes: tuple[str, ...]
    mirrors: tuple[str, ...]
    files: tuple[File, File, File, File]
    bundled: bool = False
    wrong_test_labels: tuple[int, ...] = ()


def _files(
    digests: str,
    train: str = "train",
    test: str = "t10k",
    labels: str = "labels-idx1-ubyte",
    columns: tuple[int, ...] = (),
    tests: int = 10_000,
) -> tuple[File, File, File, File]:
    digest = digests.split()
    return (
        File(f"{train}-images-idx3-ubyte", (60_000, 28, 28), digest[0]),
        File(f"{train}-{labels}", (60_000, *columns), digest[1]),
        File(f"{test}-images-idx3-ubyte", (tests, 28, 28), digest[2]),
        File(f"{test}-{labels}", (tests, *columns), digest[3]),
    )


# Folders, MD5, class names and plain-http mirrors as in torchvision/datasets/mnist.py; https and
# the authors' own repository come first.
SETS = {
    "mnist": ImageSet(
        "MNIST",
        tuple("0123456789"),
        ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
        _files("""ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db
                  65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5
                  0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7
                  ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"""),
        bundled=True,
        # C. G. Northcutt et al., Pervasive Label Errors in Test Sets Destabilize Machine Learning
        # Benchmarks, NeurIPS 2021 Datasets and Benchmarks (https://arxiv.org/abs/2103.14749)
        wrong_test_labels=(
            *(947, 1621, 1901, 2130, 2462, 2597, 2654, 3520),
            *(3558, 5937, 6651, 6783, 8527, 9679, 9729),
        ),
    ),
    "fashion_mnist": ImageSet(
        "FashionMNIST",
        (
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        (
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
        _files("""8d4fb7e6c68d591d4c3dfef9ec88bf0d 25c81989df183df01b3e8a0aad5dffbe
                  bef4ecab320f06d8554ea6380940ec79 bb300cfdad3c16e7a12a480ee83cd310"""),
    ),
    "kmnist": ImageSet(
        "KMNIST",
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        tuple(f"{scheme}://codh.rois.ac.jp/kmnist/dataset/kmnist/" for scheme in ("https", "http")),
        _files("""bdb82020997e1d708af4cf47b453dcf7 e144d726b3acfaa3e44228e80efcd344
                  5c965bf0a639b31b8f53240b1b52f4d7 7320c461ea6c1c855c0b718fb2a4b134"""),
    ),
    "qmnist": ImageSet(
        "QMNIST",
        tuple("0123456789"),
        ("https://raw.githubusercontent.com/facebookresearch/qmnist/master/",),
        _files(
            """ed72d4157d28c017586c42bc6afe6370 0058f8dd561b90ffdd0f734c6a30e5e4
               1394631089c404de565df7b7aeaf9412 5b5b05890a5e13444e108efe57b788aa""",
            train="qmnist-train",
            test="qmnist-test",
            labels="labels-idx2-int",
            columns=(8,),
            tests=60_000,
        ),
    ),
}


def prepare(
    name: str, root: str | Path, source: str, mirror: str | None = None, timeout: float = 20
) -> None:
    """Make the verified files of a set be in `root`; if they are, nothing is locked or written.

    Args:
        name: a key of `SETS`.
        root: the folder that holds `MNIST/raw` and its like.
        source: bundled (the copy in the package, MNIST only), download (the mirrors), or auto
            (bundled where there is such a copy, else download). An archive `<file>.gz` that lies
            in the folder already comes before either. Where nobody can write into the folder,
            a bundled set is left to `load`, which unpacks the copy.
        mirror: a base URL tried before the known ones.
        timeout: seconds to wait for a connection or for the next bytes.

    Raises:
        ValueError: an argument that is not allowed.
        OSError: no place had the right file, or it could not be written.
    """
    images, folder = _find(name, root)
    if source not in SOURCES or (source == "bundled" and not images.bundled):
        allowed = [s for s in SOURCES if images.bundled or s != "bundled"]
        raise ValueError(f"data.source={source}: for {name} it is one of {', '.join(allowed)}")
    if mirror is not None and not mirror.startswith(("http://", "https://", "file://")):
        raise ValueError(f"data.mirror={mirror}: must start with http://, https:// or file://")
    if not _unproven(images, folder):
        return
    # tried in this order for each file
    mirrors = [] if source == "bundled" else [m for m in (mirror, *images.mirrors) if m]
    bundled = images.bundled and source != "download"
    if bundled and not _writable(folder):
        return
    with ExitStack() as stack:
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(folder / ".lock"))
        for file in _unproven(images, folder):  # another process may have been here meanwhile
            path = folder / file.name
            content = _fetch(file, folder, bundled, mirrors, timeout)
            with _writing(path):
                _save(path, content)
                if not file.sha256:
                    sums = _sums(folder) | {file.name: hashlib.sha256(content).hexdigest()}
                    text = "".join(f"{digest}  {key}\n" for key, digest in sums.items())
                    _save(folder / SUMS, text.encode())


def load(name: str, root: str | Path, split: str, bundled: bool = False) -> tuple[Tensor, Tensor]:
    """Images uint8 (N, 28, 28) and labels int64 (N,) of a split, from the bytes that were verified.

    Args:
        name: a key of `SETS`.
        root: the folder that `prepare` filled.
        split: train or test.
        bundled: whether the copy in the package, of a set that has one, may stand in for a file
            that is not there.

    Raises:
        ValueError: an argument that is not allowed, or a label outside 0..9.
        OSError: a file is missing or is not the right one.
    """
    images, folder = _find(name, root)
    if split not in ("train", "test"):
        raise ValueError(f"split={split}: must be train or test")
    arrays = []
    for file in images.files[:2] if split == "train" else images.files[2:]:
        try:
            content = _proven(file, folder)
        except UNUSABLE as error:
            if not (bundled and images.bundled):
                raise OSError(
                    f"{folder / file.name}: {_reason(error)}; prepare() puts the right file there"
                ) from None
            content = _unpack(file, _read(BUNDLED / f"{file.name}.xz", file.size), xz=True)
        array = np.frombuffer(content, file.dtype, offset=len(file.header)).reshape(file.shape)
        arrays.append(torch.from_numpy(array.astype(np.int64) if array.ndim < 3 else array))
    x, y = arrays
    y = y[:, 0].contiguous() if y.ndim == 2 else y
    if len(x) != len(y) or not 0 <= int(y.min()) <= int(y.max()) < len(images.classes):
        raise ValueError(f"{folder}: {split} needs one label in 0..9 for each of {len(x)} images")
    return x, y


def _find(name: str, root: str | Path) -> tuple[ImageSet, Path]:
    if name not in SETS:
        raise ValueError(f"data.name={name}: must be one of {', '.join(SETS)}")
    return SETS[name], Path(root).expanduser() / SETS[name].folder / "raw"


def _unproven(images: ImageSet, folder: Path) -> list[File]:
    """The files that are missing, unreadable, damaged or without proof."""
    files = []
    for file in images.files:
        try:
            _proven(file, folder)
        except UNUSABLE:
            files.append(file)
    return files


def _proven(file: File, folder: Path) -> bytearray:
    """The content of a file on disk, proven in one of the module's three ways, or an error."""
    content = _read(folder / file.name, file.size + 1)
    sha256 = file.sha256 or _sums(folder).get(file.name)
    if not sha256:
        archive = folder / f"{file.name}.gz"
        try:
            sha256 = hashlib.sha256(_unpack(file, _read(archive, file.size))).hexdigest()
        except UNUSABLE as error:
            raise ValueError(
                f"neither {SUMS} nor {archive.name} proves it ({_reason(error)})"
            ) from None
    _check(file, content, sha256)
    return content


def _check(file: File, content: bytearray, sha256: str | None) -> None:
    """Size, header (type, counts, 28x28) and digest; None where the archive was the proof."""
    if len(content) != file.size:
        found = "more" if len(content) > file.size else f"{len(content):,}"
        raise ValueError(f"expected {file.size:,} bytes, found {found}")
    if not content.startswith(file.header):
        raise ValueError(f"its header is not that of an IDX file of {file.dtype.name} {file.shape}")
    if sha256 and (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise ValueError(f"expected SHA-256 {sha256}, found {found}")


def _fetch(
    file: File, folder: Path, bundled: bool, mirrors: list[str], timeout: float
) -> bytearray:
    """The proven content of a file from the first place that has it."""
    archive = folder / f"{file.name}.gz"
    places = [archive] if archive.exists() else []
    places += [BUNDLED / f"{file.name}.xz"] if bundled else []
    reasons = []
    for place in places:
        try:
            # an archive is smaller than its content
            return _unpack(file, _read(place, file.size), xz=place.suffix == ".xz")
        except UNUSABLE as error:
            reasons.append(f"{place}: {_reason(error)}")
    for mirror in list(mirrors):
        url = f"{mirror.rstrip('/')}/{archive.name}"
        try:
            content = _unpack(file, _download(url, file.size, timeout))
        except UNUSABLE as error:
            reasons.append(f"{url}: {_reason(error)}")
            mirrors.append(mirrors.pop(0))  # asked last for the next file: a dead one costs time
        else:
            return content
    raise OSError(
        f"no {file.name} ({'; '.join(reasons)}); put {archive.name} into {folder},"
        " name a data.mirror that has it, or, for MNIST, set data.source=bundled"
    )


def _unpack(file: File, packed: bytearray, xz: bool = False) -> bytearray:
    """The checked content of an archive; stops at the size expected, whatever the archive holds."""
    if not file.sha256:
        found = hashlib.md5(packed, usedforsecurity=False).hexdigest()
        if found != file.digest:
            raise ValueError(f"expected an archive of MD5 {file.digest}, found {found}")
    with (lzma if xz else gzip).open(io.BytesIO(packed)) as stream:
        content = bytearray(stream.read(file.size + 1))
    _check(file, content, file.sha256)
    return content


def _download(url: str, limit: int, timeout: float) -> bytearray:
    """The bytes at url, no more than limit, with a progress bar where stderr is a terminal.

    A thread of its own waits for the network: urllib times each wait, but not a name that is
    never resolved or a header that arrives byte by byte.
    """
    arrived: queue.SimpleQueue[tuple[bytes, int] | Exception] = queue.SimpleQueue()
    given_up = threading.Event()

    def work() -> None:
        try:
            request = Request(url, headers={"User-Agent": "mnist_cnn"})
            with urlopen(request, timeout=timeout) as response:
                total = int(response.headers.get("Content-Length", 0))
                # read1 hands over what has come; read would wait for the rest
                while not given_up.is_set() and (chunk := response.read1(1 << 16)):
                    arrived.put((chunk, total))
            arrived.put((b"", total))
        except Exception as error:  # raised again where the queue is read
            if isinstance(error, HTTPError):
                error.close()
            arrived.put(error)

    data = bytearray()
    # three waits to begin with: a dead IPv6 address, the living IPv4 one, the header
    start = time.monotonic() + 3 * timeout
    console = terminal.console(stderr=True, soft_wrap=False)
    bar = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,  # no empty lines in a batch job's log
    )
    threading.Thread(target=work, daemon=True).start()
    try:
        with bar:
            task = bar.add_task(url.rpartition("/")[2], total=None)
            while True:
                # each byte buys time, so a trickle comes to an end
                left = start + len(data) / SLOWEST - time.monotonic()
                try:
                    item = arrived.get(timeout=max(left, 0))
                except queue.Empty:
                    raise TimeoutError(
                        f"given up after {len(data):,} bytes, slower than {SLOWEST:,} bytes/s"
                    ) from None
                if isinstance(item, Exception):
                    raise item
                chunk, total = item
                data += chunk
                if len(data) > limit:
                    raise ValueError(f"expected at most {limit:,} bytes")
                if not chunk:
                    break
                bar.update(task, total=total or None, completed=len(data))
    finally:
        given_up.set()
    if len(data) < total:
        raise EOFError(f"cut off after {len(data):,} of {total:,} bytes")
    return data


def _read(path: Path, limit: int) -> bytearray:
    """At most limit bytes of a regular file: a pipe or a device would never end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("is not a file")
    with path.open("rb") as stream:
        return bytearray(stream.read(limit))


def _sums(folder: Path) -> dict[str, str]:
    """File name -> SHA-256 as written down beside the files; empty where nothing is."""
    try:
        lines = _read(folder / SUMS, 1 << 16).decode(errors="replace").splitlines()
    except OSError:
        return {}
    return {name: digest for digest, name in (x.split() for x in lines if len(x.split()) == 2)}


def _save(path: Path, content: bytes | bytearray) -> None:
    """Write all of a file or nothing; the caller holds the folder's lock."""
    # a fixed name: what a killed process left is overwritten, not collected
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    try:
        with part.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _writable(folder: Path) -> bool:
    """Whether a file can be written into a folder, or into that which it will be made in."""
    there = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say which path could not be written and what to do about it."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"cannot write {path}: {_reason(error)}; clear its place or choose another data.root"
        ) from None


def _reason(error: Exception) -> str:
    """One line for an error, however much a server or a system says."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return textwrap.shorten(str(said), 300, placeholder=" ...")
