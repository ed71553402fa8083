"""A data set's files from where they are: its folder, the package, the mirrors."""

import lzma
import queue
import stat
import textwrap
import threading
import time
import zlib
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from rich import progress

from mnist_cnn import terminal
from mnist_cnn.config.messages import either
from mnist_cnn.data.sets import File

BUNDLED = Path(__file__).parent / "bundled"
SLOWEST = 8 * 1024  # bytes/s: a server below this average is not waited for
Arrived = queue.SimpleQueue[tuple[bytes, int] | Exception]  # chunks with the size announced
# what a bad file, a bad archive or a bad server raises
UNUSABLE = (OSError, EOFError, ValueError, HTTPException, lzma.LZMAError, zlib.error)


def fetch(file: File, folder: Path, bundled: bool, mirrors: list[str], timeout: float) -> bytearray:
    """The proven content of a file from the first place that has it."""
    archive = folder / f"{file.name}.gz"
    places = [archive] if archive.exists() else []
    places += [BUNDLED / f"{file.name}.xz"] if bundled else []
    reasons = []
    for place in places:
        try:
            # an archive is smaller than its content
            return file.unpack(read_file(place, file.size), xz=place.suffix == ".xz")
        except UNUSABLE as error:
            reasons.append(f"{place}: {reason_of(error)}")
    unreached = []  # servers, and why
    for mirror in list(mirrors):
        url = f"{mirror.rstrip('/')}/{archive.name}"
        try:
            return file.unpack(_download(url, file.size, timeout))
        except UNUSABLE as error:
            reasons.append(f"{url}: {reason_of(error)}")
            server = urlsplit(url).netloc
            if server and isinstance(error, URLError) and not isinstance(error, HTTPError):
                unreached.append((server, reason_of(error.reason)))
            mirrors.append(mirrors.pop(0))  # asked last for the next file: a dead one costs time
    if unreached and len(unreached) == len(reasons):
        servers, why = (list(dict.fromkeys(column)) for column in zip(*unreached, strict=True))
        bundled_too = ", or data.source=bundled" if file.sha256 else ""  # MNIST
        raise OSError(
            f"no connection to {either(servers)} ({'; '.join(why)}); {archive.name} and the set's "
            f"other files are looked for in {folder}: put them there, or set data.mirror=URL"
            f"{bundled_too}"
        )
    raise OSError(
        f"no {file.name} ({'; '.join(reasons)}); put {archive.name} into {folder},"
        " name a data.mirror that has it, or, for MNIST, set data.source=bundled"
    )


def read_file(path: Path, limit: int) -> bytearray:
    """At most limit bytes of a regular file: a pipe or a device would never end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("is not a file")
    with path.open("rb") as stream:
        return bytearray(stream.read(limit))


def reason_of(error: object) -> str:
    """One line for an error, however much a server or a system says."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return textwrap.shorten(str(said), 300, placeholder=" ...")


def _download(url: str, limit: int, timeout: float) -> bytearray:
    """The bytes at url, no more than limit, with a progress bar where stderr is a terminal.

    A thread of its own waits for the network: urllib times each wait, but not a name that is
    never resolved or a header that arrives byte by byte.
    """
    arrived: Arrived = queue.SimpleQueue()
    ended = threading.Event()
    data = bytearray()
    # three waits to begin with: a dead IPv6 address, the living IPv4 one, the header
    start = time.monotonic() + 3 * timeout
    bar = terminal.progress_bar(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    threading.Thread(target=_receive, args=(url, timeout, arrived, ended), daemon=True).start()
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
                        f"stopped after {len(data):,} bytes, slower than {SLOWEST:,} bytes/s"
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
        ended.set()
    if len(data) < total:
        raise EOFError(f"cut off after {len(data):,} of {total:,} bytes")
    return data


def _receive(url: str, timeout: float, arrived: Arrived, ended: threading.Event) -> None:
    """Puts the chunks of a response into a queue, at last an empty one, or what was raised."""
    try:
        request = Request(url, headers={"User-Agent": "mnist_cnn"})
        with urlopen(request, timeout=timeout) as response:
            total = int(response.headers.get("Content-Length", 0))
            # read1 hands over what has come; read would wait for the rest
            while not ended.is_set() and (chunk := response.read1(1 << 16)):
                arrived.put((chunk, total))
        arrived.put((b"", total))
    except Exception as error:  # raised again where the queue is read
        if isinstance(error, HTTPError):
            error.close()
        arrived.put(error)
