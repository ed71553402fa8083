"""Reads handwritten digits in pictures: python -m mnist_cnn.predict PICTURE ... [ckpt_path=PATH]

A picture is a file, a folder of such files, or - for standard input. --json prints JSON Lines, an
object for each picture, or for each page of a PDF or a TIFF:

    picture    the name, as it was given
    page       from 1; null where the file has one page
    digits     what was found, row by row:
        digit          0 to 9; null where the network is unsure, or where it is no digit
        is_digit       false for letters, punctuation, scribbles
        best           the likeliest digit, whatever its confidence
        confidence     its probability
        probabilities  of the digits 0 to 9
        turned         degrees clockwise by which the picture seems to be rotated, else 0
        box            left, top, right, bottom in pixels of the upright picture
        row            the line of writing, from 0 at the top
    shown      with --show: the picture that it wrote
    error      why the picture was not read; then there are no digits
"""

import argparse
import itertools
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
    parser = argparse.ArgumentParser(
        "python -m mnist_cnn.predict", description=__doc__.split(":")[0] + "."
    )
    parser.add_argument(
        "pictures",
        nargs="+",
        metavar="PICTURE",
        help="PNG, JPEG, HEIC, WebP, TIFF, PDF, ..., a folder of them, or - for standard input",
    )
    parser.add_argument("--json", action="store_true", help="print JSON Lines, one a picture")
    parser.add_argument(
        "--show",
        action="store_true",
        help="write PICTURE.read.png: boxes, readings, what was seen; it replaces its own alone",
    )
    args = parse(parser, argv)
    # after --help and mistakes are answered
    try:
        from mnist_cnn import pretrained
        from mnist_cnn.reading.reader import read_digits
    except ModuleNotFoundError as e:
        sys.exit(f"error: reading pictures needs {e.name}: {install('photo')}")
    net = pretrained.load_digits(args.ckpt_path)
    failed = False
    for name, number, image in itertools.chain.from_iterable(map(pages, args.pictures)):
        answer: dict[str, Any] = {"picture": name, "page": number}
        readings: list[Reading] = []
        try:
            if isinstance(image, Exception):
                raise image
            readings = read_digits(image, net)
            shown = {"shown": write_shown(image, readings, name, number)} if args.show else {}
            answer |= {"digits": [reading_fields(reading) for reading in readings], **shown}
        except (OSError, ValueError) as e:
            failed = True
            missing = isinstance(e, FileNotFoundError)
            answer["error"] = f"{name}: no such file" if missing else " ".join(str(e).split())
        # outside of the try: a closed pipe is no fault of the picture
        if args.json:
            print(json.dumps(answer), flush=True)
        else:
            print_answer(answer, readings)
    sys.exit(1 if failed else 0)


def pages(name: str) -> "Iterator[tuple[str, int | None, Image.Image | Exception]]":
    """Iterate over the pages of a file or of a folder's files, or the errors in their place.

    Each comes with its file and its number from 1, which is None where the file has only one.
    """
    from mnist_cnn.reading.picture import NAMES, load_pages

    try:
        if Path(name).is_dir():
            files = [str(file) for file in sorted(Path(name).iterdir())]
            files = [f for f in files if f.lower().endswith(NAMES) and not f.endswith(".read.png")]
            yield from itertools.chain.from_iterable(map(pages, files))
            if files:
                return
            raise ValueError(f"{name}: no picture in this folder, none of {', '.join(NAMES)}")
        loaded = load_pages(sys.stdin.buffer.read() if name == "-" else name)
        ahead = list(itertools.islice(loaded, 2))
    except (OSError, ValueError) as error:
        yield name, None, error
        return
    for number, page in enumerate(itertools.chain(ahead, loaded), 1):
        yield name, number if len(ahead) > 1 else None, page


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


def write_shown(
    image: "Image.Image", readings: "Sequence[Reading]", name: str, page: int | None
) -> str:
    """Write what was found beside the picture; ValueError where a file lies in the way."""
    from PIL.PngImagePlugin import PngInfo

    from mnist_cnn.reading.show import draw_readings

    stem = "stdin" if name == "-" else name
    path = Path(f"{stem}.read.png" if page is None else f"{stem}.{page}.read.png")
    if path.exists() and MARK.encode() not in path.read_bytes():
        raise ValueError(f"{path} exists and is not of --show: move or rename it")
    origin = PngInfo()
    origin.add_text("Software", MARK)
    draw_readings(image, readings).save(path, pnginfo=origin)
    return str(path)


def print_answer(answer: dict[str, Any], readings: "Sequence[Reading]") -> None:
    """Print what was read in one picture, or why it was not, in words."""
    page = "" if answer["page"] is None else f" page {answer['page']}"
    if "error" in answer:
        print(f"error{page}: {terminal.printable(answer['error'])}", file=sys.stderr)
        return
    print(f"{terminal.printable(answer['picture'])}{page}: {in_words(readings)}")
    if "shown" in answer:
        print(f"  shown in {terminal.printable(answer['shown'])}")


def in_words(readings: "Sequence[Reading]") -> str:
    """The readings row by row, with each digit's confidence."""
    rows = []
    for _, group in itertools.groupby(readings, key=lambda reading: reading.row):
        row = list(group)
        symbols = "".join(reading.symbol for reading in row)
        rows.append(f"{symbols} ({', '.join(map(remark, row))})")
    return " / ".join(rows) or "no digit found"


def remark(reading: "Reading") -> str:
    """The confidence of a reading, or the doubt about it."""
    if reading.digit is not None:
        return f"{reading.confidence:.0%}"
    if reading.rotation:
        return f"unsure: {reading.best} if it is turned by {reading.rotation}° clockwise?"
    return f"unsure: {reading.best}? {reading.confidence:.0%}" if reading.is_digit else "no digit"


if __name__ == "__main__":
    main()
