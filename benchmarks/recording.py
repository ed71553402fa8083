"""Records: what the runs of a result have in common, and each seed's numbers."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from mnist_cnn.analysis import ranking
from mnist_cnn.config.compose import CONF, compose, files, plain
from mnist_cnn.report import docstring_parser
from mnist_cnn.runs.folder import HYDRA, RESULTS, flat, write_json

ROOT = CONF.parent  # of the clone
RECORDS, README, PICTURE = ROOT / "benchmarks", ROOT / "README.md", "benchmarks/accuracy.png"
MEASUREMENTS = RECORDS / "measurements"
KERAS = "the Keras tutorial's own script, as printed there"
KERAS_ACCURACY = 0.9815
# in the order of the table; other experiments come after them, under their own names
NETWORKS = {
    "article": "the same network and recipe, here",
    "usual": "the same network by the usual Lightning + torchvision recipe, 10 epochs",
    "photo": "a network for photographs; it ships with the package",
    "robust": "the same network for noise, blur and other conditions",
    "adversarial": "the same network against attacks on its pixels",
    "fast": "99 % in the fewest seconds",
    "tiny": "our best network of at most 8,000 parameters, in 15 epochs",
    "accurate": "our best network of at most 250,000 parameters",
    "shifts": "the same networks",
    "ensemble": "an ensemble of these",
}
# what the runs of a record have in common beside their configuration
SAME = ("parameters", "device", "processor", "threads", "versions", "git_commit")
METRICS = ("test/acc", "val/acc", "seconds")

Record = dict[str, Any]
Results = dict[str, Any]  # what results.json holds, and `folder`


def result_names() -> list[str]:
    """The names of all results, measured or not, in the order of the table."""
    return list(dict.fromkeys((*NETWORKS, *files("experiment"))))


def load_records() -> dict[str, Record]:
    """All records by name, in the order of the table."""
    paths = {name: RECORDS / f"{name}.json" for name in result_names()}
    return {
        name: json.loads(path.read_text("utf-8")) for name, path in paths.items() if path.is_file()
    }


def read_runs(folder: Path, seeds: Sequence[int] = ()) -> list[Results]:
    """The runs of a sweep's folder, or the one of a run's, in the order of their seeds.

    Args:
        seeds: those wanted; by default all that are there.

    Raises:
        ValueError: one of them has no results.
    """
    files = sorted(folder.rglob(RESULTS))
    begun = {log.parent for log in folder.rglob("train.log")} - {file.parent for file in files}
    if begun:
        hint = f"finish it: python -m mnist_cnn.train ckpt_path={folder}"
        raise ValueError(f"{min(begun)}: not finished; {hint}")
    runs = [{**json.loads(file.read_text("utf-8")), "folder": file.parent} for file in files]
    found = {run["seed"]: run for run in runs}
    if missing := set(seeds) - set(found):
        raise ValueError(f"{folder}: has no run of seed {', '.join(map(str, sorted(missing)))}")
    if not runs:
        raise ValueError(f"{folder}: no runs in there")
    return [found[seed] for seed in seeds or sorted(found)] if len(found) == len(runs) else runs


def setting(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a run's configuration that its result depends on, by whole keys."""
    values = {key: value for key, value in flat(config).items() if value != {}}
    kept = ranking.setting(values) | {ranking.FOLD: values.get(ranking.FOLD)}
    return {key: value for key, value in values.items() if key in kept}


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """Up to three of the keys in which two configurations differ, with both values; "" if none."""
    keys = [key for key in {**a, **b} if repr(a.get(key, "-")) != repr(b.get(key, "-"))]
    parts = [f"{key}={a.get(key, '-')}, {b.get(key, '-')}" for key in keys[:3]]
    return "; ".join(parts + [f"and {len(keys) - 3} more"] * (len(keys) > 3))


def check_experiment(run: Results, experiment: str) -> None:
    """Raises ValueError unless a run is one of an experiment, nothing else changed but the seed."""
    now = setting(plain(compose([f"experiment={experiment}"], run_dir=".")))
    if fault := differences(setting(run["config"]), now):
        raise ValueError(f"{run['folder']}: not experiment={experiment}, there and here: {fault}")


def launcher_of(run: Results) -> list[str]:
    """The overrides that chose the launcher of a run's sweep."""
    file = run["folder"] / HYDRA
    if not file.exists():
        return []
    written: Any = OmegaConf.to_container(OmegaConf.load(file))  # interpolations as such
    given = written["hydra"]["overrides"]["hydra"]
    return [
        str(text) for text in given if str(text).startswith(("hydra/launcher", "hydra.launcher"))
    ]


def invocation(name: str, seeds: Sequence[int], launcher: Sequence[str] = ()) -> str:
    """The command that measures a result."""
    if name not in files("experiment"):
        return f"python -m benchmarks.records {name}"
    several = ["-m"] if len(seeds) > 1 else []
    listed = f"seed={','.join(map(str, seeds))}"
    return " ".join(
        ["python -m mnist_cnn.train", *several, f"experiment={name}", listed, *launcher]
    )


def make_record(name: str, runs: Sequence[Results]) -> Record:
    """The record of finished runs that agree in everything but the seed.

    Raises:
        ValueError: they differ in more, or lack what a record holds.
    """
    first = runs[0]
    for run in runs:
        if missing := {"test/acc", *SAME} - run.keys():
            raise ValueError(f"{run['folder']}: its results have no {min(missing)}")
        alike = [{**setting(r["config"]), **{key: r[key] for key in SAME}} for r in (first, run)]
        if fault := differences(*alike):
            both = f"{first['folder']} and {run['folder']}"
            raise ValueError(f"{both} must differ in the seed alone: {fault}")
    seeds, launcher = [run["seed"] for run in runs], launcher_of(first)
    started, finished = (
        [datetime.fromisoformat(run[key]) for run in runs] for key in ("started", "finished")
    )
    record = {
        "name": name,
        "command": invocation(name, seeds, launcher),
        "launcher": launcher,
        "seeds": seeds,
        **{key: [run[key] for run in runs] for key in METRICS if key in first},
        "elapsed_seconds": (max(finished) - min(started)).total_seconds(),
        **{key: first[key] for key in SAME},
        "config": setting(first["config"]),
        "finished": max(run["finished"] for run in runs),
    }
    epochs = by_epoch([run["folder"] / "history.csv" for run in runs])
    return {**record, "epochs": epochs} if epochs else record


def by_epoch(histories: Sequence[Path]) -> list[dict[str, float]]:
    """Means over runs after each epoch that all of them have, where they have validation."""
    tables = [pd.read_csv(file) for file in histories if file.exists()]
    columns = ["seconds", "val/acc"]
    if not tables or not all("val/acc" in table and table["val/acc"].all() for table in tables):
        return []
    clocks = [table.assign(seconds=table["seconds"].cumsum()) for table in tables]
    groups = pd.concat(clocks).groupby("epoch")[columns]
    means = groups.mean()[groups.size() == len(tables)].reset_index()
    return [{str(key): row[key] for key in row} for row in means.to_dict("records")]


def joined_runs(
    module: str,
    doc: str,
    argv: Sequence[str] | None,
    key: Sequence[str],
    read: Callable[[Path], Iterable[Mapping[str, Any]]],
) -> tuple[pd.DataFrame, bool]:
    """The rows of a measurement: of its record, and of the folders that a command line names.

    Args:
        module, doc: the command's name and docstring; it takes FOLDER ... and --write.
        key: the columns that tell rows apart; of two alike the later one stays.
        read: the rows of a folder.

    Returns:
        The rows, and whether they were written into the record, measurements/<name>.json.
    """
    parser = docstring_parser(f"benchmarks.{module}", doc)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--write", action="store_true", help="keep the rows in the record")
    args = parser.parse_args(argv)
    if args.write and not args.folders:
        parser.error("--write needs a FOLDER")
    record = MEASUREMENTS / f"{module}.json"
    ((kind, known),) = json.loads(record.read_text("utf-8")).items()
    new = [row for folder in args.folders for row in read(folder)]
    rows = pd.DataFrame([*known, *new])
    rows = rows.drop_duplicates(list(key), keep="last", ignore_index=True)
    if args.write:
        write_json({kind: rows.to_dict("records")}, record)
    return rows, args.write
