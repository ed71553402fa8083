"""Measure networks on other people's digits: python -m benchmarks.elsewhere DIGITS.npz [FOLDER ...]

Print the table of measurements/elsewhere.json and draw elsewhere.png beside it. The runs of
FOLDERs, each a sweep's or a run's, join it. DIGITS.npz has uint8 images (N, H, W), white on black,
and labels (N,) of each set: usps and usps_labels (the test set of Hastie et al., The Elements of
Statistical Learning), semeion and semeion_labels, optdigits and optdigits_labels (UCI). Each image
is cut out, scaled and centred as MNIST's are; no network was trained or chosen on them.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf
from torch import Tensor

from benchmarks.measurements import FOLDER, join, write_rows
from benchmarks.records import read_runs
from benchmarks.tables import accuracy, hardware, markdown
from mnist_cnn.command import command, docstring_parser
from mnist_cnn.plots.axes import finish, titled
from mnist_cnn.reading.ink import Grey, Ink, resized
from mnist_cnn.runs.folder import OVERRIDES
from mnist_cnn.weights import predictor

FILE = FOLDER / "elsewhere.json"
SETS = {"usps": "#0b62a4", "semeion": "#c1272d", "optdigits": "#e08a00"}  # with their colours
BOX = 20  # longest side of an MNIST digit, in pixels


def as_mnist(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut out a digit (H, W), and scale and centre it as MNIST's are, uint8 (28, 28)."""
    x, y, width, height = cv2.boundingRect((image > 127).astype(np.uint8))
    cut = image[y : y + height, x : x + width].astype(np.float32) / 255
    return centred(resized(cut, BOX))


def centred(stroke: Ink) -> Grey:
    """Centre a stroke (h, w), at most 20 a side, by mass in uint8 (28, 28), as MNIST's are."""
    height, width = stroke.shape
    image = np.zeros((28, 28), np.uint8)
    image[:height, :width] = np.round(stroke * 255)
    moments = cv2.moments(image)
    mass = moments["m00"] or 1.0  # there may be no ink
    x, y = round(14 - moments["m10"] / mass), round(14 - moments["m01"] / mass)
    x, y = min(max(x, 0), 28 - width), min(max(y, 0), 28 - height)
    return np.roll(image, (y, x), (0, 1))


def load_sets(file: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Load each set's images (N, 28, 28) and labels (N,)."""
    with np.load(file) as found:
        return {
            name: (
                torch.from_numpy(np.stack([as_mnist(image) for image in found[name]])),
                torch.from_numpy(found[f"{name}_labels"].astype(np.int64)),
            )
            for name in SETS
        }


def measure(folder: Path, sets: Mapping[str, tuple[Tensor, Tensor]]) -> Iterator[dict[str, Any]]:
    """Yield a row for each run of a folder: its command, and its accuracy on MNIST and the sets."""
    for run in read_runs(folder):
        overrides = map(str, OmegaConf.load(run["folder"] / OVERRIDES))
        chosen = [each for each in overrides if not each.startswith("seed=")]
        net = predictor.load(run["folder"])
        yield {
            "network": " ".join(sorted(chosen)),
            "seed": run["seed"],
            "mnist": run["test/acc"],
            **{
                name: (net(images).argmax(1) == labels).double().mean().item()
                for name, (images, labels) in sets.items()
            },
            "hardware": hardware(run),
        }


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracies of each network, mean ± std over its seeds."""
    found = rows.groupby("network", sort=False)
    shown = found[["mnist", *SETS]].agg(list).map(accuracy)
    shown.insert(0, "n", found.size())
    return shown.rename_axis("`python -m mnist_cnn.train ...`").reset_index()


def short(network: str) -> str:
    """Return the overrides of a network for a figure, without those of the trainer."""
    kept = [each for each in network.split() if not each.startswith("trainer.")]
    experiment = [each for each in kept if each.startswith("experiment=")]
    rest = [each for each in kept if each not in experiment]
    return ", ".join([*(each.partition("=")[2] for each in experiment), *rest])


def draw(rows: pd.DataFrame, file: Path) -> None:
    """Plot a row of points per network, the mean over its seeds on each set."""
    found = rows.groupby("network", sort=False)[[*SETS]]
    means, spread = found.mean(), found.std().fillna(0)
    figure = titled(
        "Accuracy on digits by other people, mean ± std over seeds", (9, 1.2 + 0.4 * len(means))
    )
    axes = figure.add_subplot()
    places = np.arange(len(means))[::-1]
    for k, (name, color) in enumerate(SETS.items()):
        level = places + 0.16 * (1 - k)  # so that error bars do not cover each other
        style: Any = {"fmt": "o", "ms": 5, "capsize": 2, "color": color, "label": name}
        axes.errorbar(means[name], level, xerr=spread[name], **style)
    axes.set_yticks(places, [short(network) for network in means.index])
    axes.set(xlabel="accuracy")
    finish(axes, "x")
    axes.legend(frameon=False, ncols=len(SETS), loc="lower center", bbox_to_anchor=(0.5, 1))
    figure.savefig(file, dpi=110)


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = docstring_parser("benchmarks.elsewhere", __doc__)
    parser.add_argument("digits", type=Path, metavar="DIGITS.npz")
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    args = parser.parse_args(argv)
    sets = load_sets(args.digits)
    new = [row for folder in args.folders for row in measure(folder, sets)]
    rows = join(new, FILE)
    shown = markdown(table(rows))
    if new:  # what cannot be shown is not written
        draw(rows, FILE.with_suffix(".png"))
        write_rows(rows, FILE)
    print(shown)


if __name__ == "__main__":
    main()
