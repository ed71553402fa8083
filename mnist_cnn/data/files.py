"""The files of a data set: read, checked and written whole."""

import hashlib
import os
import stat
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mnist_cnn.data.sets import File

SUMS = "SHA256SUMS"
BUNDLED = Path(__file__).parent / "bundled"


def check_content(file: File, content: bytearray, sha256: str | None) -> None:
    """Size, header (type, counts, 28x28) and digest; None where the archive was the proof."""
    if len(content) != file.size:
        found = "more" if len(content) > file.size else f"{len(content):,}"
        raise ValueError(f"expected {file.size:,} bytes, found {found}")
    if not content.startswith(file.header):
        raise ValueError(f"its header is not that of an IDX file of {file.dtype.name} {file.shape}")
    if sha256 and (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise ValueError(f"expected SHA-256 {sha256}, found {found}")


def read_file(path: Path, limit: int) -> bytearray:
    """At most limit bytes of a regular file: a pipe or a device would never end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("is not a file")
    with path.open("rb") as stream:
        return bytearray(stream.read(limit))


def known_sums(folder: Path) -> dict[str, str]:
    """File name -> SHA-256 as written down beside the files; empty where nothing is."""
    try:
        lines = read_file(folder / SUMS, 1 << 16).decode(errors="replace").splitlines()
    except OSError:
        return {}
    return {name: digest for digest, name in (x.split() for x in lines if len(x.split()) == 2)}


def save_file(path: Path, content: bytes | bytearray) -> None:
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
def writing(path: Path) -> Iterator[None]:
    """Say which path could not be written and what to do about it."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"cannot write {path}: {reason_of(error)}; clear its place or choose another data.root"
        ) from None


def reason_of(error: object) -> str:
    """One line for an error, however much a server or a system says."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return textwrap.shorten(str(said), 300, placeholder=" ...")
