"""A record: what the runs of a result have in common, and each seed's numbers."""

import itertools
import json
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from mnist_cnn.runs.state import SWEEP
from omegaconf import OmegaConf

from mnist_cnn.analysis.comparison import Difference, difference_of_means
from mnist_cnn.analysis.found import ABSENT, Run, find_runs, read_history, read_json
from mnist_cnn.analysis.ranking import Summary, brief, setting, summarize
from mnist_cnn.config.compose import CONF, compose, files, flat, plain
from mnist_cnn.config.messages import install
from mnist_cnn.report import collect_runs, docstring_parser
from mnist_cnn.runs import results, state

ROOT = CONF.parent  # of the clone; in an installed wheel, the package
RECORDS, README, PICTURE = ROOT / "benchmarks", ROOT / "README.md", "benchmarks/accuracy.png"
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
    "tiny": "the best network of at most 8,000 parameters, in 15 epochs",
    "accurate": "the best network of at most 250,000 parameters",
    "shifts": "the same networks",
    "ensemble": "an ensemble of these",
}
SEEDS = (0, 1, 2)  # of a result that has no record yet
# evaluated with shifts by a pixel: the networks of an experiment one by one, and together
SHIFTED, SHIFTS = ("shifts", "ensemble"), 1
MEMBERS, MEMBER_SEEDS = "accurate", (0, 1, 2, 3, 4)
USUAL_EPOCHS = 10
# what the runs of a record have in common beside their configuration
SAME = ("parameters", "device", "processor", "threads", "versions", "git_commit")
METRICS = ("test/acc", "val/acc", "seconds")

Record = dict[str, Any]


def load_records() -> dict[str, Record]:
    """All records by name, in the order of the table."""
    found = {path.stem: json.loads(path.read_text("utf-8")) for path in RECORDS.glob("*.json")}
    return {name: found[name] for name in result_names() if name in found}


def result_names() -> list[str]:
    """The names of all results, measured or not."""
    return list(dict.fromkeys((*NETWORKS, *files("experiment"))))


def header(experiment: str) -> str:
    """The comment at the top of an experiment's file, as one line."""
    lines = (CONF / "experiment" / f"{experiment}.yaml").read_text("utf-8").splitlines()
    return " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))


def stated_result(experiment: str) -> Summary | None:
    """The accuracy that the comment at the top of an experiment's file states, or None.

    As in `99.18 % +- 0.02 on the test set (seeds 0, 1, 2)`, `(seeds 0 to 9)` or `(seed 0)`.
    """
    pattern = r"([\d.]+) %(?: \+- ([\d.]+))? on the test set \(seeds? ([^)]*)\)"
    stated = re.search(pattern, header(experiment))
    if stated is None:
        return None
    mean, std, seeds = stated.groups()
    numbers = [int(seed) for seed in re.findall(r"\d+", seeds)]
    n = numbers[-1] - numbers[0] + 1 if " to " in seeds else len(numbers)
    return Summary(n, float(mean) / 100, None if std is None else float(std) / 100)


def invocation(name: str, seeds: Sequence[int], launcher: Sequence[str] = ()) -> str:
    """The command that measures a result."""
    if name not in files("experiment"):
        return f"python -m benchmarks.records {name}"
    many = ["-m"] if len(seeds) > 1 else []
    listed = ",".join(map(str, seeds))
    chosen = [*many, f"experiment={name}", f"seed={listed}", *launcher]
    return f"python -m mnist_cnn.train {' '.join(chosen)}"


def finished_runs(folder: Path, seeds: Sequence[int] = ()) -> list[Run]:
    """The runs of a sweep's folder, or the one of a run's, by their seeds.

    Args:
        seeds: those wanted; by default all that the sweep's command lists.

    Raises:
        ValueError: one of them is not finished, or not there.
    """
    board = collect_runs([folder])
    hint = f"finish it: python -m mnist_cnn.train ckpt_path={folder}"
    for run in board.others:
        note = f", {run.note}" if run.note else ""
        raise ValueError(f"{run.folder}: {run.state}{note}; {hint}")
    found = {run.config["seed"]: run for run in board.runs}
    if len(found) < len(board.runs):
        raise ValueError(f"{folder}: two runs have the same seed")
    wanted = list(seeds) or swept(folder) or sorted(found)
    if missing := [str(seed) for seed in wanted if seed not in found]:
        raise ValueError(f"{folder}: has no run of seed {', '.join(missing)}; {hint}")
    return [found[seed] for seed in wanted]


def joined_runs(
    module: str,
    doc: str,
    argv: Sequence[str] | None,
    record: Path,
    key: Sequence[str],
    entry: Callable[[Path, dict[str, Any]], dict[str, Any]],
    others: Iterable[dict[str, Any]] = (),
) -> tuple[list[dict[str, Any]], bool]:
    """The runs of a measurement: of its record, and of the sweeps that a command line names.

    Args:
        module, doc: the command's name and docstring; it takes FOLDER ... and --write.
        record: where --write keeps the runs.
        key: the fields that tell runs apart; of two alike the later one stays.
        entry: what the record holds of a finished run, of its sweep and its results.json.
        others: runs of elsewhere, between those of the record and those of the sweeps.

    Returns:
        The runs, and whether they were written.
    """
    parser = docstring_parser(module, doc)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="a sweep")
    parser.add_argument("--write", action="store_true", help="keep the runs in the record")
    args = parser.parse_args(argv)
    if args.write and not args.folders:
        parser.error("--write needs a FOLDER")
    known = read_json(record)["runs"] if record.exists() else []
    new = (
        entry(folder, read_json(run / "results.json"))
        for folder in args.folders
        for run in find_runs(folder)
        if state.state(run) == "finished"
    )
    runs = list({tuple(run[name] for name in key): run for run in (*known, *others, *new)}.values())
    if args.write:
        results.write({"runs": runs}, record)
    return runs, args.write


def sweep_overrides(folder: Path, kind: str) -> list[str]:
    """The overrides that a sweep was started with, of the `task` or of `hydra`; none of a run's."""
    file = folder / SWEEP
    noted = OmegaConf.load(file) if file.exists() else OmegaConf.create()
    return list(OmegaConf.select(noted, f"hydra.overrides.{kind}") or ())


def launcher_of(folder: Path) -> list[str]:
    """How a sweep was told to run its jobs in parallel."""
    given = sweep_overrides(folder, "hydra")
    return [text for text in given if re.match(r"hydra[./]launcher", text)]


def swept(folder: Path) -> list[int]:
    """The seeds that a sweep was started with; none where that cannot be told."""
    for given in OverridesParser.create().parse_overrides(sweep_overrides(folder, "task")):
        if given.get_key_element() == "seed":
            several = given.is_sweep_override()
            values = given.sweep_string_iterator() if several else [given.get_value_string()]
            return list(map(int, values))
    return []


def current_setting(experiment: str) -> dict[str, Any]:
    """The `setting` of an experiment as its file has it now."""
    config = plain(compose([f"experiment={experiment}"], run_dir="."))
    return setting(Run(Path(), "", "finished", config=flat(config)))


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """What differs, in a few words; nothing where nothing does."""
    keys = [key for key in {**a, **b} if a.get(key, ABSENT) != b.get(key, ABSENT)]
    parts = [f"{key}={brief(a.get(key, ABSENT))}, {brief(b.get(key, ABSENT))}" for key in keys[:3]]
    return "; ".join(parts + [f"and {len(keys) - 3} more"] * (len(keys) > 3))


def check_experiment(run: Run, experiment: str) -> None:
    """Raises ValueError unless a run is one of an experiment, nothing else changed but the seed."""
    if fault := differences(setting(run), current_setting(experiment)):
        raise ValueError(f"{run.folder}: not experiment={experiment}, there and here: {fault}")


def make_record(name: str, found: Sequence[Run], launcher: Sequence[str] = ()) -> Record:
    """The record of finished runs that agree in everything but the seed.

    Args:
        launcher: overrides of the launcher that ran them.

    Raises:
        ValueError: they differ in more, or lack what a record holds.
    """
    first, *others = found
    for run in found:
        if missing := [key for key in ("test/acc", "started", *SAME) if key not in run.results]:
            raise ValueError(f"{run.folder}: its results have no {missing[0]}; train it again")
    alike = [{**setting(run), **{key: run.results[key] for key in SAME}} for run in found]
    for other, own in zip(others, alike[1:], strict=True):
        if fault := differences(alike[0], own):
            raise ValueError(
                f"{first.folder} and {other.folder} must differ in the seed alone: {fault}"
            )
    seeds = [run.config["seed"] for run in found]
    started, finished = (
        [datetime.fromisoformat(run.results[key]) for run in found]
        for key in ("started", "finished")
    )
    record = {
        "name": name,
        "command": invocation(name, seeds, launcher),
        "launcher": list(launcher),
        "seeds": seeds,
        **{
            metric: [run.results[metric] for run in found]
            for metric in METRICS
            if metric in first.results
        },
        "elapsed_seconds": (max(finished) - min(started)).total_seconds(),
        **{key: first.results[key] for key in SAME},
        "config": setting(first),
        "finished": max(run.results["finished"] for run in found),
    }
    if epochs := by_epoch([read_history(run.folder) for run in found]):
        record["epochs"] = epochs
    return record


def by_epoch(histories: Sequence[Sequence[Mapping[str, float]]]) -> list[dict[str, float]]:
    """Means over runs after each epoch that all of them have, where they have validation."""
    if not all(row.get("val/acc") for rows in histories for row in rows):
        return []
    clocks = [list(itertools.accumulate(row["seconds"] for row in rows)) for rows in histories]
    return [
        {
            "epoch": k + 1,
            "seconds": statistics.mean(clock[k] for clock in clocks),
            "val/acc": statistics.mean(rows[k]["val/acc"] for rows in histories),
        }
        for k in range(min(map(len, histories)))
    ]


def summary_of(record: Mapping[str, Any], metric: str) -> Summary:
    summary = summarize(record[metric])
    assert summary is not None
    return summary


def as_runs(record: Mapping[str, Any]) -> list[Run]:
    """The runs of a record, with what it holds of them."""
    n, seeds = len(record["test/acc"]), record["seeds"]
    seeds = seeds if len(seeds) == n else [seeds]  # of an ensemble all together
    known = [metric for metric in METRICS if metric in record]
    results = [{metric: record[metric][k] for metric in known} for k in range(n)]
    return [
        Run(Path(), "", "finished", config={"seed": seed}, results=own)
        for seed, own in zip(seeds, results, strict=True)
    ]


def record_difference(new: Record, old: Record, metric: str) -> Difference:
    """The difference of two records in a metric; without scipy it has no interval."""
    try:
        return difference_of_means(as_runs(new), as_runs(old), metric)
    except ModuleNotFoundError as e:
        first, second = summary_of(new, metric), summary_of(old, metric)
        why = f"needs {e.name}: {install('sweep')}"
        return Difference(first, second, first.mean - second.mean, why=why)
