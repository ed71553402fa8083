"""Read or classify pictures: python -m mnist_cnn.predict PICTURE ... [ckpt_path=PATH]

Without ckpt_path, or with a network of MNIST's digits, all digits on a page are read; a network of
other images gives the five most likely classes of the whole picture. docs/usage.md describes the
output of --json. Pages are read in a separate process, which is stopped if a page takes more than
--max-seconds of processor time or --max-memory. The exit code is 1 if a page could not be read.
"""

import io
import itertools
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_cnn.command import command, docstring_parser, parse
from mnist_cnn.config import instantiate
from mnist_cnn.config.messages import install
from mnist_cnn.reading import limits
from mnist_cnn.runs import terminal
from mnist_cnn.runs.file_format import check_replaceable

if TYPE_CHECKING:
    from PIL import Image

    from mnist_cnn.data.picture import Pages
    from mnist_cnn.reading.networks import Classes, Digits

MARK = "mnist_cnn"  # in the pictures that --show writes
FAILURES = limits.LimitError, RuntimeError  # of a worker, which is replaced
PageAnswer = tuple[dict[str, Any], str, int]  # JSON, words, number of the file's pages


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = docstring_parser("mnist_cnn.predict", __doc__)
    note = "PNG, JPEG, HEIC, WebP, TIFF, PDF, ..., or - for standard input"
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help=note)
    parser.add_argument("--json", action="store_true", help="print JSON Lines, one per page")
    note = "write PICTURE.read.png: characters, lines and cells; only its own files are replaced"
    parser.add_argument("--show", action="store_true", help=note)
    limits.add_limits(parser)
    args = parse(parser, argv)
    for name in args.pictures:
        if re.match(r"[~+]*[\w./@]+=", name) and not os.path.exists(name):
            parser.error(f"{name}: the only keys of this command are ckpt_path and targets")
    # the worker alone imports PyTorch, which takes seconds
    make = partial(PageReader.load, args.ckpt_path, args.show, list(instantiate.ALLOWED))
    worker = limits.Worker(make, args.max_seconds, args.max_memory)
    try:
        worker.wait()
    except ModuleNotFoundError as e:
        sys.exit(f"error: reading pictures needs {e.name}: {install('photo')}")
    failed = False
    for answer, words in itertools.chain.from_iterable(pages(worker, p) for p in args.pictures):
        failed |= "error" in answer
        if args.json:
            print(json.dumps(answer), flush=True)
        elif "error" in answer:
            print(terminal.printable(f"error: {answer['error']}"), file=sys.stderr)
        else:
            name, number = answer["picture"], answer["page"]
            place = f"{name} page {number}" if number > 1 else name
            print(terminal.printable(f"{place}: {words}"))
    sys.exit(1 if failed else 0)


def pages(
    read: Callable[[str, str, int], PageAnswer], name: str
) -> Iterator[tuple[dict[str, Any], str]]:
    """Iterate over the pages of a file: each as JSON and in words.

    Args:
        read: a worker that calls a `PageReader`.
    """
    number = 1
    # a worker that replaces another opens the file again
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            path = name
            if name == "-":
                if sys.stdin is None:
                    raise OSError("-: standard input is closed")
                path = os.path.join(folder, "stdin")
                Path(path).write_bytes(sys.stdin.buffer.read())
            _, _, count = read(name, path, 0)
            for number in range(1, count + 1):
                try:
                    answer, words, _ = read(name, path, number)
                except FAILURES as e:  # the next page may still be readable
                    answer, words = failure(name, number, e), ""
                yield answer, words
        except (*FAILURES, OSError, ValueError) as e:  # opening it
            yield failure(name, number, e), ""


@dataclass
class PageReader:
    """Callable that reads one page per call, keeping the file open for the next pages.

    Args:
        network: see `load_network`.
        show: draw what was found into a picture, see `write_shown`.
    """

    network: "Digits | Classes"
    show: bool
    pages: "Pages | None" = None  # of the last file

    @classmethod
    def load(cls, path: str | None, show: bool, targets: Sequence[str]) -> "PageReader":
        """Load the networks, see `load_network`.

        Args:
            targets: code of the user's that they may name, see `instantiate.allow`.
        """
        from mnist_cnn.reading import reader  # noqa: F401, fails here without the extra photo
        from mnist_cnn.reading.networks import load_network

        instantiate.allow(targets)
        return cls(load_network(path), show)

    def __call__(self, name: str, path: str, number: int) -> PageAnswer:
        """Return a page (from 1) as JSON and in words, and the number of pages.

        Page 0 is empty: the file is opened and its pages are counted.
        """
        from mnist_cnn.data.picture import Pages, page_of

        if self.pages is None or number == 0:
            if self.pages is not None:
                self.pages.close()
            self.pages = Pages(path)
        count = len(self.pages)
        if number == 0:
            return {}, "", count
        shown = {}
        try:
            image = page_of(self.pages, number)
            found = self.network(image)
            if self.show:
                shown["shown"] = write_shown(found.drawn(), name, number)
        except (OSError, ValueError) as e:
            return failure(name, number, ValueError(str(e).replace(path, name))), "", count
        answer = {"picture": name, "page": number, **shown, **found.values()}
        return answer, found.words(), count


def failure(name: str, page: int, error: Exception) -> dict[str, Any]:
    """Return the JSON of a page that could not be read."""
    reason = f"{name}: {error}" if isinstance(error, FAILURES) else str(error)
    if isinstance(error, limits.LimitError):
        reason += ": see --max-seconds and --max-memory"
    return {"picture": name, "page": page, "error": " ".join(reason.split())}


def write_shown(drawn: "Image.Image", name: str, page: int) -> str:
    """Write what was drawn to a file beside the picture, and return its path.

    Raises:
        ValueError: the path is a link, or a file that --show did not write.
    """
    from PIL.PngImagePlugin import PngInfo

    stem = "stdin" if name == "-" else name
    path = Path(f"{stem}.{page}.read.png" if page > 1 else f"{stem}.read.png")
    check_replaceable(path, MARK)
    origin = PngInfo()
    origin.add_text("Software", MARK)
    content = io.BytesIO()
    drawn.save(content, "PNG", pnginfo=origin)  # a limit may end it: the old one is still there
    path.unlink(missing_ok=True)  # not overwritten: it may have other hard links
    with path.open("xb") as file:
        file.write(content.getbuffer())
    return str(path)


if __name__ == "__main__":
    main()
