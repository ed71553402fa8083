"""Reads handwritten digits in pictures: python -m mnist_cnn.predict PICTURE ... [ckpt_path=PATH]

docs/usage.md describes what --json prints. A process of its own reads, and ends where a page takes
more than --max-seconds or --max-memory.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_cnn import limits, terminal
from mnist_cnn.command import add_limits, command, parse
from mnist_cnn.config.messages import install

if TYPE_CHECKING:
    from PIL import Image

    from mnist_cnn.reading.reader import Net, Reading

MARK = "mnist_cnn"  # in the pictures that --show writes


@command
def main(argv: Sequence[str] | None = None) -> None:
    about = __doc__.split(":")[0] + "."
    parser = argparse.ArgumentParser("python -m mnist_cnn.predict", description=about)
    note = "PNG, JPEG, HEIC, WebP, TIFF, PDF, ..., or - for standard input"
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help=note)
    parser.add_argument("--json", action="store_true", help="print JSON Lines, one a picture")
    note = "write PICTURE.read.png: boxes, readings, what was seen; it replaces its own alone"
    parser.add_argument("--show", action="store_true", help=note)
    add_limits(parser)
    args = parse(parser, argv)
    # after --help and mistakes are answered
    try:
        from mnist_cnn import pretrained
        from mnist_cnn.reading import reader
    except ModuleNotFoundError as e:
        sys.exit(f"error: reading pictures needs {e.name}: {install('photo')}")
    work = partial(read_page, pretrained.load_digits(args.ckpt_path), args.show)
    slow = [pretrained.__name__, reader.__name__]
    worker = limits.Worker(work, args.max_seconds, args.max_memory, slow)
    failed = False
    for answer, readings in itertools.chain.from_iterable(pages(worker, p) for p in args.pictures):
        failed |= "error" in answer
        if args.json:
            print(json.dumps(answer), flush=True)
        elif "error" in answer:
            print(terminal.printable(f"error: {answer['error']}"), file=sys.stderr)
        else:
            name, number = answer["picture"], answer["page"]
            place = f"{name} page {number}" if number > 1 else name
            print(terminal.printable(f"{place}: {in_words(readings)}"))
    sys.exit(1 if failed else 0)


def pages(read: limits.Worker, name: str) -> "Iterator[tuple[dict[str, Any], list[Reading]]]":
    """Iterate over the pages of a file: the JSON of each and its readings.

    Args:
        read: calls `read_page`.
    """
    number = count = 1
    try:
        source = sys.stdin.buffer.read() if name == "-" else name
        while number <= count:
            try:
                answer, readings, count = read(name, source, number)
            except limits.LimitError as e:  # the next page may be read all the same
                why = ValueError(f"{name}: {e}: see --max-seconds and --max-memory")
                answer, readings = failure(name, number, why), []
            yield answer, readings
            number += 1
    except (OSError, ValueError) as e:
        yield failure(name, number, e), []


def read_page(
    net: "Net", show: bool, name: str, source: str | bytes, number: int
) -> "tuple[dict[str, Any], list[Reading], int]":
    """The JSON and the readings of a page, counted from 1, and the number of pages."""
    from mnist_cnn.reading.reader import read_digits
    from mnist_cnn.readings import FoundDigit, load_page

    image, count = load_page(source, number)
    try:
        if isinstance(image, Exception):
            raise image
        readings = read_digits(image, net)
        shown = {"shown": write_shown(image, readings, name, number)} if show else {}
    except (OSError, ValueError) as e:
        return failure(name, number, e), [], count
    digits = [FoundDigit.model_validate(reading).model_dump() for reading in readings]
    return {"picture": name, "page": number, **shown, "digits": digits}, readings, count


def failure(name: str, page: int, error: Exception) -> dict[str, Any]:
    """The JSON of a page that was not read."""
    return {"picture": name, "page": page, "error": " ".join(str(error).split())}


def write_shown(image: "Image.Image", readings: "Sequence[Reading]", name: str, page: int) -> str:
    """Write what was found beside the picture; ValueError where a file lies in the way."""
    from PIL.PngImagePlugin import PngInfo

    from mnist_cnn.plots.readings import draw_readings

    stem = "stdin" if name == "-" else name
    path = Path(f"{stem}.{page}.read.png" if page > 1 else f"{stem}.read.png")
    if path.exists() and MARK.encode() not in path.read_bytes():
        raise ValueError(f"{path} exists and is not of --show: move or rename it")
    origin = PngInfo()
    origin.add_text("Software", MARK)
    draw_readings(image, readings).save(path, pnginfo=origin)
    return str(path)


def in_words(readings: "Sequence[Reading]") -> str:
    """The readings, row by row, then the confidence of each digit, or the doubt about it."""
    from mnist_cnn.reading.signs import UNKNOWN
    from mnist_cnn.readings import written

    remarks = []
    for reading in readings:
        if not reading.is_digit and reading.sign != UNKNOWN:
            continue
        remark = f"{reading.confidence:.0%}" if reading.is_digit else "no digit"
        if reading.rotation:
            remark = f"{reading.best} if it is turned by {reading.rotation}° clockwise?"
        elif reading.is_digit and reading.digit is None:
            remark = f"{reading.best}? {remark}"
        remarks.append(remark)
    rows = written(readings).replace("\n", " / ")
    return f"{rows} ({', '.join(remarks)})" if remarks else "no digit found"


if __name__ == "__main__":
    main()
