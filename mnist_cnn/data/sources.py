"""Where the dataset's files come from, and the proof that they are the right ones.

A set is four IDX files (http://yann.lecun.com/exdb/mnist/ describes the format) in
`<root>/<set>/raw`, as torchvision lays them out. Three proofs are known, tried in this order:

1. the SHA-256 of the content in `SETS` (MNIST);
2. the SHA-256 in `SHA256SUMS` beside the file, written when its archive passed 3;
3. the archive beside the file, as torchvision leaves it, whose MD5 is in `SETS`.

A file that none of them proves is fetched anew. The sums guard against damage and wrong downloads,
not against somebody who may write to the folder.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from mnist_cnn.data.download import BUNDLED, UNUSABLE, fetch, read_file, reason_of
from mnist_cnn.data.sets import SETS, File, ImageSet

SOURCES = ("auto", "bundled", "download")
SUMS = "SHA256SUMS"


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
            a bundled set is left to `load_split`, which unpacks the copy.
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
    with ExitStack() as stack:
        try:
            with _writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(folder / ".lock"))
        except OSError:
            if bundled:
                return
            raise
        for file in _unproven(images, folder):  # another process may have been here meanwhile
            path = folder / file.name
            content = fetch(file, folder, bundled, mirrors, timeout)
            with _writing(path):
                _save(path, content)
                if not file.sha256:
                    sums = _known_sums(folder) | {file.name: hashlib.sha256(content).hexdigest()}
                    text = "".join(f"{digest}  {key}\n" for key, digest in sums.items())
                    _save(folder / SUMS, text.encode())


def load_split(
    name: str, root: str | Path, split: str, bundled: bool = False
) -> tuple[Tensor, Tensor]:
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
    arrays = []
    for file in _files(images, split):
        try:
            content = _proven(file, folder)
        except UNUSABLE as error:
            if not (bundled and images.bundled):
                raise OSError(
                    f"{folder / file.name}: {reason_of(error)}; prepare() puts the right file there"
                ) from None
            content = file.unpack(read_file(BUNDLED / f"{file.name}.xz", file.size), xz=True)
        array = np.frombuffer(content, file.dtype, offset=len(file.header)).reshape(file.shape)
        arrays.append(torch.from_numpy(array.astype(np.int64) if array.ndim < 3 else array))
    x, y = arrays
    y = y[:, 0].contiguous() if y.ndim == 2 else y
    if len(x) != len(y) or not 0 <= int(y.min()) <= int(y.max()) < len(images.classes):
        raise ValueError(f"{folder}: {split} needs one label in 0..9 for each of {len(x)} images")
    return x, y


def is_there(name: str, root: str | Path, split: str) -> bool:
    """Whether the files of a split are in `root`, right or not."""
    images, folder = _find(name, root)
    return all((folder / file.name).is_file() for file in _files(images, split))


def _files(images: ImageSet, split: str) -> Sequence[File]:
    """Images and labels of a split."""
    if split not in ("train", "test"):
        raise ValueError(f"split must be train or test, got {split}")
    return images.files[:2] if split == "train" else images.files[2:]


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
    content = read_file(folder / file.name, file.size + 1)
    sha256 = file.sha256 or _known_sums(folder).get(file.name)
    if not sha256:
        archive = folder / f"{file.name}.gz"
        try:
            sha256 = hashlib.sha256(file.unpack(read_file(archive, file.size))).hexdigest()
        except UNUSABLE as error:
            raise ValueError(
                f"neither {SUMS} nor {archive.name} proves it ({reason_of(error)})"
            ) from None
    file.check(content, sha256)
    return content


def _known_sums(folder: Path) -> dict[str, str]:
    """File name -> SHA-256 as written down beside the files; empty where nothing is."""
    try:
        lines = read_file(folder / SUMS, 1 << 16).decode(errors="replace").splitlines()
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


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say which path could not be written and what to do about it."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"cannot write {path}: {reason_of(error)}; clear its place or choose another data.root"
        ) from None
