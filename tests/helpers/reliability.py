"""How far the shipped network's confidence can be trusted, as a picture for its card.

    python -m tests.helpers.reliability PICTURE.png [--n 200]

On the left, the share of digits on synthetic photographs (single ones and rows, of MNIST's test
digits) that are read rightly, by confidence; on the right, the most certain mistakes among drawings
that are no digit.
"""

import argparse
from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np

from mnist_cnn import pretrained
from mnist_cnn.reading.reader import Reading, read_digits
from tests.helpers.negatives import kinds
from tests.helpers.photographs import KINDS, Net, bundled, pictures

BINS = (0, 0.35, 0.6, 0.8, 0.9, 0.99, 1.001)
MISTAKES = 24


def on_photographs(net: Net, n: int) -> Iterator[tuple[float, bool]]:
    """Confidence, and whether the digit is right, where as many were found as were written."""
    images = bundled("t10k-images-idx3-ubyte", 16).reshape(-1, 28, 28)
    labels = bundled("t10k-labels-idx1-ubyte", 8)
    for kind in ("single digits", "rows of 5"):
        for picture, written in pictures(images, labels, KINDS[kind], n, 0):
            readings = read_digits(picture, net)
            if len(readings) == len(written):
                for reading, digit in zip(readings, written, strict=True):
                    yield reading.confidence, str(reading.best) == digit


def on_no_digits(net: Net, n: int) -> list[Reading]:
    """What is read in letters that look like no digit, and in scribbles."""
    rng = np.random.default_rng(0)
    endless = [kinds()[what](rng) for what in ("letters", "scribbles")]
    readings = [each for kind in endless for _ in range(n) for each in read_digits(next(kind), net)]
    return sorted((r for r in readings if r.digit is not None), key=lambda r: -r.confidence)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture")
    parser.add_argument("--n", type=int, default=200, help="pictures of each kind")
    args = parser.parse_args()
    net = pretrained.load()
    confidence, right = np.array(list(on_photographs(net, args.n))).T
    figure = plt.figure(figsize=(8, 3.2), layout="constrained")
    left, area = figure.subfigures(1, 2, width_ratios=[0.8, 1], squeeze=False)[0]
    axes = left.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    place = np.digitize(confidence, BINS)
    for n in np.unique(place):
        own = place == n
        x, y, count = confidence[own].mean(), right[own].mean(), int(own.sum())
        print(f"{BINS[n - 1]} to {BINS[n]}: {x:.3f}, of {count} digits {y:.3f} right")
        axes.plot(x, y, "o", color="C0")
        axes.annotate(str(count), (x, y), (-4, -12), textcoords="offset points", fontsize=7)
    axes.set_xlabel("confidence")
    axes.set_ylabel("share that is right")
    axes.set_title(f"{len(confidence)} digits on photographs", fontsize=9)
    mistakes = on_no_digits(net, args.n)
    area.suptitle("no digits, read as digits: the most certain", fontsize=9)
    for tile, reading in zip(area.subplots(3, 8).flat, mistakes[:MISTAKES], strict=False):
        tile.imshow(reading.image, cmap="gray")
        tile.set_title(f"{reading.digit}: {reading.confidence:.0%}", fontsize=6)
    for tile in area.axes:
        tile.axis("off")
    figure.savefig(args.picture, dpi=100)


if __name__ == "__main__":
    main()
