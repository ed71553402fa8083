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

import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from mnist_cnn.internals.hydra import quote
from mnist_cnn.runs.state import SWEEP

from benchmarks.recording import (
    MEMBER_SEEDS,
    MEMBERS,
    METRICS,
    PICTURE,
    RECORDS,
    SEEDS,
    SHIFTED,
    SHIFTS,
    USUAL_EPOCHS,
    Record,
    check_experiment,
    finished_runs,
    invocation,
    launcher_of,
    load_records,
    make_record,
    record_difference,
    result_names,
    summary_of,
)
from benchmarks.tables import accuracy, hardware, print_records, span, write_readme
from mnist_cnn import terminal
from mnist_cnn.analysis.found import Run, read_json
from mnist_cnn.analysis.tables import comparison_table
from mnist_cnn.command import command
from mnist_cnn.config.compose import flat
from mnist_cnn.config.messages import either, must_be
from mnist_cnn.report import OUTPUTS, docstring_parser
from mnist_cnn.runs import results
from mnist_cnn.runs.signals import SIGNALS


def run_command(entry: str, *arguments: str) -> None:
    """Runs `python -m mnist_cnn.<entry>` and waits, signals included, until it has ended.

    Raises:
        subprocess.CalledProcessError: its exit code is not 0; it has said why.
    """
    started = [sys.executable, "-m", f"mnist_cnn.{entry}", *arguments]
    process: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, frame: Any) -> None:
        if process and number != signal.SIGINT:  # Ctrl-C comes to both from the terminal
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        process = subprocess.Popen(started)
        if code := process.wait():
            raise subprocess.CalledProcessError(code, started)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def usual_runs(seeds: Sequence[int], folder: Path) -> list[Run]:
    """The usual recipe with each seed, whose results are kept as <seed>.json in a folder.

    What is there is not trained again.
    """
    from benchmarks import usual

    found = []
    for seed in seeds:
        file = folder / f"{seed}.json"
        if not file.exists():
            print(f"usual, seed {seed}")
            with tempfile.TemporaryDirectory() as events, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of its loader: it is the usual one
                outcome = usual.train_usual(
                    usual.data_folder(), Path(events), epochs=USUAL_EPOCHS, seed=seed
                )
            folder.mkdir(parents=True, exist_ok=True)
            results.write(outcome, file)
        outcome = read_json(file)
        config = flat(outcome.pop("config"))
        if config.get("epochs") != USUAL_EPOCHS:
            raise ValueError(
                f"{file} must hold results of {USUAL_EPOCHS} epochs, got {config.get('epochs')}"
            )
        found.append(Run(file, file.stem, "finished", config=config, results=outcome))
    return found


def shifted_record(name: str, one: Record, groups: Sequence[Sequence[Run]], folder: Path) -> Record:
    """The record of a sweep's networks, each group an ensemble, each image averaged over shifts.

    Args:
        one: the record of the runs.
        groups: of one run each, to evaluate the networks one by one.
        folder: the sweep's.
    """
    began, outcomes = time.monotonic(), []
    for k, runs in enumerate(groups):
        place = folder / "evaluation" / name / (str(k) if len(groups) > 1 else "")
        listed = ",".join(quote(run.folder) for run in runs)
        options = f"shifts={SHIFTS}", f"hydra.run.dir={quote(place)}"
        run_command("evaluate", f"ckpt_path=[{listed}]", *options)
        outcomes.append(read_json(place / "evaluation.json"))
    waited, networks = time.monotonic() - began, len(groups[0])
    return {
        **{key: value for key, value in one.items() if key not in (*METRICS, "epochs")},
        "name": name,
        "command": invocation(name, one["seeds"]),
        "experiment": MEMBERS,
        "networks": networks,
        "shifts": SHIFTS,
        "test/acc": [outcome["acc"] for outcome in outcomes],
        "errors": [outcome["errors"] for outcome in outcomes],
        "images": outcomes[0]["images"],
        "seconds": [sum(run.results["seconds"] for run in runs) for runs in groups],
        "elapsed_seconds": one["elapsed_seconds"] + waited,
        "parameters": networks * one["parameters"],
    }


def rerun(
    name: str, seeds: Sequence[int], folder: Path, given: bool, launcher: Sequence[str]
) -> Record:
    """Measures a result, or takes the runs of a folder.

    Args:
        given: the folder was given: its runs are taken. Of the usual recipe, missing ones are
            trained.
        launcher: overrides of the launcher that runs it.
    """
    if name == "usual":
        return make_record(name, usual_runs(seeds, folder))
    experiment = MEMBERS if name in SHIFTED else name
    if not given:
        chosen = [f"experiment={experiment}", f"seed={','.join(map(str, seeds))}", *launcher]
        run_command("train", "-m", *chosen, f"hydra.sweep.dir={quote(folder)}")
    found = finished_runs(folder, seeds)
    check_experiment(found[0], experiment)
    record = make_record(experiment, found, launcher_of(folder))
    if name not in SHIFTED:
        return record
    groups = [found] if name == "ensemble" else [[run] for run in found]
    return shifted_record(name, record, groups, folder)


def compare_with_record(new: Record, old: Record, console: terminal.Console) -> None:
    """Prints the difference of a new record from the old one."""
    found = {key: record_difference(new, old, key) for key in METRICS if key in new and key in old}
    console.print(comparison_table(found, ("here", "record"), {"seconds"}), soft_wrap=False)
    for side, record in (("here", new), ("record", old)):
        seeds = ", ".join(map(str, record["seeds"]))
        text = f"{side}: seeds {seeds}; {hardware(record)}; commit {record['git_commit']}"
        console.print(text)


def measure_again(name: str, given: str | None, folder: Path | None, write: bool) -> None:
    """Measures a result again and compares it with its record; with `write` it becomes the record.

    Args:
        given: seeds, separated by commas.
        folder: take the runs in there.
    """
    console, old = terminal.console(), load_records().get(name)
    try:
        seeds = [int(seed) for seed in given.split(",")] if given else []
    except ValueError:
        raise ValueError(f"--seeds must be whole numbers, as in 0,1,2, got {given}") from None
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"--seeds must name each seed once, got {given}")
    if not seeds and (folder is None or name == "usual"):
        seeds = list(old["seeds"] if old else MEMBER_SEEDS if name in SHIFTED else SEEDS)
    place = folder
    if place is None:
        when = datetime.now().strftime("%Y-%m-%d/%H-%M-%S")
        place = Path(OUTPUTS, "usual" if name == "usual" else "sweeps", f"{when}-{name}")
        about = "no record yet that tells how long it takes"
        if old:
            one = statistics.mean(old["seconds"]) / old.get("networks", 1)
            need = max(one, old["elapsed_seconds"] / len(old["seeds"]) * len(seeds))
            about = f"about {span(need)} by the record, on {hardware(old)}"
        console.print(f"{name}, seeds {', '.join(map(str, seeds))}: {about}")
    try:
        launcher = old["launcher"] if old else ()
        new = rerun(name, seeds, place, folder is not None, launcher)
    # SystemExit comes from Lightning, for Ctrl-C
    except (subprocess.CalledProcessError, KeyboardInterrupt, SystemExit) as e:
        if (place / SWEEP).exists():
            print(f"finish it: python -m mnist_cnn.train ckpt_path={place}", file=sys.stderr)
        if place.exists():
            options = f"{f' --seeds {given}' if given else ''}{' --write' if write else ''}"
            then = f"python -m benchmarks.records {name} --from {place}{options}"
            print(f"then: {then}", file=sys.stderr)
        sys.exit(getattr(e, "returncode", 128 + signal.SIGINT))
    if old:
        compare_with_record(new, old, console)
    else:
        console.print(f"{name}: {accuracy(summary_of(new, 'test/acc'))}, n={len(new['test/acc'])}")
    if write:
        RECORDS.mkdir(exist_ok=True)
        results.write(new, RECORDS / f"{name}.json")
        if old and "ratio" in old:
            console.print("its ratio was of the runs before: measure it again, then --ratio FILE")
        console.print(f"{RECORDS / name}.json; now --readme and --plot {PICTURE}")


def add_ratio(name: str, file: Path) -> None:
    """Puts the ratio that benchmarks.speed --fast measured into a record.

    Raises:
        ValueError: there is no record, or the ratio is not one of its experiment.
    """
    record, ratio = load_records().get(name), read_json(file)
    if record is None:
        raise ValueError(f"{name}: no record yet: write it with --write")
    if not isinstance(seconds := ratio.get("seconds"), dict) or name not in seconds:
        raise ValueError(f"--ratio must be what benchmark --fast {name} --out wrote, got {file}")
    results.write({**record, "ratio": ratio}, RECORDS / f"{name}.json")


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = docstring_parser("benchmarks.records", __doc__)
    parser.add_argument("name", nargs="?", metavar="NAME", help="the result to measure again")
    parser.add_argument("--seeds", metavar="0,1,2", help="(those of the record)")
    parser.add_argument(
        "--from",
        dest="folder",
        type=Path,
        metavar="FOLDER",
        help="take this sweep's runs instead of training",
    )
    parser.add_argument("--write", action="store_true", help="write the result as its record")
    parser.add_argument(
        "--ratio",
        type=Path,
        metavar="FILE",
        help="put what benchmarks.speed --fast --out FILE wrote into the record of NAME",
    )
    parser.add_argument("--readme", action="store_true", help="write README.md's table")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw README.md's picture")
    args = parser.parse_args(argv)
    if args.name is None and (args.seeds or args.folder or args.write or args.ratio):
        parser.error("--seeds, --from, --write and --ratio need a NAME")
    if args.name is not None and args.name not in result_names():
        raise ValueError(must_be("NAME", either(result_names()), args.name))
    if args.name and (args.write or args.folder or args.seeds or not args.ratio):
        measure_again(args.name, args.seeds, args.folder, args.write)
    if args.ratio:
        add_ratio(args.name, args.ratio)
    if args.plot:
        from benchmarks.picture import draw_records

        draw_records(load_records(), args.plot)
    if args.readme:
        write_readme(load_records())
    if not (args.name or args.plot or args.readme):
        print_records(load_records(), terminal.console())


if __name__ == "__main__":
    main()
