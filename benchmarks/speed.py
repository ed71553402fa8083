"""Measures training speed: python -m benchmarks.speed [--rounds N] [--batches N] [--out FILE]

Four ways through the tutorial's network at batch 64, interleaved in one process with the same
number of threads, so that a slow minute of the machine slows them all. Ratios are taken round by
round; their median is given, the least and the greatest:

  usual   Lightning as tutorials and project templates use it: torchvision's dataset, transforms
          and DataLoader, metric objects, the rich progress bar
  loop    the fastest bare PyTorch loop we know for this network: no Trainer, no metrics
  ours    this project, through its Trainer, with its default callbacks and logger
  floor   what the processor's matrix multiplication alone would allow

With --fast [EXPERIMENT] instead: the whole training of an experiment (by default fast) over one
epoch of the tutorial's (48,000 images), interleaved. Both are the `seconds` of results.json, from
the first batch to the last, data in memory, without validation and test.
"""

import contextlib
import functools
import logging
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import track
from rich.table import Table
from torch import Tensor

from benchmarks.usual import BATCH, EPOCH, data_folder, train_usual
from mnist_cnn import model, terminal
from mnist_cnn.command import command
from mnist_cnn.config.compose import compose, files
from mnist_cnn.config.messages import either, must_be
from mnist_cnn.data import mnist
from mnist_cnn.report import docstring_parser
from mnist_cnn.runs import results
from mnist_cnn.train import train

MFLOP_PER_IMAGE = 15.4  # forward and backward of the tutorial's network


def bare_loop(images: Tensor, labels: Tensor, batches: int) -> float:
    """Images/s of a bare loop over tensors in memory."""
    net = model.CNN((32, 64), 128, 0.0).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, eps=1e-7, fused=True)
    started = time.perf_counter()
    order = torch.randperm(len(labels))
    for rows in order[: batches * BATCH].split(BATCH):
        loss = F.cross_entropy(net(images[rows].float().div_(255)), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return batches * BATCH / (time.perf_counter() - started)


def own_training(batches: int, folder: str) -> float:
    """Images/s of this project's own training, as results.json has them."""
    overrides = ["trainer.max_epochs=1", "trainer.accelerator=cpu", "test=false"]
    overrides += [f"trainer.limit_train_batches={batches}", "trainer.limit_val_batches=1"]
    return train(compose(overrides, run_dir=tempfile.mkdtemp(dir=folder)))["images/s"]


def matmul_speed() -> float:
    """Images/s if the processor did nothing but multiply matrices at its best rate."""
    a, b = torch.randn(2, 1024, 1024)
    torch.mm(a, b)
    started = time.perf_counter()
    for _ in range(10):
        torch.mm(a, b)
    flop_per_second = 10 * 2 * 1024**3 / (time.perf_counter() - started)
    return flop_per_second / (MFLOP_PER_IMAGE * 1e6)


def measure_speeds(rounds: int, batches: int) -> dict[str, list[float]]:
    """Images/s of each way in each round, the ways interleaved."""
    root = data_folder()
    images, labels = mnist.load_split("mnist", root, "train")
    images, labels = images.unsqueeze(1)[12_000:], labels[12_000:]
    with tempfile.TemporaryDirectory() as folder:
        short = functools.partial(train_usual, epochs=1, batches=batches // 4, test=False)
        ways: dict[str, Callable[[], float]] = {
            "usual": lambda: short(root, Path(folder))["images/s"],
            "loop": lambda: bare_loop(images, labels, batches),
            "ours": lambda: own_training(batches, folder),
            "floor": matmul_speed,
        }
        return interleave(ways, rounds)


def measure_fast(
    experiment: str, rounds: int, overrides: Sequence[str] = ()
) -> dict[str, list[float]]:
    """Seconds of an experiment's whole training and of one epoch of the tutorial's, in each round.

    Args:
        overrides: of both.
    """

    def seconds(folder: str, *own: str) -> float:
        shutil.rmtree(folder, ignore_errors=True)
        run = compose([*own, *overrides, "test=false"], run_dir=folder)
        return train(run)["seconds"]

    # validation is not in the seconds, so the tutorial's need not be long
    article = ["experiment=article", "trainer.max_epochs=1", "trainer.limit_val_batches=1"]
    with tempfile.TemporaryDirectory() as folder:
        ways = {
            experiment: lambda: seconds(f"{folder}/whole", f"experiment={experiment}"),
            "article, one epoch": lambda: seconds(f"{folder}/epoch", *article),
        }
        return interleave(ways, rounds)


def interleave(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each way gives in each round; a first round more warms up."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    console = terminal.console(stderr=True, soft_wrap=False)
    for turn in track(range(rounds + 1), "measuring", console=console):
        for name, way in ways.items():
            torch.use_deterministic_algorithms(False)
            with quiet():
                value = way()
            if turn > 0:
                found[name].append(value)
    return found


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Sends what the ways print to os.devnull; their progress bars are drawn nevertheless."""
    with (
        mock.patch.dict(os.environ, FORCE_COLOR="1"),  # as on a terminal, and at the same cost
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


class Ratio(NamedTuple):
    """Of two ways, taken round by round: the median, the least and the greatest."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratio(first: Sequence[float], second: Sequence[float]) -> Ratio:
    ratios = np.divide(first, second)
    return Ratio(*map(float, (np.median(ratios), ratios.min(), ratios.max())))


def conditions(rounds: int) -> str:
    """How numbers were measured."""
    threads = torch.get_num_threads()
    return f"medians over {rounds} rounds, {threads} threads, {results.processor()}"


def compare_ways(rounds: int, batches: int) -> tuple[dict[str, Ratio], dict[str, Any]]:
    """Prints each way's images/s; their ratios, and what the JSON file holds."""
    speeds = measure_speeds(rounds, batches)
    ratios = {f"{name}/loop": ratio(speeds[name], speeds["loop"]) for name in speeds}
    ratios["ours/usual"] = ratio(speeds["ours"], speeds["usual"])
    medians = {name: float(np.median(values)) for name, values in speeds.items()}
    table = Table("", title="training, batch 64, medians", title_justify="left")
    for head in ("images/s", "of the loop"):
        table.add_column(head, justify="right")
    for name, meaning in (
        ("usual", "the usual Lightning + torchvision recipe"),
        ("loop", "a bare PyTorch loop"),
        ("ours", "mnist_cnn through its Trainer"),
        ("floor", "matrix multiplication alone"),
    ):
        of_loop = "1" if name == "loop" else str(ratios[f"{name}/loop"])
        table.add_row(meaning, f"{medians[name]:,.0f}", of_loop)
    console = terminal.console()
    console.print(table)
    console.print(
        f"mnist_cnn is {ratios['ours/usual']} times the usual recipe and {ratios['ours/loop']} of "
        f"the bare loop ({conditions(len(speeds['loop']))}; in brackets the least and the greatest "
        "ratio of a round)"
    )
    told = {name: found._asdict() for name, found in ratios.items()}
    return ratios, {"images/s": medians, "ratios": told, "rounds": speeds, "batches": batches}


def compare_fast(experiment: str, rounds: int) -> tuple[dict[str, Ratio], dict[str, Any]]:
    """Prints an experiment's seconds over those of an epoch of the tutorial's; returns the same."""
    seconds = measure_fast(experiment, rounds)
    whole, epoch = seconds.values()
    ratios, found = np.divide(whole, epoch).tolist(), ratio(whole, epoch)
    table = Table(*(f"{name}, s" for name in seconds), "ratio")
    for row in zip(whole, epoch, ratios, strict=True):
        table.add_row(*(f"{value:.3f}" for value in row))
    console = terminal.console()
    console.print(table)
    console.print(
        f"the whole training of experiment={experiment} takes {found} of one epoch of the "
        f"tutorial's ({conditions(len(whole))})"
    )
    told = {"ratio": found.median, "ratios": ratios, "seconds": seconds}
    return {f"{experiment}/article": found}, told


def warn_of_noise(ratios: Mapping[str, Ratio]) -> None:
    """Says which ratio's rounds differ the most, where it is by more than a third."""
    name, widest = max(ratios.items(), key=lambda item: item[1].high / item[1].low)
    if widest.high > 4 / 3 * widest.low:
        print(
            f"warning: the rounds differ by more than a third, {name}: {widest.low:.2f} to "
            f"{widest.high:.2f}; other programs keep this machine busy: measure again without them",
            file=sys.stderr,
        )


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = docstring_parser("benchmarks.speed", __doc__)
    parser.add_argument(
        "--fast",
        nargs="?",
        const="fast",
        metavar="EXPERIMENT",
        help="measure its whole training (of fast) over one epoch of the tutorial's instead",
    )
    parser.add_argument(
        "--rounds", type=int, default=9, help="number of measurements of each way (9)"
    )
    parser.add_argument("--batches", type=int, default=400, help="steps of a measurement (400)")
    parser.add_argument("--out", type=Path, help="the JSON file to write")
    args = parser.parse_args(argv)
    if args.rounds < 1:
        parser.error(must_be("--rounds", "1 or more", args.rounds))
    if not 4 <= args.batches <= EPOCH:
        parser.error(must_be("--batches", f"4 to {EPOCH}, an epoch,", args.batches))
    if args.fast and args.fast not in files("experiment"):
        raise ValueError(must_be("--fast", either(files("experiment")), args.fast))
    if args.out and not args.out.absolute().parent.is_dir():
        parser.error(must_be("--out", "in a folder that exists", args.out))
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    ratios, told = (
        compare_fast(args.fast, args.rounds)
        if args.fast
        else compare_ways(args.rounds, args.batches)
    )
    warn_of_noise(ratios)
    if args.out:
        record = {
            **told,
            "threads": torch.get_num_threads(),
            "processor": results.processor(),
            "versions": results.versions(),
            "git_commit": results.commit(),
        }
        results.write(record, args.out)


if __name__ == "__main__":
    main()
