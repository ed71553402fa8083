"""Reads handwritten digits in pictures: python -m mnist_cnn.predict PICTURE ... [ckpt_path=PATH]

A picture is a file, a folder of such files, or - for standard input. --json prints JSON Lines, an
object for each picture, or for each page of a PDF or a TIFF:

    picture    the name, as it was given
    page       from 1; null where the file has one page
    digits     what was found, row by row:
        digit          0 to 9; null where the network is unsure, or where it is no digit
        is_digit       false for letters, signs, scribbles
        best           the likeliest digit, sure or not
        confidence     its probability
        probabilities  of the digits 0 to 9
        turned         degrees clockwise by which it seems to lie turned, else 0
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
    parser = argparse.ArgumentParser("mnist_cnn.predict", description=__doc__.split(":")[0] + ".")
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
    console = terminal.console()
    failed = False
    for name in expanded(args.pictures):
        answer: dict[str, Any] = {"picture": name, "page": None}
        try:
            for answer["page"], image in numbered(name):
                readings = read_digits(image, net)
                answer["digits"] = [reading_fields(reading) for reading in readings]
                if args.show:
                    answer["shown"] = str(write_shown(image, readings, name, answer["page"]))
                tell(answer, readings, args.json, console)
        except (OSError, ValueError) as e:
            failed = True
            answer.pop("digits", None)
            missing = isinstance(e, FileNotFoundError)
            answer["error"] = f"{name}: no such file" if missing else " ".join(str(e).split())
            tell(answer, [], args.json, console)
    sys.exit(1 if failed else 0)


def expanded(names: Sequence[str]) -> Iterator[str]:
    """The files that are named, and those with the names of pictures in the folders among them."""
    from mnist_cnn.reading.picture import NAMES

    for name in names:
        if not Path(name).is_dir():
            yield name
            continue
        inside = sorted(
            str(file)
            for file in Path(name).iterdir()
            if file.suffix.lower() in NAMES and not file.name.endswith(".read.png")
        )
        if not inside:
            raise ValueError(
                f"{terminal.printable(name)}: no picture in this folder, none of {NAMES}"
            )
        yield from inside


def numbered(name: str) -> "Iterator[tuple[int | None, Image.Image]]":
    """The pages of a file with their numbers from 1, None for the only one."""
    from mnist_cnn.reading.picture import load_pages

    pages = load_pages(sys.stdin.buffer.read() if name == "-" else name)
    first, second = next(pages), next(pages, None)
    if second is None:
        yield None, first
    else:
        yield from enumerate(itertools.chain((first, second), pages), 1)


def reading_fields(reading: "Reading") -> dict[str, Any]:
    """A reading as it stands in the JSON."""
    return {
        "digit": reading.digit,
        "is_digit": reading.is_digit,
        "best": reading.best,
        "confidence": round(reading.confidence, 4),
        "probabilities": [round(float(p), 4) for p in reading.probabilities],
        "turned": reading.turned,
        "box": list(reading.box),
        "row": reading.row,
    }


def write_shown(
    image: "Image.Image", readings: "Sequence[Reading]", name: str, page: int | None
) -> Path:
    """Writes what was found beside the picture; ValueError where a file lies in the way."""
    from PIL.PngImagePlugin import PngInfo

    from mnist_cnn.reading.show import draw_readings

    stem = "stdin" if name == "-" else name
    path = Path(f"{stem}.read.png" if page is None else f"{stem}.{page}.read.png")
    if path.exists() and MARK.encode() not in path.read_bytes():
        raise ValueError(f"{path} exists and is not of --show: move or rename it")
    origin = PngInfo()
    origin.add_text("Software", MARK)
    draw_readings(image, readings).save(path, pnginfo=origin)
    return path


def tell(
    answer: dict[str, Any], readings: "Sequence[Reading]", as_json: bool, console: Any
) -> None:
    """Prints what was read in one picture, or why it was not."""
    if as_json:
        print(json.dumps(answer), flush=True)
    elif "error" in answer:
        print(f"error: {terminal.printable(answer['error'])}", file=sys.stderr)
    else:
        page = "" if answer["page"] is None else f" page {answer['page']}"
        console.print(f"{terminal.printable(answer['picture'])}{page}: {in_words(readings)}")
        if "shown" in answer:
            console.print(f"  shown in {terminal.printable(answer['shown'])}")


def in_words(readings: "Sequence[Reading]") -> str:
    """What was read, row by row, with each digit's confidence."""
    if not readings:
        return "no digit found"
    rows: dict[int, list[Reading]] = {}
    for reading in readings:
        rows.setdefault(reading.row, []).append(reading)
    return " / ".join(
        f"{''.join(reading.sign for reading in row)} ({', '.join(map(remark, row))})"
        for row in rows.values()
    )


def remark(reading: "Reading") -> str:
    """How sure a reading is."""
    if reading.digit is not None:
        return f"{reading.confidence:.0%}"
    if reading.turned:
        return f"unsure: {reading.best} if it is turned by {reading.turned}° clockwise?"
    if not reading.is_digit:
        return "no digit"
    return f"unsure: {reading.best}? {reading.confidence:.0%}"


if __name__ == "__main__":
    main()
