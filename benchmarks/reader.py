"""Measure the learned reader on pictures of amounts, grids and others.

    python -m benchmarks.reader amounts FOLDER [READER]
    python -m benchmarks.reader sudokus FOLDER [READER]
    python -m benchmarks.reader pictures FOLDER [READER]
    python -m benchmarks.reader made [READER]
    python -m benchmarks.reader record RUN

amounts: index.csv has `file` and `label`, the digits of a line. A line is surely right where every
digit is read and the text is the label, surely wrong where nothing is unsure and it is not.
sudokus: NAME.jpg with NAME.txt, nine rows of nine: 0 for an empty cell, 10 for notes.
pictures: index.csv as `benchmarks.pictures` has it, with its verdicts. made: photographs of rows
of MNIST's validation digits, and pages, of the tests' helpers. record writes reader.json from what
a run of experiment=reader left.

READER is a run or a weights file, by default the one that ships. Pictures are read in one thread.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pandas as pd
import torch
from torchmetrics.functional.text import char_error_rate

from benchmarks.pictures import table, verdict
from benchmarks.records import SAME, setting
from benchmarks.tables import RECORDS
from mnist_cnn.detection.network import Detector
from mnist_cnn.detection.trained import load_reader
from mnist_cnn.reading.characters import read_characters
from mnist_cnn.reading.reader import Reading
from mnist_cnn.readings import written
from mnist_cnn.runs.folder import RESULTS, write_json
from tests.helpers import pages, photographs


def sure(readings: list[Reading]) -> str:
    """The digits that are read surely."""
    return "".join(str(each.digit) for each in readings if each.digit is not None)


def likely(readings: list[Reading]) -> str:
    """The best guess: all digits, whatever their confidence."""
    return "".join(str(each.best) for each in readings if each.is_candidate)


def doubts(readings: list[Reading]) -> int:
    """The number of places that may hold a digit which is not read."""
    return sum(each.digit is None and each.sign == "·" for each in readings)


def amounts(folder: Path, net: Detector) -> None:
    index = pd.read_csv(folder / "index.csv", dtype=str)
    rows: list[dict[str, Any]] = []
    for file, label in zip(index.file, index.label, strict=True):
        readings = read_characters(folder / "img" / file, net)
        guess, unsure = likely(readings), doubts(readings)
        row = {"label": label, "guess": guess, "right": guess == label}
        line = min((each.line for each in readings), default=0.0)
        row |= {"confidence": line, "surely right": not unsure and sure(readings) == label}
        rows.append(row | {"surely wrong": not unsure and sure(readings) != label})
    found = pd.DataFrame(rows)
    print(f"{len(found)} lines: best guess right {found.right.mean():.1%}", end=", ")
    edits = float(char_error_rate(list(found.guess), list(found.label)))
    print(f"wrong characters per digit {edits:.3f}")
    print(f"surely right {found['surely right'].mean():.1%}", end=", ")
    print(f"surely wrong {found['surely wrong'].mean():.1%}")
    ranked = found.sort_values("confidence", ascending=False).right.expanding().mean()
    print(
        f"most confident lines of which 99 % are right: {(ranked >= 0.99).sum() / len(found):.1%}"
    )


def sudokus(folder: Path, net: Detector) -> None:
    rows = []
    for file in sorted(folder.glob("*.jpg")):
        text = file.with_suffix(".txt").read_text("utf-8").splitlines()
        truth = [line.split() for line in text if line.strip()]
        start = time.process_time()
        readings = read_characters(file, net)
        seconds = time.process_time() - start
        columns = pd.Series({each.row: set() for each in readings}, dtype=object)
        for each in readings:
            columns[each.row] |= {each.column}
        lines = [row for row, own in columns.items() if own == set(range(9))]
        found = len(lines) == 9
        right = wrong = 0
        for row, line in enumerate(truth if found else ()):
            for column, want in enumerate(line):
                cell = [
                    each for each in readings if (each.row, each.column) == (lines[row], column)
                ]
                digits = sure(cell)
                is_right = len(digits) != 1 if want == "10" else digits == want.strip("0")
                is_sure = bool(digits) and not doubts(cell)
                right, wrong = right + is_right, wrong + (is_sure and not is_right)
        rows.append({"file": file.name, "grid": found, "right": right / 81, "wrong": wrong / 81})
        rows[-1]["seconds"] = seconds
    table = pd.DataFrame(rows)
    print(table.round(3).to_string())
    print(f"{len(table)} photographs: {table.grid.sum()} grids found", end=", ")
    print(f"cells right {table.right.mean():.1%}, surely wrong {table.wrong.mean():.1%}", end=", ")
    print(f"{table.seconds.median():.1f} s a picture (median)")


def pictures(folder: Path, net: Detector) -> None:
    index = pd.read_csv(folder / "index.csv", dtype=str, keep_default_na=False)
    rows: list[dict[str, Any]] = []
    for entry in index.to_dict("records"):
        path = folder / entry["file"]
        start = time.process_time()
        readings = read_characters(path if path.exists() else folder / "img" / entry["file"], net)
        digits = sure(readings)
        row = {"kind": entry["kind"], "label": entry["label"], "file": entry["file"]}
        row |= {"text": written(readings), "seconds": time.process_time() - start}
        row["verdict"] = verdict(entry["label"], digits, doubts(readings))
        rows.append(row | {"recipe": "", "sure": len(digits), "foreign": 0})
    found = pd.DataFrame(rows)
    print(table(found)[["n", "right", "wrong", "unsure", "longest s"]].to_string())
    print(found[found.verdict != "right"][["file", "kind", "label", "text"]].to_string())


def made(net: Detector, n: int = 200) -> None:
    for name in ("single digits", "rows of 5", "touching", "on a table", "turned 45"):
        found = []
        for image, label in photographs.pictures(photographs.KINDS[name], n, 0, "val"):
            readings = read_characters(image, net)
            found.append(verdict(label, sure(readings), doubts(readings)))
        shares = " ".join(f"{v} {found.count(v) / n:.1%}" for v in ("right", "wrong"))
        print(f"{name}: {shares} (n={n})", flush=True)
    for kind in pages.KINDS:
        same = wrong = 0
        for seed in range(n):
            picture, text = pages.page(kind, seed)
            readings = read_characters(picture, net)
            same += written(readings) == text
            label = "".join(filter(str.isdigit, text))
            wrong += verdict(label, sure(readings), doubts(readings)) == "wrong"
        print(
            f"{kind}: as written {same / n:.1%}, surely wrong {wrong / n:.1%} (n={n})", flush=True
        )


def record(run: Path) -> None:
    results = json.loads((run / RESULTS).read_text("utf-8"))
    epochs = pd.read_csv(run / "history.csv")
    kept: dict[str, Any] = {
        "name": "reader",
        "command": "python -m mnist_cnn.train experiment=reader",
    }
    kept |= {key: results[key] for key in ("seed", "seconds", *SAME)}
    kept |= {key: results[key] for key in results if key.startswith("val/")}
    kept |= {"config": setting(results["config"]), "finished": results["finished"]}
    metrics = [key for key in map(str, epochs) if key.startswith(("train/", "val/"))]
    shown = ["epoch", "seconds", *metrics]
    write_json({**kept, "epochs": epochs[shown].to_dict("records")}, RECORDS / "reader.json")


WHAT: dict[str, Callable[[Path, Detector], None]] = {
    "amounts": amounts,
    "sudokus": sudokus,
    "pictures": pictures,
}


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.reader", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    kinds = parser.add_subparsers(dest="what", required=True)
    for name in (*WHAT, "made"):
        own = kinds.add_parser(name)
        if name != "made":
            own.add_argument("folder", type=Path)
        own.add_argument("reader", nargs="?", help="a run or a weights file (the shipped)")
        own.add_argument("--n", type=int, default=200, help="pictures of each made kind")
    kinds.add_parser("record").add_argument("run", type=Path)
    args = parser.parse_args()
    if args.what == "record":
        record(args.run)
        return
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    net = load_reader(args.reader)
    if args.what == "made":
        made(net, args.n)
    else:
        WHAT[args.what](args.folder, net)


if __name__ == "__main__":
    main()
