"""Show and reproduce the results: python -m benchmarks.records [NAME] [--from SWEEP] [--write]

Without a NAME the table of results; with one, that result is measured again and shown beside its
record. A result is that of a file of conf/experiment, trained with each seed, or one of

  usual     the usual Lightning + torchvision recipe of benchmarks.usual, for 10 epochs
  shifts    the networks of experiment=accurate, each image averaged over shifts by a pixel
  ensemble  the same networks together, whose probabilities are averaged

A record, benchmarks/NAME.json, is written by --write from what the runs left, never by hand. The
table and the picture of benchmarks/README.md are made of the records by --readme.
"""

import shlex
import subprocess
import sys
import textwrap
import time
from collections.abc import Hashable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from benchmarks import tables
from benchmarks.tables import NETWORKS, RECORDS, Record
from mnist_cnn.analysis import ranking
from mnist_cnn.command import command, docstring_parser
from mnist_cnn.config.compose import compose, files, plain
from mnist_cnn.report import OUTPUTS
from mnist_cnn.runs.folder import HYDRA, RESULTS, differences, flat, read_json, write_json

# what the runs of a record share besides their configuration
SAME = ("parameters", "device", "processor", "threads", "versions", "git_commit")
METRICS = ("test/acc", "test/acc_sound", "test/acc_corrected", "val/acc", "seconds")

READER = "reader"  # the experiment whose result is not a test accuracy
# results with test-time shifts by a pixel: an experiment's networks one by one, and their ensemble
SHIFTED, SHIFTS, MEMBERS = ("shifts", "ensemble"), 1, "accurate"
# experiments whose records have certified accuracies, too, and the change that AutoAttack may make
CERTIFIED = {"certified_tenth": 0.1, "certified": 0.3}


def experiments() -> list[str]:
    """Return the experiments whose result is a test accuracy."""
    return [name for name in files("experiment") if name != READER]


def result_names() -> list[str]:
    """Return the names of all results, measured or not, in the order of the table."""
    return list(dict.fromkeys((*NETWORKS, *experiments())))


def load_records() -> dict[str, Record]:
    """Load all records by name, in the order of the table."""
    paths = [RECORDS / f"{name}.json" for name in result_names()]
    return {path.stem: read_json(path) for path in paths if path.is_file()}


def read_runs(folder: Path) -> list[Record]:
    """Read the runs in the folder of a sweep or of a run, sorted by seed.

    Raises:
        ValueError: there are none, or one has no results.
    """
    found = sorted(folder.rglob(RESULTS))
    if begun := {log.parent for log in folder.rglob("train.log")} - {file.parent for file in found}:
        raise ValueError(f"{min(begun)}: finish it: python -m mnist_cnn.train ckpt_path={folder}")
    if not found:
        raise ValueError(f"{folder}: no runs in there")
    runs = [{**read_json(file), "folder": file.parent} for file in found]
    return sorted(runs, key=lambda run: run["seed"])


def setting(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a run's configuration that its result depends on, by full keys."""
    values = {key: value for key, value in flat(config).items() if value != {}}
    kept = {ranking.FOLD: values.get(ranking.FOLD), **ranking.setting(values)}
    return {key: kept[key] for key in values if key in kept}


def setting_of(experiment: str, *overrides: str) -> dict[str, Any]:
    """Return the setting of an experiment's current file, with overrides."""
    return setting(plain(compose([f"experiment={experiment}", *overrides], run_dir=".")))


def invocation(name: str, seeds: Sequence[int], launcher: Sequence[str]) -> str:
    """Return the command that measures a result."""
    if name not in experiments():
        return f"python -m benchmarks.records {name}"
    several, listed = "-m " if len(seeds) > 1 else "", ",".join(map(str, seeds))
    chosen = [f"experiment={name}", f"seed={listed}", *launcher]
    return f"python -m mnist_cnn.train {several}{' '.join(chosen)}"


def overrides_of(run: Path, of: str) -> list[str]:
    """Return the overrides of a run: those `of` the "task", or of "hydra"."""
    file = run / HYDRA
    if not file.exists():
        return []
    written: Any = OmegaConf.to_container(OmegaConf.load(file))  # unresolved
    return list(written["hydra"]["overrides"][of])


def launcher_of(run: Record) -> list[str]:
    """Return the overrides that chose the launcher of a run's sweep."""
    given = overrides_of(run["folder"], "hydra")
    return [o for o in given if o.startswith(("hydra/launcher", "hydra.launcher"))]


def make_record(name: str, runs: Sequence[Record], expected: Mapping[str, Any]) -> Record:
    """Make the record of finished runs that agree with `expected` in everything but the seed.

    Raises:
        ValueError: a run differs in more than the seed, or was not tested.
    """
    common = {key: runs[0][key] for key in SAME}
    for run in runs:
        found = setting(run["config"]) | {key: run[key] for key in SAME}
        if changed := differences({**expected, **common}, found):
            values = textwrap.shorten(str(changed), 300)
            raise ValueError(f"{run['folder']} must differ in the seed alone: {values}")
        if "test/acc" not in run:
            raise ValueError(f"{run['folder']}: its results have no test/acc")
    seeds, launcher = [run["seed"] for run in runs], launcher_of(runs[0])
    finished = max(run["finished"] for run in runs)
    started = min(run["started"] for run in runs)
    elapsed = datetime.fromisoformat(finished) - datetime.fromisoformat(started)
    record = {
        "name": name,
        "command": invocation(name, seeds, launcher),
        "launcher": launcher,
        "seeds": seeds,
        **{key: [run[key] for run in runs] for key in METRICS if key in runs[0]},
        "elapsed_seconds": elapsed.total_seconds(),
        **common,
        "config": setting(runs[0]["config"]),
        "finished": finished,
    }
    return {**record, "epochs": by_epoch(runs)} if "val/acc" in runs[0] else record


def by_epoch(runs: Sequence[Record]) -> list[dict[Hashable, float]]:
    """Return means over runs for each epoch that all of them have."""
    histories = [pd.read_csv(run["folder"] / "history.csv") for run in runs]
    clocks = [history.assign(seconds=history["seconds"].cumsum()) for history in histories]
    epochs = pd.concat(clocks).groupby("epoch")[["seconds", "val/acc"]]
    return epochs.mean()[epochs.size() == len(runs)].reset_index().to_dict("records")


def run_module(*arguments: str) -> None:
    """Run `python -m ARGUMENTS`, and exit with its code if it fails."""
    if code := subprocess.run([sys.executable, "-m", *arguments]).returncode:
        sys.exit(code)


def train_again(record: Record, folder: Path) -> None:
    """Train the runs of a record again, in a folder."""
    if record["name"] != "usual":
        places = [f"hydra.{kind}.dir='{folder}'" for kind in ("run", "sweep")]
        run_module(*shlex.split(record["command"])[2:], *places)
        return
    from benchmarks.usual import train_usual  # slow: imports torchvision

    for seed in record["seeds"]:
        outcome = train_usual(folder, epochs=10, seed=seed)
        (folder / str(seed)).mkdir()
        write_json(outcome, folder / str(seed) / RESULTS)


def shifted_record(name: str, one: Record, runs: Sequence[Record], folder: Path) -> Record:
    """Evaluate the runs of the record `one` with shifts, one by one or as an ensemble."""
    began, outcomes = time.monotonic(), []
    groups = [runs] if name == "ensemble" else [[run] for run in runs]
    for k, group in enumerate(groups):
        place = folder / "evaluation" / name / str(k)
        paths = ",".join(f"'{run['folder']}'" for run in group)
        given = [f"ckpt_path=[{paths}]", f"shifts={SHIFTS}", f"hydra.run.dir='{place}'"]
        run_module("mnist_cnn.evaluate", *given)
        outcomes.append(read_json(place / "evaluation.json"))
    return {
        **{key: value for key, value in one.items() if key not in (*METRICS, "epochs")},
        "name": name,
        "command": invocation(name, one["seeds"], []),
        "experiment": MEMBERS,
        "networks": len(groups[0]),
        "shifts": SHIFTS,
        "test/acc": [outcome["acc"] for outcome in outcomes],
        **{
            f"test/acc_{name}": [outcome["labels"][name]["acc"] for outcome in outcomes]
            for name in outcomes[0]["labels"]
        },
        "errors": [outcome["errors"] for outcome in outcomes],
        "images": outcomes[0]["images"],
        "seconds": [sum(run["seconds"] for run in group) for group in groups],
        "elapsed_seconds": one["elapsed_seconds"] + time.monotonic() - began,
        "parameters": len(groups[0]) * one["parameters"],
    }


def certified_accuracies(runs: Sequence[Record], folder: Path, epsilon: float) -> Record:
    """Evaluate the runs' certified accuracies, by epsilon, and the accuracy under AutoAttack."""
    from benchmarks.autoattack import accuracy  # slow: imports torch

    place = folder / "evaluation" / "certified"
    paths = ",".join(f"'{run['folder']}'" for run in runs)
    given = [f"ckpt_path=[{paths}]", "robustness=[certified]", f"hydra.run.dir='{place}'"]
    run_module("mnist_cnn.evaluate", *given)
    networks = read_json(place / "evaluation.json")["robustness"]["networks"]
    return {
        f"{tables.BOUND}{epsilon}": [network["certified"][epsilon] for network in networks]
        for epsilon in networks[0]["certified"]
    } | {f"{tables.ATTACKED}{epsilon}": [accuracy(run["folder"], epsilon) for run in runs]}


def record_of(name: str, folder: Path) -> Record:
    """Return the record of a result from its trained runs in a folder."""
    runs = read_runs(folder)
    if name == "usual":
        return make_record(name, runs, setting(runs[0]["config"]))
    experiment = MEMBERS if name in SHIFTED else name
    record = make_record(experiment, runs, setting_of(experiment))
    if name in CERTIFIED:
        record |= certified_accuracies(runs, folder, CERTIFIED[name])
    return shifted_record(name, record, runs, folder) if name in SHIFTED else record


def measure(name: str, folder: Path | None) -> Record:
    """Measure a result from the runs in a folder or by training again; print it with its record."""
    if name in CERTIFIED:
        from benchmarks.autoattack import check_package  # slow: imports torch

        check_package()  # before the training, which takes an hour
    records = load_records()
    if folder is None:
        source = MEMBERS if name in SHIFTED else name
        if source not in records:
            raise ValueError(f"{source} has no record: train it, and name its folder by --from")
        folder = OUTPUTS / "sweeps" / f"{datetime.now():%Y-%m-%d/%H-%M-%S}-{name}"
        train_again(records[source], folder)
    sides = {"here": record_of(name, folder)}
    if name in records:
        sides["the record"] = records[name]
    rows = [[*tables.row(*side), tables.hardware(side[1])] for side in sides.items()]
    print(tables.markdown(pd.DataFrame(rows, columns=[*tables.COLUMNS, "on"])))
    return sides["here"]


def reader_record(run: Path) -> Record:
    """Return the record of one run of experiment=reader, or of a mean of such runs."""
    results = read_json(run / RESULTS)
    if "config" not in results:  # of benchmarks.mean
        return {"name": READER, **results}
    epochs = pd.read_csv(run / "history.csv")
    start = results["config"]["init_weights"]
    given = [o for o in overrides_of(run, "task") if not o.startswith("logger")]
    given = ["init_weights=RUN" if o.startswith("init_weights=") else o for o in given]
    command = f"python -m mnist_cnn.train {shlex.join(given)}"
    kept: Record = {"name": READER, "command": command}
    kept |= {key: results[key] for key in ("seed", "seconds", *SAME)}
    kept |= {key: results[key] for key in results if key.startswith("val/")}
    config = {**setting(results["config"]), "init_weights": start and "RUN"}
    kept |= {"config": config, "finished": results["finished"]}
    metrics = [key for key in map(str, epochs) if key.startswith(("train/", "val/"))]
    kept["epochs"] = epochs[["epoch", "seconds", *metrics]].to_dict("records")
    return kept


def reader_records(runs: Sequence[Path]) -> Record:
    """Return the record of a reader: its first run and, in `then`, those from its weights.

    Runs from weights that are in the record, and means of its runs, are added to it.
    """
    first, *rest = (reader_record(run) for run in runs)
    if "config" in first and first["config"]["init_weights"] is None:
        return {**first, "then": rest}
    before = read_json(RECORDS / f"{READER}.json")
    added = [run for run in (first, *rest) if run not in before["then"]]
    return {**before, "then": [*before["then"], *added]}


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = docstring_parser("benchmarks.records", __doc__)
    names = [*result_names(), READER]
    about = f"the result to measure again: {', '.join(names)}; {READER} needs --from RUN"
    parser.add_argument("name", nargs="?", metavar="NAME", choices=names, help=about)
    about = "take the runs of this folder instead of training; a reader's runs in their order"
    parser.add_argument("--from", dest="folders", type=Path, nargs="+", metavar="SWEEP", help=about)
    parser.add_argument("--write", action="store_true", help="write the result as its record")
    parser.add_argument("--readme", action="store_true", help="write their table and picture")
    args = parser.parse_args(argv)
    folders = args.folders or []
    if args.name == READER and not folders:
        parser.error(f"{READER} needs --from RUN")
    if args.name != READER and len(folders) > 1:
        parser.error(f"--from takes one folder but for {READER}, got {' '.join(map(str, folders))}")
    if args.name:
        is_reader = args.name == READER
        record = (
            reader_records(folders)
            if is_reader
            else measure(args.name, folders[0] if folders else None)
        )
        if args.write:
            write_json(record, RECORDS / f"{args.name}.json")
    elif folders or args.write:
        parser.error("--from and --write need a NAME")
    elif not args.readme:
        print(tables.markdown(tables.records_table(load_records())))
    if args.readme:
        tables.write_readme(load_records())


if __name__ == "__main__":
    main()
