"""Reliability of the shipped network's confidence: python -m tests.helpers.reliability

prints the share of digits on synthetic photographs (single ones and rows, of MNIST's test digits)
that are read correctly, by confidence.
"""

import pandas as pd

from mnist_cnn import pretrained
from mnist_cnn.reading.reader import read_digits
from tests.helpers.photographs import KINDS, pictures

BINS = (0, 0.35, 0.6, 0.8, 0.9, 0.99, 1.001)


def main() -> None:
    net = pretrained.load()
    rows = []
    for kind in ("single digits", "rows of 5"):
        for picture, written in pictures(KINDS[kind], 200, 0):
            readings = read_digits(picture, net)
            if len(readings) == len(written):
                for reading, digit in zip(readings, written, strict=True):
                    rows.append((reading.confidence, str(reading.best) == digit))
    table = pd.DataFrame(rows, columns=["confidence", "correct"])
    bins = pd.cut(table["confidence"], BINS)
    print(table.groupby(bins, observed=True).agg(["mean", "count"]).to_string())


if __name__ == "__main__":
    main()
