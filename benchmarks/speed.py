"""Measure training speed: python -m benchmarks.speed [--rounds N] [--batches N]

Three ways through the tutorial's network at batch 64, interleaved in one process, so that a slow
minute slows them all. Ratios are taken round by round: the median, the least and the greatest.

  usual   Lightning as tutorials use it, see benchmarks.usual
  ours    this project, through its Trainer, with its default callbacks and logger
  loop    the fastest bare PyTorch loop we know for this network: no Trainer, no metrics

--fast [EXPERIMENT]: seconds of an experiment's training (by default fast) over those of an epoch of
the tutorial's (48,000 images), without validation and test. --write puts the ratio into its record.
--jobs: seconds of whole runs, as those of a sweep are, and of their steps: those of experiment=fast
and of ten epochs of the tutorial's, with validation, test and files.
"""

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import torch
import torch.nn.functional as F

from benchmarks.records import load_records
from benchmarks.tables import RECORDS, markdown
from benchmarks.usual import BATCH, EPOCH, train_usual
from mnist_cnn import model
from mnist_cnn.analysis import results
from mnist_cnn.command import command, docstring_parser
from mnist_cnn.config.compose import compose
from mnist_cnn.data import mnist
from mnist_cnn.runs.folder import write_json
from mnist_cnn.train import train

LEAST = 4  # batches: the usual recipe, which is slow, runs a quarter of them


def bare_loop(batches: int) -> float:
    """Measure images/s of a bare loop over tensors in memory."""
    images, labels = mnist.load_split("mnist", "", "train")
    images, labels = images.unsqueeze(1)[12_000:], labels[12_000:]
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


def own_training(folder: Path, *overrides: str) -> dict[str, Any]:
    """Train with this project; return results.json and, as `job`, the seconds of the whole run."""
    shutil.rmtree(folder, ignore_errors=True)
    started = time.perf_counter()
    outcome = train(compose(overrides, run_dir=folder))
    torch.use_deterministic_algorithms(False)
    return {**outcome, "job": time.perf_counter() - started}


def measure(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Measure one round: a number for each way, the last of which is the reference."""
    run = folder / "run"
    if args.jobs:
        fast, ten = own_training(run, "experiment=fast"), own_training(run, "trainer.max_epochs=10")
        jobs = {"fast": fast, "ten epochs": ten}
        return {f"{name}, {key}": jobs[name][key] for name in jobs for key in ("job", "seconds")}
    # validation is not measured, so it need not be long
    epoch = ["trainer.max_epochs=1", "trainer.limit_val_batches=1", "test=false"]
    if args.fast:
        whole = own_training(run, f"experiment={args.fast}", "test=false")["seconds"]
        article = own_training(run, "experiment=article", *epoch)
        return {args.fast: whole, "article, one epoch": article["seconds"]}
    epoch += ["trainer.accelerator=cpu", f"trainer.limit_train_batches={args.batches}"]
    usual = train_usual(folder, epochs=1, batches=args.batches // LEAST, test=False)
    ours, loop = own_training(run, *epoch)["images/s"], bare_loop(args.batches)
    return {"usual": usual["images/s"], "ours": ours, "loop": loop}


def interleave(args: argparse.Namespace) -> pd.DataFrame:
    """Measure all rounds, one row per round, after a warm-up round that is left out.

    Output goes to os.devnull; progress bars are drawn nevertheless.
    """
    rows, terminal = [], sys.stderr
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ, FORCE_COLOR="1"),  # draw as on a terminal, at the same cost
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        for number in range(args.rounds + 1):
            print(f"round {number} of {args.rounds}", file=terminal)
            rows.append(measure(Path(folder), args))
    return pd.DataFrame(rows[1:])


def table(rounds: pd.DataFrame) -> str:
    """Return the table of medians of each way and of its ratios to the last one."""
    ratios = rounds.div(rounds.iloc[:, -1], axis=0)
    spread = zip(ratios.median(), ratios.min(), ratios.max(), strict=True)
    shown = [f"{median:.2f} ({low:.2f} to {high:.2f})" for median, low, high in spread]
    medians = rounds.median().map("{:,.5g}".format)
    columns = {"way": rounds.columns, "median": medians, f"over {rounds.columns[-1]}": shown}
    return markdown(pd.DataFrame(columns))


@command
def main(argv: Sequence[str] | None = None) -> None:
    records = load_records()
    parser = docstring_parser("benchmarks.speed", __doc__)
    parser.add_argument("--fast", nargs="?", const="fast", choices=records, metavar="EXPERIMENT")
    parser.add_argument("--jobs", action="store_true", help="time whole runs")
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each way (9)")
    parser.add_argument("--batches", type=int, default=400, help="steps of a measurement (400)")
    parser.add_argument("--write", action="store_true", help="put the ratio into the record")
    args = parser.parse_args(argv)
    if args.rounds < 1 or not LEAST <= args.batches <= EPOCH:
        given = f"--rounds={args.rounds} --batches={args.batches}"
        parser.error(f"{given}: must be 1 or more, and {LEAST} to {EPOCH}, an epoch")
    if args.jobs and args.fast:
        parser.error("--jobs and --fast measure different things: give one of them")
    if args.write and not args.fast:
        parser.error("--write needs --fast")
    rounds, threads = interleave(args), torch.get_num_threads()
    unit = "seconds" if args.fast or args.jobs else "images/s"
    print(table(rounds))
    print(f"{unit}, {len(rounds)} rounds, {threads} threads, {results.processor()}")
    if args.write:
        ratios = rounds[args.fast] / rounds.iloc[:, -1]
        ratio = {
            "ratio": float(ratios.median()),
            "ratios": ratios.tolist(),
            "seconds": rounds.to_dict("list"),
            "threads": threads,
            "processor": results.processor(),
            "versions": results.versions(),
            "git_commit": results.commit(),
        }
        write_json({**load_records()[args.fast], "ratio": ratio}, RECORDS / f"{args.fast}.json")


if __name__ == "__main__":
    main()
