"""Measure how pictures are read: python -m benchmarks.pictures KIND ... [--reader RUN] [--net RUN]

    pictures FOLDER   index.csv: `file` (in the folder or its img/), `label`, all digits in reading
                      order, and `kind`, where there are several; in the CSV of --labels: `file`,
                      `label` and `corrected`, which replaces it
    sudokus FOLDER    NAME.jpg and NAME.txt, nine rows of nine: 0 an empty cell, 10 notes
    made              photographs of MNIST's digits, and pages, of mnist_cnn/data/drawn
    none              letters, scribbles, doodles: pictures without digits
    small             scikit-learn's digits of 8x8 pixels, enlarged to 200x200
    costs             seconds and memory of 12 megapixels, a page of text and 1,200 cells

Of a picture: guessed, all digits, whatever their confidence, are the label; surely right, nothing
is unsure and the digits are the label; surely wrong, nothing is unsure and they are not. A picture
without digits is surely right where none is read surely. right, wrong: the same of the digits that
are read surely alone, which are wrong where one is not in the label, or at least one is read, the
label has more and no doubt is told. 99 %: the share of pictures that are the most confident, by the
product of their lines' confidence, and of which 99 % are guessed. errors: edits to the label for
each of its digits.

--reader is a run of experiment=reader or its weights file, --net one of a network of 28x28 digits,
which classifies what is found. --rules reads by the rules that the reader replaces. One thread.
"""

import argparse
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageDraw, ImageFont
from torchmetrics.functional.text import edit_distance

from benchmarks import rules
from mnist_cnn.command import command
from mnist_cnn.data.drawn import negatives, pages, photographs
from mnist_cnn.detection.trained import load_reader
from mnist_cnn.reading.answers import confidence, rows, written
from mnist_cnn.reading.reader import read_digits
from mnist_cnn.reading.reading import UNKNOWN, Reading
from mnist_cnn.weights.predictor import load

Read = Callable[[Any], list[Reading]]
CERTAIN = 0.99


class Item(NamedTuple):
    """A picture and what is written on it."""

    kind: str
    picture: Path | Image.Image
    label: str  # its digits
    text: str | None = None  # its digits and signs, in the format of `written`


def verdict(label: str, sure: str, doubts: int) -> str:
    """Return right, wrong or unsure; `doubts` is the number of places not read surely."""
    if sure == label:
        return "right"
    foreign = pages.common(sure, label) < len(sure)
    return "wrong" if foreign or (sure and not doubts) else "unsure"


def surely(readings: Sequence[Reading]) -> str:
    """Return the digits that are read surely."""
    return "".join(str(each.digit) for each in readings if each.digit is not None)


def doubted(readings: Sequence[Reading]) -> int:
    """Return the number of places that may hold a digit that was not read."""
    return sum(each.digit is None and each.sign == UNKNOWN for each in readings)


def folder(place: Path, labels: Path | None = None) -> Iterator[Item]:
    index = pd.read_csv(place / "index.csv", dtype=str, keep_default_na=False)
    if labels:
        given = pd.read_csv(labels, dtype=str)
        corrected = index.merge(given, "left", ["file", "label"], validate="m:1").corrected
        if missing := len(given) - corrected.notna().sum():
            raise ValueError(f"{labels}: {missing} of its files and labels are not in {place}")
        index["label"] = corrected.fillna(index.label)
    for entry in index.to_dict("records"):
        path = place / entry["file"]
        path = path if path.exists() else place / "img" / entry["file"]
        yield Item(entry.get("kind", place.name), path, entry["label"])


def made(n: int) -> Iterator[Item]:
    for name, kind in photographs.KINDS.items():
        for picture, label in photographs.pictures(kind, n, 0, "val"):
            yield Item(name, picture, label)
    for name in pages.KINDS:
        for seed in range(n):
            picture, text = pages.page(name, seed)
            yield Item(name, picture, "".join(filter(str.isdecimal, text)), text)


def none(n: int) -> Iterator[Item]:
    for name, drawings in negatives.KINDS.items():
        for drawing in islice(drawings(np.random.default_rng(0)), n):
            yield Item(name, drawing, "")


def small(n: int) -> Iterator[Item]:
    from sklearn.datasets import load_digits as load_small

    found = load_small()
    for image, label in zip(found.images[:n], found.target[:n], strict=True):
        picture = Image.fromarray((255 - image * 15.9375).astype(np.uint8))
        yield Item("8x8", picture.resize((200, 200), Image.Resampling.BICUBIC), str(label))


def measured(item: Item, read: Read) -> dict[str, Any]:
    """Read a picture, and return what was read and the verdicts on it."""
    start = time.process_time()
    readings = read(item.picture)
    seconds = time.process_time() - start
    sure = surely(readings)
    guess = "".join(str(each.best) for each in readings if each.is_digit)
    doubts = doubted(readings)
    is_sure = not doubts or not item.label
    found: dict[str, Any] = {"kind": item.kind, "file": item.picture, "label": item.label}
    found |= {"read": written(readings), "seconds": seconds}
    found["verdict"] = verdict(item.label, sure, doubts)
    found["edits"] = int(edit_distance(guess, item.label, reduction="sum"))
    found["guessed"] = guess == item.label
    found |= {"surely right": is_sure and sure == item.label}
    found |= {"surely wrong": is_sure and sure != item.label}
    found["as written"] = None if item.text is None else written(readings) == item.text
    lines = [confidence(row) for row in rows(readings)]
    found["confidence"] = float(np.prod(lines)) if guess else 0.0
    return found


def summary(found: pd.DataFrame) -> dict[str, Any]:
    """Return the row of a kind in the printed table."""
    row: dict[str, Any] = {"n": len(found)}
    names = ["guessed", "surely right", "surely wrong", "as written"]
    row |= {name: None if found[name].isna().any() else found[name].mean() for name in names}
    row |= {name: (found.verdict == name).sum() for name in ("right", "wrong", "unsure")}
    ranked = found.sort_values("confidence", ascending=False).guessed.expanding().mean()
    row["99 %"] = np.flatnonzero(ranked >= CERTAIN).max(initial=-1).item() + 1
    row["99 %"] /= len(found)
    row["errors"] = found.edits.sum() / max(1, found.label.str.len().sum())
    return row | {"seconds": found.seconds.median(), "longest": found.seconds.max()}


def table(found: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each kind and, if there are several, one for all with digits."""
    parts = dict(list(found.groupby("kind", sort=False)))
    if len(parts) > 1:
        parts["all with digits"] = found[found.label != ""]
    return pd.DataFrame({kind: summary(part) for kind, part in parts.items() if len(part)}).T


def sudoku(photograph: Path, read: Read) -> dict[str, Any]:
    """Return whether the grid is found, and the fractions of its cells right and surely wrong."""
    lines = photograph.with_suffix(".txt").read_text("utf-8").splitlines()
    truth = [line.split() for line in lines if line.strip()]
    start = time.process_time()
    readings = read(photograph)
    seconds = time.process_time() - start
    whole = [row for row in rows(readings) if {each.column for each in row} == {*range(9)}]
    right = wrong = 0
    for row, line in zip(whole if len(whole) == 9 else [], truth, strict=False):
        for column, want in enumerate(line):
            cell = [each for each in row if each.column == column]
            digits = surely(cell)
            is_right = len(digits) != 1 if want == "10" else digits == want.strip("0")
            is_sure = bool(digits) and not doubted(cell)
            right, wrong = right + is_right, wrong + (is_sure and not is_right)
    found = {"file": photograph.name, "grid": len(whole) == 9}
    return found | {"right": right / 81, "surely wrong": wrong / 81, "seconds": seconds}


def sudokus(place: Path, read: Read) -> pd.DataFrame:
    files = sorted(place.glob("*.jpg"))
    if not files:
        raise ValueError(f"{place}: no *.jpg in there")
    found = pd.DataFrame([sudoku(file, read) for file in files])
    total = {"file": "all", "grid": found.grid.sum(), "seconds": found.seconds.median()}
    total |= found[["right", "surely wrong"]].mean().to_dict()
    return pd.concat([found, pd.DataFrame([total])])


def costly() -> Iterator[tuple[str, Image.Image]]:
    """Yield pictures that are slow to read."""
    ((row, _),) = photographs.pictures(photographs.KINDS["rows of 5"], 1, 0, "val")
    yield "12 megapixels", row.convert("RGB").resize((4000, 3000))
    sheet = Image.new("L", (1400, 2000), 245)
    text = "\n".join("the quick brown fox jumps over the lazy dog, as ever" for _ in range(50))
    font = ImageFont.load_default(26)
    ImageDraw.Draw(sheet).multiline_text((80, 80), text, 40, font, spacing=10)
    yield "a page of text", sheet
    yield "1,200 cells", pages.grid(np.random.default_rng(0), 40, 30, 0.9, 1)[0].picture()


def costs(read: Read) -> pd.DataFrame:
    found = []
    for name, picture in costly():
        start = time.process_time()
        readings = read(picture)
        row = {"picture": name, "found": len(readings), "seconds": time.process_time() - start}
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        found.append({**row, "MB at most so far": round(megabytes)})
    return pd.DataFrame(found)


BUILT_IN: dict[str, Callable[[int], Iterator[Item]]] = {
    "made": made,
    "none": none,
    "small": small,
}


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.pictures", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("kind", choices=["pictures", *BUILT_IN, "sudokus", "costs"])
    parser.add_argument("folder", type=Path, nargs="?", help="of pictures or sudokus")
    parser.add_argument("--labels", type=Path, help="a CSV of corrected labels for a folder")
    parser.add_argument("--reader", help="a run of experiment=reader or its weights (the shipped)")
    parser.add_argument("--rules", action="store_true", help="by the rules that it replaces")
    parser.add_argument("--net", help="a run, checkpoint or weights of a network of 28x28 digits")
    parser.add_argument("--n", type=int, default=200, help="pictures of each made kind")
    parser.add_argument("--csv", type=Path, help="write what each picture was read as")
    args = parser.parse_args(argv)
    if (args.kind in ("pictures", "sudokus")) != bool(args.folder):
        parser.error(f"{args.kind} takes {'no ' if args.folder else 'a '}folder")
    if args.labels and args.kind != "pictures":
        parser.error(f"{args.kind} takes no --labels")
    if args.rules and args.reader:
        parser.error("--rules takes no --reader")
    if args.n < 1:
        parser.error(f"--n must be at least 1, got {args.n}")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    net = load(args.net) if args.net else None
    read: Read = partial(rules.read_digits, net=net)
    if not args.rules:
        read = partial(read_digits, net=net, reader=load_reader(args.reader))
    if args.kind == "costs":
        found = shown = costs(read)
    elif args.kind == "sudokus":
        found = shown = sudokus(args.folder, read)
    else:
        items = folder(args.folder, args.labels) if args.folder else BUILT_IN[args.kind](args.n)
        found = pd.DataFrame([measured(item, read) for item in items])
        shown = table(found)
    if args.csv:
        found.to_csv(args.csv, index=False)
    print(shown.to_string(float_format="{:.3f}".format))


if __name__ == "__main__":
    main()
