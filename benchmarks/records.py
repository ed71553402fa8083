"""The results and their records: python -m benchmarks.records [NAME] [--seeds 0,1,2] [--write]

Without a NAME the table of results; with one, that result is measured again and compared with its
record. A result is that of a file of conf/experiment, trained with each seed, or one of

  usual     the usual Lightning + torchvision recipe of benchmarks.usual, for 10 epochs
  shifts    the networks of experiment=accurate, each image averaged over shifts by a pixel
  ensemble  the same networks together, whose probabilities are averaged

A record, benchmarks/NAME.json, is written by --write from what the runs left, never by hand. The
table and the picture of README.md are made of the records: --readme, --plot
benchmarks/accuracy.png.
"""

import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.recording import (
    METRICS,
    RECORDS,
    Record,
    Results,
    check_experiment,
    invocation,
    load_records,
    make_record,
    read_runs,
    result_names,
)
from benchmarks.tables import accuracy, hardware, markdown, records_table, span, write_readme
from mnist_cnn import terminal
from mnist_cnn.analysis.found import read_json
from mnist_cnn.command import command
from mnist_cnn.config.messages import either, must_be
from mnist_cnn.report import OUTPUTS, docstring_parser
from mnist_cnn.runs.folder import RESULTS, write_json

SEEDS = [0, 1, 2]  # of a result that has no record yet
# evaluated with shifts by a pixel: the networks of an experiment one by one, and together
SHIFTED, SHIFTS, MEMBERS = ("shifts", "ensemble"), 1, "accurate"
USUAL_EPOCHS = 10


def run_command(entry: str, *arguments: str) -> None:
    """Runs `python -m mnist_cnn.<entry>`; where that fails, it has said why, and this ends too."""
    code = subprocess.run([sys.executable, "-m", f"mnist_cnn.{entry}", *arguments]).returncode
    if code:
        sys.exit(code)


def train_usual_runs(seeds: Sequence[int], folder: Path) -> None:
    """Trains the usual recipe with each seed that has no results in a folder yet."""
    from benchmarks import usual  # torchvision takes seconds

    for seed in seeds:
        place = folder / str(seed)
        if (place / RESULTS).exists():
            continue
        print(f"usual, seed {seed}")
        place.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its loader: it is the usual one
            root = usual.data_folder()
            outcome = usual.train_usual(root, place, epochs=USUAL_EPOCHS, seed=seed)
        write_json(outcome, place / RESULTS)


def shifted_record(name: str, one: Record, runs: Sequence[Results], folder: Path) -> Record:
    """The record of a sweep's networks, one by one or as an ensemble, averaged over shifts.

    Args:
        one: the record of the runs.
        folder: the sweep's; the evaluations lie in there.
    """
    began, outcomes = time.monotonic(), []
    groups = [runs] if name == "ensemble" else [[run] for run in runs]
    for k, group in enumerate(groups):
        place = folder / "evaluation" / name / str(k)
        listed = ",".join(f"'{run['folder']}'" for run in group)
        run_command(
            "evaluate", f"ckpt_path=[{listed}]", f"shifts={SHIFTS}", f"hydra.run.dir='{place}'"
        )
        outcomes.append(read_json(place / "evaluation.json"))
    return {
        **{key: value for key, value in one.items() if key not in (*METRICS, "epochs")},
        "name": name,
        "command": invocation(name, one["seeds"]),
        "experiment": MEMBERS,
        "networks": len(groups[0]),
        "shifts": SHIFTS,
        "test/acc": [outcome["acc"] for outcome in outcomes],
        "errors": [outcome["errors"] for outcome in outcomes],
        "images": outcomes[0]["images"],
        "seconds": [sum(run["seconds"] for run in group) for group in groups],
        "elapsed_seconds": one["elapsed_seconds"] + time.monotonic() - began,
        "parameters": len(groups[0]) * one["parameters"],
    }


def measure(
    name: str, seeds: Sequence[int], folder: Path, launcher: Sequence[str] | None
) -> Record:
    """Trains and evaluates what a result needs, in a folder, and makes its record.

    Args:
        launcher: overrides of the launcher that runs the sweep; None: its runs are there.
    """
    if name == "usual":
        train_usual_runs(seeds, folder)
        return make_record(name, read_runs(folder, seeds))
    experiment = MEMBERS if name in SHIFTED else name
    if launcher is not None:
        listed = ",".join(map(str, seeds))
        chosen = [f"experiment={experiment}", f"seed={listed}", *launcher]
        run_command("train", "-m", *chosen, f"hydra.sweep.dir='{folder}'")
    runs = read_runs(folder, seeds)
    check_experiment(runs[0], experiment)
    record = make_record(experiment, runs)
    return shifted_record(name, record, runs, folder) if name in SHIFTED else record


def comparison(new: Record, old: Record) -> pd.DataFrame:
    """The means of a new record and an old one, and their difference with its 95 % interval.

    The interval is Student's of the differences where the seeds are the same, else Welch's. There
    is none where a side has one run, or nothing varies.
    """
    from scipy import stats  # takes a second

    rows = []
    for metric in METRICS:
        if metric not in new or metric not in old:
            continue
        unit = 1 if metric == "seconds" else 100
        a, b = (unit * np.array(record[metric]) for record in (new, old))
        sides = [f"{side.mean():.2f} (n={len(side)})" for side in (a, b)]
        interval = "-"
        paired = new["seeds"] == old["seeds"] and len(a) == len(b)
        varies = np.ptp(a - b) > 0 if paired else np.ptp(a) + np.ptp(b) > 0
        if min(len(a), len(b)) > 1 and varies:
            test = stats.ttest_rel(a, b) if paired else stats.ttest_ind(a, b, equal_var=False)
            found = test.confidence_interval(0.95)
            interval = f"{found.low:+.2f} to {found.high:+.2f}"
        head = metric if unit == 1 else f"{metric}, %"
        rows.append((head, *sides, f"{a.mean() - b.mean():+.2f}", interval))
    return pd.DataFrame(rows, columns=["", "here", "record", "difference", "95 % interval"])


def measure_again(name: str, seeds: list[int], folder: Path | None) -> Record:
    """Measures a result again and compares it with its record.

    Args:
        seeds: by default those of the record, or all of the folder.
        folder: take the runs in there.
    """
    console, records = terminal.console(), load_records()
    old, place, launcher = records.get(name), folder, None
    if not seeds and (folder is None or name == "usual"):
        known = old or records.get(MEMBERS if name in SHIFTED else name)
        seeds = known["seeds"] if known else SEEDS
    if place is None:
        when = datetime.now().strftime("%Y-%m-%d/%H-%M-%S")
        place = Path(OUTPUTS, "usual" if name == "usual" else "sweeps", f"{when}-{name}")
        launcher = old["launcher"] if old else []
        about = f", {span(old['elapsed_seconds'])} by the record on {hardware(old)}" if old else ""
        console.print(f"{name}, seeds {', '.join(map(str, seeds))}{about}, in {place}")
    new = measure(name, seeds, place, launcher)
    console.print(f"{name}: {accuracy(new['test/acc'])}, n={len(new['test/acc'])}, {hardware(new)}")
    if old:
        console.print(markdown(comparison(new, old)))
    return new


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = docstring_parser("benchmarks.records", __doc__)
    parser.add_argument("name", nargs="?", metavar="NAME", help="the result to measure again")
    parser.add_argument("--seeds", metavar="0,1,2", default="", help="(those of the record)")
    about = "take this sweep's runs instead of training"
    parser.add_argument("--from", dest="folder", type=Path, metavar="FOLDER", help=about)
    parser.add_argument("--write", action="store_true", help="write the result as its record")
    parser.add_argument("--readme", action="store_true", help="write README.md's table")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw README.md's picture")
    args = parser.parse_args(argv)
    if args.name is None and (args.seeds or args.folder or args.write):
        parser.error("--seeds, --from and --write need a NAME")
    if args.name is not None:
        if args.name not in result_names():
            raise ValueError(must_be("NAME", either(result_names()), args.name))
        seeds = [seed.strip() for seed in args.seeds.split(",") if seed.strip()]
        if not all(map(str.isdecimal, seeds)) or len(set(seeds)) < len(seeds):
            raise ValueError(must_be("--seeds", "different whole numbers, as in 0,1,2", args.seeds))
        record = measure_again(args.name, list(map(int, seeds)), args.folder)
        if args.write:
            write_json(record, RECORDS / f"{args.name}.json")
    if args.plot:
        from benchmarks.picture import draw_records  # matplotlib takes a second

        draw_records(load_records(), args.plot)
    if args.readme:
        write_readme(load_records())
    if not (args.name or args.plot or args.readme):
        terminal.console().print(markdown(records_table(load_records())))


if __name__ == "__main__":
    main()
