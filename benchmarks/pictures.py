"""Verdicts on how a folder of pictures is read, by kind, beside the recipe of the usual tutorials.

    python -m benchmarks.pictures FOLDER [CHECKPOINT]

The folder has an index.csv with the columns `file` (in the folder or its img/), `label` (all digits
in reading order, none for a picture without) and `kind`. Of the digits that are read surely, in
reading order,

- right: they are the label;
- wrong: one of them is not in the label, or the label has more and no doubt is told;
- unsure: the rest;
- a picture without digits is right where none is read surely, and wrong otherwise.

The recipe: Otsu's threshold, the ink's box scaled to 20 pixels in 28, centred by mass; the same
network. In kinds with several digits it does so with each contour.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from PIL import Image

from mnist_cnn import pretrained
from mnist_cnn.reading.ink import centred
from mnist_cnn.reading.picture import load_picture
from mnist_cnn.reading.reader import Net, read_digits
from mnist_cnn.reading.reading import THRESHOLD


def common(one: str, other: str) -> int:
    """The length of the longest common subsequence."""
    best = np.zeros(len(other) + 1, int)
    for sign in one:
        same = np.array([sign == each for each in other], bool)
        longer = np.maximum(best[1:], (best[:-1] + 1) * same)
        best[1:] = np.maximum.accumulate(longer)
    return int(best[-1])


def verdict(label: str, sure: str, doubts: int) -> str:
    """One of right, wrong and unsure; doubts: what was found and not read surely."""
    if sure == label:
        return "right"
    foreign = common(sure, label) < len(sure)
    return "wrong" if foreign or (sure and not doubts) else "unsure"


def by_recipe(picture: Image.Image, net: Net, several: bool) -> list[int | None]:
    """The digits that the tutorials' recipe reads, None for an unsure one."""
    grey = cv2.GaussianBlur(np.asarray(picture.convert("L")), (5, 5), 0)
    _, ink = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    border = np.concatenate([ink[0], ink[-1], ink[:, 0], ink[:, -1]])
    ink = 255 - ink if border.mean() > 127 else ink
    if not ink.any():
        return []
    boxes: list[Any] = [cv2.boundingRect(ink)]
    if several:
        contours, _ = cv2.findContours(ink, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        boxes = sorted(map(cv2.boundingRect, contours), key=tuple)
        boxes = [box for box in boxes if box[3] > 0.01 * max(ink.shape)][:1000]
    images = []
    for x, y, w, h in boxes:
        zoom = 20 / max(w, h)
        size = max(1, round(w * zoom)), max(1, round(h * zoom))
        small = cv2.resize(ink[y : y + h, x : x + w], size, interpolation=cv2.INTER_AREA)
        if small.any():
            images.append(centred(small / np.float32(255)))
    if not images:
        return []
    with torch.inference_mode():
        surest, digits = net(torch.from_numpy(np.stack(images))).max(1)
    return [int(d) if p >= THRESHOLD else None for p, d in zip(surest, digits, strict=True)]


def measure(folder: Path, net: Net) -> pd.DataFrame:
    """A row for each picture: verdicts, digits and processor time in seconds."""
    index = pd.read_csv(folder / "index.csv", dtype=str, keep_default_na=False)
    several = index.groupby("kind").label.transform(lambda labels: labels.str.len().max() > 1)
    rows = []
    for entry, many in zip(index.to_dict("records"), several, strict=True):
        path = folder / entry["file"]
        path = path if path.exists() else folder / "img" / entry["file"]
        start = time.process_time()
        readings = read_digits(path, net)
        seconds = time.process_time() - start
        sure = "".join(str(reading.digit) for reading in readings if reading.digit is not None)
        plain = by_recipe(load_picture(path), net, many)
        surely = "".join(str(digit) for digit in plain if digit is not None)
        label = entry["label"]
        row: dict[str, Any] = {"file": entry["file"], "kind": entry["kind"], "label": label}
        row |= {"read": sure, "seconds": seconds}
        row["verdict"] = verdict(label, sure, len(readings) - len(sure))
        row["recipe"] = verdict(label, surely, len(plain) - len(surely))
        rows.append(row | {"sure": len(sure), "foreign": len(sure) - common(sure, label)})
    return pd.DataFrame(rows)


def table(found: pd.DataFrame) -> pd.DataFrame:
    """By kind: n, the reader's verdicts, its sure digits and foreign ones, and the recipe's."""
    parts = dict(list(found.groupby("kind", sort=False)))
    digits = found[found.label != ""]
    parts |= {"all with digits": digits, "without mixed": digits[digits.kind != "mixed"]}
    rows = {}
    for kind, part in parts.items():
        row: dict[str, Any] = {"n": len(part)}
        for who in ("verdict", "recipe"):
            for what in ("right", "wrong", "unsure"):
                name = what if who == "verdict" else f"recipe {what}"
                row[name] = (part[who] == what).sum()
        row |= {"sure digits": part.sure.sum(), "foreign": part.foreign.sum()}
        rows[kind] = row | {"longest s": part.seconds.max().round(1)}
    return pd.DataFrame(rows).T


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.pictures", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("checkpoint", nargs="?", help="run, checkpoint or weights (the shipped)")
    parser.add_argument("--csv", type=Path, help="write what each picture was read as")
    args = parser.parse_args()
    found = measure(args.folder, pretrained.load(args.checkpoint))
    if args.csv:
        found.to_csv(args.csv, index=False)
    print(table(found).to_string())


if __name__ == "__main__":
    main()
