"""Reads handwritten digits in pictures: python -m mnist_cnn.predict PICTURE ... [ckpt_path=PATH]

docs/usage.md describes what --json prints.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_cnn import terminal
from mnist_cnn.command import command, parse
from mnist_cnn.config.messages import install

if TYPE_CHECKING:
    from PIL import Image

    from mnist_cnn.reading.reader import Reading

MARK = "mnist_cnn"  # in the pictures that --show writes


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("mnist_cnn.predict", description=__doc__.split(":")[0] + ".")
    note = "PNG, JPEG, HEIC, WebP, TIFF, PDF, ..., or - for standard input"
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help=note)
    parser.add_argument("--json", action="store_true", help="print JSON Lines, one a picture")
    note = "write PICTURE.read.png: boxes, readings, what was seen; it replaces its own alone"
    parser.add_argument("--show", action="store_true", help=note)
    args = parse(parser, argv)
    # after --help and mistakes are answered
    try:
        from mnist_cnn import pretrained
        from mnist_cnn.reading.reader import read_digits
    except ModuleNotFoundError as e:
        sys.exit(f"error: reading pictures needs {e.name}: {install('photo')}")
    net = pretrained.load_digits(args.ckpt_path)
    failed = False
    for name, number, page in pages(args.pictures):
        answer: dict[str, Any] = {"picture": name, "page": number}
        readings: list[Reading] = []
        try:
            if isinstance(page, Exception):
                raise page
            readings = read_digits(page, net)
            if args.show:
                answer["shown"] = write_shown(page, readings, name, number)
            answer["digits"] = [reading_fields(reading) for reading in readings]
        except (OSError, ValueError) as e:
            failed = True
            answer["error"] = " ".join(str(e).split())
        # outside of the try: a closed pipe is no fault of the picture
        if args.json:
            print(json.dumps(answer), flush=True)
        elif "error" in answer:
            print(terminal.printable(f"error: {answer['error']}"), file=sys.stderr)
        else:
            place = f"{name} page {number}" if number > 1 else name
            print(terminal.printable(f"{place}: {in_words(readings)}"))
    sys.exit(1 if failed else 0)


def pages(names: Sequence[str]) -> "Iterator[tuple[str, int, Image.Image | Exception]]":
    """Iterate over the pages of files with their names and numbers from 1.

    In place of a page, or of a file, that cannot be read comes the error.
    """
    from mnist_cnn.reading.picture import load_pages

    for name in names:
        try:
            loaded = load_pages(sys.stdin.buffer.read() if name == "-" else name)
            yield from ((name, number, page) for number, page in enumerate(loaded, 1))
        except (OSError, ValueError) as error:
            yield name, 1, error


def reading_fields(reading: "Reading") -> dict[str, Any]:
    """A reading as it stands in the JSON."""
    return {
        "digit": reading.digit,
        "is_digit": reading.is_digit,
        "best": reading.best,
        "confidence": round(reading.confidence, 4),
        "probabilities": [round(float(p), 4) for p in reading.probabilities],
        "turned": reading.rotation,
        "box": list(reading.box),
        "row": reading.row,
    }


def write_shown(image: "Image.Image", readings: "Sequence[Reading]", name: str, page: int) -> str:
    """Write what was found beside the picture; ValueError where a file lies in the way."""
    from PIL.PngImagePlugin import PngInfo

    from mnist_cnn.reading.show import draw_readings

    stem = "stdin" if name == "-" else name
    path = Path(f"{stem}.{page}.read.png" if page > 1 else f"{stem}.read.png")
    if path.exists() and MARK.encode() not in path.read_bytes():
        raise ValueError(f"{path} exists and is not of --show: move or rename it")
    origin = PngInfo()
    origin.add_text("Software", MARK)
    draw_readings(image, readings).save(path, pnginfo=origin)
    return str(path)


def in_words(readings: "Sequence[Reading]") -> str:
    """The readings, row by row, then the confidence of each, or the doubt about it."""
    from mnist_cnn.reading.reader import written

    remarks = []
    for reading in readings:
        remark = f"{reading.confidence:.0%}" if reading.is_digit else "no digit"
        if reading.rotation:
            remark = f"{reading.best} if it is turned by {reading.rotation}° clockwise?"
        elif reading.is_digit and reading.digit is None:
            remark = f"{reading.best}? {remark}"
        remarks.append(remark)
    rows = written(readings).replace("\n", " / ")
    return f"{rows} ({', '.join(remarks)})" if readings else "no digit found"


if __name__ == "__main__":
    main()
