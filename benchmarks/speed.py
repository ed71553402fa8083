"""Measures training speed: python -m benchmarks.speed [--rounds N] [--batches N] [--out FILE]

Four ways through the tutorial's network at batch 64, interleaved in one process with the same
number of threads, so that a slow minute of the machine slows them all. Ratios are taken round by
round; their median is given, the least and the greatest:

  usual   Lightning as tutorials use it: torchvision's dataset, transforms and DataLoader, metric
          objects, the rich progress bar
  loop    the fastest bare PyTorch loop we know for this network: no Trainer, no metrics
  ours    this project, through its Trainer, with its default callbacks and logger
  floor   what the processor's matrix multiplication alone would allow

With --fast [EXPERIMENT] instead: the whole training of an experiment (by default fast) over one
epoch of the tutorial's (48,000 images), interleaved. Both are the `seconds` of results.json, from
the first batch to the last, data in memory, without validation and test. --write puts their ratio
into the experiment's record.
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

import pandas as pd
import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor

from benchmarks.recording import RECORDS, load_records
from benchmarks.tables import markdown
from benchmarks.usual import BATCH, EPOCH, data_folder, train_usual
from mnist_cnn import model, terminal
from mnist_cnn.analysis import results
from mnist_cnn.command import command
from mnist_cnn.config.compose import compose, files
from mnist_cnn.config.messages import either, must_be
from mnist_cnn.data import mnist
from mnist_cnn.report import docstring_parser
from mnist_cnn.runs.folder import write_json
from mnist_cnn.train import train

MFLOP_PER_IMAGE = 15.4  # forward and backward of the tutorial's network
LEAST = 4  # batches: the usual recipe, which is slow, takes a quarter of them

Ways = Mapping[str, Callable[[], float]]


def bare_loop(images: Tensor, labels: Tensor, batches: int) -> float:
    """Images/s of a bare loop over tensors in memory."""
    net = model.CNN((32, 64), 128, 0.0).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, eps=1e-7, fused=True)
    started = time.perf_counter()
    order = torch.randperm(len(labels))
    for rows in order[: batches * BATCH].split(BATCH):
        loss = F.cross_entropy(net(images[rows].float().div_(255)), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return batches * BATCH / (time.perf_counter() - started)


def matmul_speed() -> float:
    """Images/s if the processor did nothing but multiply matrices at its best rate."""
    a, b = torch.randn(2, 1024, 1024)
    torch.mm(a, b)
    started = time.perf_counter()
    for _ in range(10):
        torch.mm(a, b)
    flop_per_second = 10 * 2 * 1024**3 / (time.perf_counter() - started)
    return flop_per_second / (MFLOP_PER_IMAGE * 1e6)


def own_training(folder: Path, key: str, *overrides: str) -> float:
    """A number of results.json of this project's own training, without a test."""
    shutil.rmtree(folder, ignore_errors=True)
    return train(compose([*overrides, "test=false"], run_dir=folder))[key]


def four_ways(folder: Path, batches: int) -> Ways:
    """Images/s of each way."""
    root = data_folder()
    images, labels = mnist.load_split("mnist", root, "train")
    images, labels = images.unsqueeze(1)[12_000:], labels[12_000:]
    short = functools.partial(train_usual, epochs=1, batches=batches // LEAST, test=False)
    ours = ["trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.limit_val_batches=1"]
    ours += [f"trainer.limit_train_batches={batches}"]
    return {
        "usual": lambda: short(root, folder)["images/s"],
        "loop": lambda: bare_loop(images, labels, batches),
        "ours": lambda: own_training(folder / "ours", "images/s", *ours),
        "floor": matmul_speed,
    }


def whole_training(folder: Path, experiment: str) -> Ways:
    """Seconds of an experiment's whole training, and of one epoch of the tutorial's."""
    # validation is not in the seconds, so the tutorial's need not be long
    epoch = ["experiment=article", "trainer.max_epochs=1", "trainer.limit_val_batches=1"]
    seconds = functools.partial(own_training, folder / "run", "seconds")
    return {
        experiment: functools.partial(seconds, f"experiment={experiment}"),
        "article, one epoch": functools.partial(seconds, *epoch),
    }


def interleave(ways: Ways, rounds: int) -> pd.DataFrame:
    """The numbers of the ways, a row a round; a first round more warms up."""
    rows = []
    console = terminal.console(stderr=True, soft_wrap=False)
    for _ in track(range(rounds + 1), "measuring", console=console):
        row = {}
        for name, way in ways.items():
            torch.use_deterministic_algorithms(False)
            with quiet():
                row[name] = way()
        rows.append(row)
    return pd.DataFrame(rows[1:])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Sends what the ways print to os.devnull; their progress bars are drawn nevertheless."""
    os.environ["FORCE_COLOR"] = "1"  # as on a terminal, and at the same cost
    try:
        with (
            Path(os.devnull).open("w", encoding="utf-8") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        del os.environ["FORCE_COLOR"]


def print_table(rounds: pd.DataFrame, unit: str, reference: str) -> None:
    """Prints the median of each way, and of its ratios to the reference; warns of noise."""
    ratios = rounds.div(rounds[reference], axis=0)
    spread = zip(ratios.median(), ratios.min(), ratios.max(), strict=True)
    shown = [f"{median:.2f} ({low:.2f} to {high:.2f})" for median, low, high in spread]
    digits = 0 if unit == "images/s" else 3
    medians = [f"{median:,.{digits}f}" for median in rounds.median()]
    columns = {"way": rounds.columns, unit: medians, f"over {reference}": shown}
    console = terminal.console()
    console.print(markdown(pd.DataFrame(columns)))
    threads = torch.get_num_threads()
    console.print(f"medians over {len(rounds)} rounds, {threads} threads, {results.processor()}")
    if (ratios.max() > 4 / 3 * ratios.min()).any():
        print(
            "warning: the ratios of the rounds differ by more than a third; other programs keep "
            "this machine busy: measure again without them",
            file=sys.stderr,
        )


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = docstring_parser("benchmarks.speed", __doc__)
    parser.add_argument("--fast", nargs="?", const="fast", metavar="EXPERIMENT")
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each way (9)")
    parser.add_argument("--batches", type=int, default=400, help="steps of a measurement (400)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the JSON file to write")
    parser.add_argument("--write", action="store_true", help="put the ratio into the record")
    args = parser.parse_args(argv)
    if args.rounds < 1:
        parser.error(must_be("--rounds", "1 or more", args.rounds))
    if not LEAST <= args.batches <= EPOCH:
        parser.error(must_be("--batches", f"{LEAST} to {EPOCH}, an epoch,", args.batches))
    if args.fast and args.fast not in files("experiment"):
        raise ValueError(must_be("--fast", either(files("experiment")), args.fast))
    record = load_records().get(args.fast)
    if args.write and record is None:
        parser.error("--write needs --fast with an experiment that has a record")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder, unit = Path(name), "seconds" if args.fast else "images/s"
        way, reference = (args.fast, "article, one epoch") if args.fast else ("ours", "loop")
        ways = whole_training(folder, args.fast) if args.fast else four_ways(folder, args.batches)
        rounds = interleave(ways, args.rounds)
    print_table(rounds, unit, reference)
    ratios = rounds[way] / rounds[reference]
    measured = {
        "ratio": float(ratios.median()),
        "ratios": ratios.tolist(),
        unit: rounds.to_dict("list"),
        "threads": torch.get_num_threads(),
        "processor": results.processor(),
        "versions": results.versions(),
        "git_commit": results.commit(),
    }
    if args.out:
        write_json(measured, args.out)
    if args.write and record:
        write_json({**record, "ratio": measured}, RECORDS / f"{args.fast}.json")


if __name__ == "__main__":
    main()
