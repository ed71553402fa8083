"""Reads handwritten digits in pictures: python -m mnist_cnn.predict PICTURE ... [ckpt_path=PATH]"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mnist_cnn import terminal
from mnist_cnn.command import command, parse
from mnist_cnn.config.messages import install

MARK = "mnist_cnn"  # in the pictures that --show writes


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("mnist_cnn.predict", description=__doc__.split(":")[0] + ".")
    parser.add_argument(
        "pictures", nargs="+", metavar="PICTURE", help="PNG, JPEG, WebP, GIF, TIFF, ..."
    )
    parser.add_argument("--json", action="store_true", help="print JSON, one object a picture")
    parser.add_argument(
        "--show",
        action="store_true",
        help="write PICTURE.read.png: boxes, readings, what was seen; it replaces its own alone",
    )
    args = parse(parser, argv)
    # after --help and mistakes are answered
    try:
        from PIL.PngImagePlugin import PngInfo

        from mnist_cnn import pretrained
        from mnist_cnn.reading.picture import load_picture
        from mnist_cnn.reading.reader import draw_readings, read_digits
    except ModuleNotFoundError as e:
        sys.exit(f"error: reading pictures needs {e.name}: {install('photo')}")
    net = pretrained.load_digits(args.ckpt_path)
    origin = PngInfo()
    origin.add_text("Software", MARK)
    console = terminal.console()
    failed = False
    for name in args.pictures:
        answer: dict[str, Any] = {"picture": name}
        shown = Path(f"{name}.read.png")
        try:
            if args.show:
                check_replaceable(shown)
            image = load_picture(name)
            readings = read_digits(image, net)
            if args.show:
                draw_readings(image, readings).save(shown, pnginfo=origin)
                answer["shown"] = str(shown)
        except (OSError, ValueError) as e:
            failed = True
            answer["error"] = " ".join(str(e).split())
        else:
            answer["digits"] = [
                {
                    "digit": reading.digit,
                    "best": reading.best,
                    "confidence": round(reading.confidence, 4),
                    "box": list(reading.box),
                    "row": reading.row,
                }
                for reading in readings
            ]
        if args.json:
            print(json.dumps(answer), flush=True)
        elif "error" in answer:
            print(f"error: {answer['error']}", file=sys.stderr)
        else:
            console.print(f"{name}: {sentence(answer['digits'])}")
            if args.show:
                console.print(f"  shown in {answer['shown']}")
    sys.exit(1 if failed else 0)


def check_replaceable(picture: Path) -> None:
    """Raises ValueError where a picture lies in the way that --show did not write."""
    if picture.exists() and MARK.encode() not in picture.read_bytes():
        raise ValueError(f"{picture} exists and is not of --show: move or rename it")


def sentence(digits: Sequence[dict[str, Any]]) -> str:
    """What was read, row by row, with each digit's confidence."""
    if not digits:
        return "no digit found"
    rows: dict[int, list[dict[str, Any]]] = {}
    for digit in digits:
        rows.setdefault(digit["row"], []).append(digit)
    return " / ".join(
        "".join("?" if d["digit"] is None else str(d["digit"]) for d in row)
        + " ("
        + ", ".join(
            f"unsure: {d['best']}? {d['confidence']:.0%}"
            if d["digit"] is None
            else f"{d['confidence']:.0%}"
            for d in row
        )
        + ")"
        for row in rows.values()
    )


if __name__ == "__main__":
    main()
