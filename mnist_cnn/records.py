"""The claims and their evidence: python -m mnist_cnn.records [NAME] [--seeds 0,1,2] [--write]

Without a NAME the table of claims; with one, that claim is run again, and what comes out is shown
beside the record. A claim is a file of conf/experiment, trained with each seed, or one of

  usual     the usual Lightning + torchvision recipe of mnist_cnn.benchmark, for 10 epochs
  ensemble  the networks of experiment=accurate, whose probabilities are averaged

A record, records/NAME.json, is written by --write from what the runs left, never by hand. The table
and the picture of README.md are made of the records: --readme, --plot records/accuracy.png.
"""

import itertools
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from rich.table import Table

from mnist_cnn import leaderboard, report, runs, terminal
from mnist_cnn.command import command
from mnist_cnn.config import CONF, SIGNALS, compose, either, files, install, must_be, plain
from mnist_cnn.leaderboard import ABSENT, Difference, Run, Summary, brief, summarise

ROOT = CONF.parent  # of the clone; in an installed wheel, the package
RECORDS, README, PICTURE = ROOT / "records", ROOT / "README.md", "records/accuracy.png"
BEGIN, END = "<!-- records: python -m mnist_cnn.records --readme -->", "<!-- end of records -->"
KERAS = "the article's own Keras script, as printed there"
KERAS_ACCURACY = 0.9815
# in the order of the table; other experiments come after them, under their own names
NETWORKS = {
    "article": "the same network and recipe, here",
    "usual": "the same network by the usual Lightning + torchvision recipe, 10 epochs",
    "photo": "the same network, trained to read photographs",
    "fast": "99 % in the fewest seconds",
    "accurate": "the best network of at most 250,000 parameters",
    "ensemble": "several of these together",
}
SEEDS = (0, 1, 2)  # of a claim that has no record yet
MEMBERS, MEMBER_SEEDS, SHIFTS = "accurate", (0, 1, 2, 3, 4), 1  # the ensemble
USUAL_EPOCHS = 10
# what the runs of a record have in common beside their configuration
SAME = ("parameters", "device", "processor", "threads", "versions", "git_commit")
METRICS = ("test/acc", "val/acc", "seconds")

Record = dict[str, Any]


class Row(NamedTuple):
    """A line of the table, as text."""

    network: str
    accuracy: str
    n: str
    parameters: str
    seconds: str
    again: str
    hardware: str
    command: str


# what is there


def load() -> dict[str, Record]:
    """All records by name, in the order of the table."""
    found = {path.stem: json.loads(path.read_text("utf-8")) for path in RECORDS.glob("*.json")}
    return {name: found[name] for name in names() if name in found}


def names() -> list[str]:
    """All claims."""
    return list(dict.fromkeys((*NETWORKS, *files("experiment"))))


def header(experiment: str) -> str:
    """The comment at the top of an experiment's file, as one line."""
    lines = (CONF / "experiment" / f"{experiment}.yaml").read_text("utf-8").splitlines()
    return " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))


def claim(experiment: str) -> Summary | None:
    """The accuracy that an experiment's file claims in the comment at its top, or None.

    As in `99.18 % +- 0.02 on the test set (seeds 0, 1, 2)`, `(seeds 0 to 9)` or `(seed 0)`.
    """
    pattern = r"([\d.]+) %(?: \+- ([\d.]+))? on the test set \(seeds? ([^)]*)\)"
    said = re.search(pattern, header(experiment))
    if said is None:
        return None
    mean, std, seeds = said.groups()
    numbers = [int(seed) for seed in re.findall(r"\d+", seeds)]
    n = numbers[-1] - numbers[0] + 1 if " to " in seeds else len(numbers)
    return Summary(n, float(mean) / 100, None if std is None else float(std) / 100)


def invocation(name: str, seeds: Sequence[int], launcher: Sequence[str] = ()) -> str:
    """What is typed to run a claim."""
    if name not in files("experiment"):
        return f"python -m mnist_cnn.records {name}"
    many = ["-m"] if len(seeds) > 1 else []
    listed = ",".join(map(str, seeds))
    chosen = [*many, f"experiment={name}", f"seed={listed}", *launcher]
    return f"python -m mnist_cnn.train {' '.join(chosen)}"


# a record, from runs


def finished_runs(folder: Path, seeds: Sequence[int] = ()) -> list[Run]:
    """The runs of a sweep's folder, or the one of a run's, by their seeds.

    Args:
        seeds: those wanted; by default all that the sweep's command lists.

    Raises:
        ValueError: one of them is not finished, or not there.
    """
    board = report.collect([folder])
    hint = f"finish it: python -m mnist_cnn.train ckpt_path={folder}"
    for run in board.others:
        note = f", {run.note}" if run.note else ""
        raise ValueError(f"{run.folder}: {run.state}{note}; {hint}")
    found = {run.config["seed"]: run for run in board.runs}
    if len(found) < len(board.runs):
        raise ValueError(f"{folder}: a seed is there twice; allowed: runs that differ in the seed")
    wanted = list(seeds) or swept(folder) or sorted(found)
    if missing := [str(seed) for seed in wanted if seed not in found]:
        raise ValueError(f"{folder}: has no run of seed {', '.join(missing)}; {hint}")
    return [found[seed] for seed in wanted]


def typed(folder: Path, kind: str) -> list[str]:
    """The overrides that a sweep was started with, of the `task` or of `hydra`; none of a run's."""
    file = folder / runs.SWEEP
    noted = OmegaConf.load(file) if file.exists() else OmegaConf.create()
    return list(OmegaConf.select(noted, f"hydra.overrides.{kind}") or ())


def launcher(folder: Path) -> list[str]:
    """How a sweep was told to run its jobs side by side."""
    return [text for text in typed(folder, "hydra") if re.match(r"hydra[./]launcher", text)]


def swept(folder: Path) -> list[int]:
    """The seeds that a sweep was started with; none where that cannot be told."""
    given = OverridesParser.create().parse_overrides(typed(folder, "task"))
    seeds = [override for override in given if override.get_key_element() == "seed"]
    return [
        int(value)
        for override in seeds
        for value in (
            override.sweep_string_iterator()
            if override.is_sweep_override()
            else [override.get_value_string()]
        )
    ]


def meant(experiment: str) -> dict[str, Any]:
    """The `leaderboard.setting` of an experiment as its file has it now."""
    config = plain(compose([f"experiment={experiment}"], run_dir="."))
    return leaderboard.setting(Run(Path(), "", "finished", config=runs.flat(config)))


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """What differs, in a few words; nothing where nothing does."""
    keys = [key for key in {**a, **b} if a.get(key, ABSENT) != b.get(key, ABSENT)]
    said = [f"{key}={brief(a.get(key, ABSENT))}, {brief(b.get(key, ABSENT))}" for key in keys[:3]]
    return "; ".join([*said, *([f"and {len(keys) - 3} more"] if len(keys) > 3 else [])])


def check_experiment(run: Run, experiment: str) -> None:
    """Raises ValueError unless a run is one of an experiment, nothing else changed but the seed."""
    if fault := differences(leaderboard.setting(run), meant(experiment)):
        raise ValueError(f"{run.folder}: not experiment={experiment}, there and here: {fault}")


def build(name: str, found: Sequence[Run], side_by_side: Sequence[str] = ()) -> Record:
    """The record of finished runs that agree in everything but the seed.

    Args:
        side_by_side: overrides of the launcher that ran them.

    Raises:
        ValueError: they differ in more, or lack what a record holds.
    """
    first, *others = found
    for run in found:
        if missing := [key for key in ("test/acc", "started", *SAME) if key not in run.results]:
            raise ValueError(f"{run.folder}: its results have no {missing[0]}; train it again")
    for other in others:
        sides = [
            {**leaderboard.setting(run), **{key: run.results[key] for key in SAME}}
            for run in (first, other)
        ]
        if fault := differences(*sides):
            raise ValueError(
                f"{first.folder} and {other.folder}: {fault}; allowed: runs that differ in the "
                "seed alone"
            )
    seeds = [run.config["seed"] for run in found]
    record = {
        "name": name,
        "command": invocation(name, seeds, side_by_side),
        "launcher": list(side_by_side),
        "seeds": seeds,
        **{
            metric: [run.results[metric] for run in found]
            for metric in METRICS
            if metric in first.results
        },
        "elapsed_seconds": elapsed([run.results for run in found]),
        **{key: first.results[key] for key in SAME},
        "config": leaderboard.setting(first),
        "finished": max(run.results["finished"] for run in found),
    }
    if epochs := by_epoch([leaderboard.history(run.folder) for run in found]):
        record["epochs"] = epochs
    return record


def elapsed(found: Sequence[Mapping[str, Any]]) -> float:
    """Seconds from the start of the first of some runs to the end of the last, by their results."""
    first = min(datetime.fromisoformat(results["started"]) for results in found)
    last = max(datetime.fromisoformat(results["finished"]) for results in found)
    return (last - first).total_seconds()


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


# running a claim again


class Stopped(Exception):  # noqa: N818, it is no error
    """A process that was started ended with `code`, not 0; it has said why."""

    def __init__(self, code: int):
        super().__init__(f"exit code {code}")
        self.code = code


def start(entry: str, *arguments: str) -> None:
    """Runs `python -m mnist_cnn.<entry>` and waits, signals included, until it has ended."""
    process: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, frame: Any) -> None:
        if process and number != signal.SIGINT:  # Ctrl-C comes to both from the terminal
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        process = subprocess.Popen([sys.executable, "-m", f"mnist_cnn.{entry}", *arguments])
        if code := process.wait():
            raise Stopped(code)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def train(experiment: str, seeds: Sequence[int], folder: Path, side_by_side: Sequence[str]) -> None:
    chosen = [f"experiment={experiment}", f"seed={','.join(map(str, seeds))}", *side_by_side]
    start("train", "-m", *chosen, f"hydra.sweep.dir={runs.quote(folder)}")


def usual(seeds: Sequence[int], folder: Path) -> list[Run]:
    """The usual recipe with each seed, whose results are kept as <seed>.json in a folder.

    What is there is not trained again.
    """
    from mnist_cnn import benchmark, results

    found = []
    for seed in seeds:
        file = folder / f"{seed}.json"
        if not file.exists():
            print(f"usual, seed {seed}")
            with tempfile.TemporaryDirectory() as events, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of its loader: it is the usual one
                outcome = benchmark.usual(
                    benchmark.data(), Path(events), epochs=USUAL_EPOCHS, seed=seed
                )
            folder.mkdir(parents=True, exist_ok=True)
            results.write(outcome, file)
        outcome = leaderboard.load(file)
        config = runs.flat(outcome.pop("config"))
        if config.get("epochs") != USUAL_EPOCHS:
            raise ValueError(f"{file}: allowed: results of {USUAL_EPOCHS} epochs")
        found.append(Run(file, file.stem, "finished", config=config, results=outcome))
    return found


def ensemble(folder: Path, seeds: Sequence[int]) -> Record:
    """The record of the networks of a sweep that are asked together."""
    found = finished_runs(folder, seeds)
    check_experiment(found[0], MEMBERS)
    one = build(MEMBERS, found, launcher(folder))
    place, began = folder / "evaluation" / "ensemble", time.monotonic()
    start(
        "evaluate",
        f"ckpt_path=[{','.join(runs.quote(run.folder) for run in found)}]",
        f"shifts={SHIFTS}",
        f"hydra.run.dir={runs.quote(place)}",
    )
    outcome = leaderboard.load(place / "evaluation.json")
    seconds, waited = sum(one["seconds"]), time.monotonic() - began
    return {
        **{key: value for key, value in one.items() if key not in (*METRICS, "epochs")},
        "name": "ensemble",
        "command": invocation("ensemble", one["seeds"]),
        "experiment": MEMBERS,
        "networks": len(found),
        "shifts": outcome["shifts"],
        "test/acc": [outcome["acc"]],
        "errors": outcome["errors"],
        "images": outcome["images"],
        "seconds": [seconds],
        "elapsed_seconds": one["elapsed_seconds"] + waited,
        "parameters": len(found) * one["parameters"],
    }


def rerun(
    name: str, seeds: Sequence[int], folder: Path, given: bool, side_by_side: Sequence[str]
) -> Record:
    """Runs a claim, or takes what a folder holds.

    Args:
        given: the folder was there before: its runs are taken. Of the usual recipe those that it
            lacks are trained.
        side_by_side: overrides of the launcher that runs it.
    """
    if name == "usual":
        return build(name, usual(seeds, folder))
    if not given:
        train(MEMBERS if name == "ensemble" else name, seeds, folder, side_by_side)
    if name == "ensemble":
        return ensemble(folder, seeds)
    found = finished_runs(folder, seeds)
    check_experiment(found[0], name)
    return build(name, found, launcher(folder))


# what is shown


def span(seconds: float) -> str:
    """A time for people."""
    if seconds < 299.5:
        return f"{seconds:.0f} s" if seconds >= 20 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5970 else f"{seconds / 3600:.1f} h"


def accuracy(summary: Summary) -> str:
    std = "" if summary.std is None else f" ± {100 * summary.std:.2f}"
    return f"{100 * summary.mean:.2f} %{std}"


def hardware(record: Mapping[str, Any]) -> str:
    """What it ran on, short."""
    if record["device"] != "cpu":
        return str(record["device"])
    processor = re.sub(r"\((R|TM|tm)\)| CPU\b| Processor\b| @.*", "", record["processor"])
    threads = record["threads"]
    return f"{processor.strip()}, {threads} thread{'s' if threads > 1 else ''}"


def summary_of(record: Mapping[str, Any], metric: str) -> Summary:
    summary = summarise(record[metric])
    assert summary is not None
    return summary


def rows(records: Mapping[str, Record]) -> list[Row]:
    """The table: what is measured, and what experiments claim that have no record yet."""
    printed = accuracy(Summary(1, KERAS_ACCURACY, None))
    found = [Row(KERAS, printed, "1", "-", "-", "-", "-", "")]
    for name in names():
        network = NETWORKS.get(name, name)
        record = records.get(name)
        if record is None:
            claimed = claim(name) if name in files("experiment") else None
            if claimed:
                again = invocation(name, range(claimed.n))
                rest = ("-", "-", "-", "no record yet", again)
                found.append(Row(network, accuracy(claimed), str(claimed.n), *rest))
            continue
        tested = summary_of(record, "test/acc")
        if "networks" in record:
            views = (2 * record["shifts"] + 1) ** 2
            network = f"{record['networks']} of these together"
            network += f", each image in {views} places" if views > 1 else ""
        found.append(
            Row(
                network,
                accuracy(tested),
                f"{tested.n} (of {record['networks']})" if "networks" in record else str(tested.n),
                f"{record['parameters']:,}",
                span(summary_of(record, "seconds").mean),
                span(record["elapsed_seconds"]),
                hardware(record),
                record["command"],
            )
        )
    return found


def show(records: Mapping[str, Record], console: terminal.Console) -> None:
    table = Table()
    heads = ("network", "test accuracy", "n", "parameters", "training", "in all", "on", "command")
    for head in heads:
        right = head in ("n", "parameters", "training", "in all")
        table.add_column(head, justify="right" if right else "left", overflow="fold")
    for row in rows(records):
        table.add_row(*row)
    console.print(table, soft_wrap=False)
    console.print(
        "accuracy: mean ± standard deviation over n runs; training: one run, first batch to last\n"
        "in all: from the first run's start to the last one's end; to run a claim again:\n"
        "python -m mnist_cnn.records NAME"
    )


def markdown(records: Mapping[str, Record]) -> str:
    """What README.md has between its two comments: table, note and picture."""
    listed = rows(records)
    best = max(listed, key=lambda row: row.accuracy).accuracy
    lines = [
        "| network | test accuracy | n | parameters | training | in all | command |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in listed:
        figure = f"**{row.accuracy}**" if row.accuracy == best else row.accuracy
        typed = f"`{row.command}`" if row.command else ""
        cells = (row.network, figure, row.n, row.parameters, row.seconds, row.again, typed)
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *note(records)]
    if (ROOT / PICTURE).exists():
        lines += ["", f"![Test accuracy against time of training]({PICTURE})"]
    return "\n".join(lines) + "\n"


def note(records: Mapping[str, Record]) -> list[str]:
    """What the table's columns mean, and what they were measured on: lines for README.md."""
    said = [
        "Mean ± standard deviation over n seeds on the official 10,000 test images, each looked at "
        "once a run, after training. *training* is one run, from its first batch to its last, "
        "without validation and test; *in all* is from the first run's start to the last one's end."
    ]
    places: dict[str, list[str]] = {}
    for name, record in records.items():
        place = f"{hardware(record)}, PyTorch {record['versions']['torch'].split('+')[0]}"
        places.setdefault(place, []).append(name)
    if len(places) == 1:
        said.append(f"Measured on {next(iter(places))}.")
    elif places:
        on = (f"{', '.join(who)} on {place}" for place, who in places.items())
        said.append(f"Measured: {'; '.join(on)}.")
    if "ensemble" in records:
        said.append("The ensemble is one observation, of all its networks; its seconds are theirs.")
    for name, record in records.items():
        if ratio := record.get("ratio"):
            low, high = min(ratio["ratios"]), max(ratio["ratios"])
            said.append(
                f"The whole training of `experiment={name}` takes {ratio['ratio']:.2f} of one "
                f"epoch of the article's 48,000 images (median of {len(ratio['ratios'])} rounds in "
                f"turn, {low:.2f} to {high:.2f}: `python -m mnist_cnn.benchmark --fast {name}`)."
            )
    return wrapped(" ".join(said))


def wrapped(text: str, width: int = 100) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def write_readme(records: Mapping[str, Record]) -> None:
    """Puts table, note and picture into README.md.

    Raises:
        ValueError: it has not the two comments.
    """
    text = README.read_text("utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{README}: allowed: with the lines {BEGIN} and {END}")
    README.write_text(f"{before}{BEGIN}\n\n{markdown(records)}\n{END}{after}", "utf-8")


def draw(records: Mapping[str, Record], path: Path) -> None:
    """The picture of README.md.

    Raises:
        ValueError: there is no record.
    """
    if not records:
        raise ValueError("--plot: there is no record yet; allowed: after NAME --write")
    from mnist_cnn import plots

    plots.tradeoff(
        {name: record["seconds"] for name, record in records.items()},
        {name: record["test/acc"] for name, record in records.items()},
        {
            name: (
                [epoch["seconds"] for epoch in record["epochs"]],
                [epoch["val/acc"] for epoch in record["epochs"]],
            )
            for name, record in records.items()
            if "epochs" in record
        },
        ("the article's own Keras script", KERAS_ACCURACY),
        grey=["usual"],
        title="MNIST: accuracy on the 10,000 test images and time of training",
    ).savefig(path, dpi=150)


def observed(record: Mapping[str, Any]) -> list[Run]:
    """The runs of a record, as far as it tells of them."""
    n = len(record["test/acc"])
    seeds = record["seeds"] if len(record["seeds"]) == n else [record["seeds"]]
    return [
        Run(
            *(Path(), "", "finished"),
            config={"seed": seeds[k]},
            results={metric: record[metric][k] for metric in METRICS if metric in record},
        )
        for k in range(n)
    ]


def difference(new: Record, old: Record, metric: str) -> Difference:
    """As `leaderboard.difference`; without scipy it has no interval."""
    try:
        return leaderboard.difference(observed(new), observed(old), metric)
    except ModuleNotFoundError as e:
        first, second = summary_of(new, metric), summary_of(old, metric)
        gap = first.mean - second.mean
        return Difference(first, second, gap, None, None, f"needs {e.name}: {install('sweep')}")


def compare(new: Record, old: Record, console: terminal.Console) -> None:
    """Prints what came out beside the record."""
    found = {key: difference(new, old, key) for key in METRICS if key in new and key in old}
    console.print(report.versus(found, ("here", "record"), {"seconds"}), soft_wrap=False)
    for side, record in (("here", new), ("record", old)):
        seeds = ", ".join(map(str, record["seeds"]))
        text = f"{side}: seeds {seeds}; {hardware(record)}; commit {record['git_commit']}"
        console.print(text)


def again(name: str, given: str | None, folder: Path | None, write: bool) -> None:
    """Runs a claim again, shows what came out, and makes it the record if asked to.

    Args:
        given: seeds, separated by commas.
        folder: take the runs in there.
    """
    from mnist_cnn import results

    console, old = terminal.console(), load().get(name)
    try:
        seeds = [int(seed) for seed in given.split(",")] if given else []
    except ValueError:
        raise ValueError(f"--seeds must be whole numbers, as in 0,1,2, got {given}") from None
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"--seeds must name each seed once, got {given}")
    if not seeds and (folder is None or name == "usual"):
        seeds = list(old["seeds"] if old else MEMBER_SEEDS if name == "ensemble" else SEEDS)
    place = folder
    if place is None:
        when = datetime.now().strftime("%Y-%m-%d/%H-%M-%S")
        place = Path(report.OUTPUTS, "usual" if name == "usual" else "sweeps", f"{when}-{name}")
        about = "no record yet that tells how long it takes"
        if old:
            one = statistics.mean(old["seconds"]) / old.get("networks", 1)
            need = max(one, old["elapsed_seconds"] / len(old["seeds"]) * len(seeds))
            about = f"about {span(need)} by the record, on {hardware(old)}"
        console.print(f"{name}, seeds {', '.join(map(str, seeds))}: {about}")
    try:
        side_by_side = old["launcher"] if old else ()
        new = rerun(name, seeds, place, folder is not None, side_by_side)
    except (Stopped, KeyboardInterrupt, SystemExit) as e:  # the last from Lightning, for Ctrl-C
        if (place / runs.SWEEP).exists():
            print(f"finish it: python -m mnist_cnn.train ckpt_path={place}", file=sys.stderr)
        if place.exists():
            options = f"{f' --seeds {given}' if given else ''}{' --write' if write else ''}"
            then = f"python -m mnist_cnn.records {name} --from {place}{options}"
            print(f"then: {then}", file=sys.stderr)
        sys.exit(e.code if isinstance(e, Stopped) else 128 + signal.SIGINT)
    if old:
        compare(new, old, console)
    else:
        console.print(f"{name}: {accuracy(summary_of(new, 'test/acc'))}, n={len(new['test/acc'])}")
    if write:
        RECORDS.mkdir(exist_ok=True)
        results.write(new, RECORDS / f"{name}.json")
        if old and "ratio" in old:
            console.print("its ratio was of the runs before: measure it again, then --ratio FILE")
        console.print(f"{RECORDS / name}.json; now --readme and --plot {PICTURE}")


def add_ratio(name: str, file: Path) -> None:
    """Puts the ratio that mnist_cnn.benchmark --fast measured into a record.

    Raises:
        ValueError: there is no record, or the ratio is not one of its experiment.
    """
    from mnist_cnn import results

    record, ratio = load().get(name), leaderboard.load(file)
    if record is None:
        raise ValueError(f"{name}: has no record yet; allowed: after --write")
    if not isinstance(seconds := ratio.get("seconds"), dict) or name not in seconds:
        raise ValueError(f"--ratio must be what benchmark --fast {name} --out wrote, got {file}")
    results.write({**record, "ratio": ratio}, RECORDS / f"{name}.json")


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = report.parser("records", __doc__)
    parser.add_argument("name", nargs="?", metavar="NAME", help="the claim to run again")
    parser.add_argument("--seeds", metavar="0,1,2", help="(those of the record)")
    parser.add_argument(
        "--from",
        dest="folder",
        type=Path,
        metavar="FOLDER",
        help="take this sweep's runs instead of training",
    )
    parser.add_argument("--write", action="store_true", help="make what comes out the record")
    parser.add_argument(
        "--ratio",
        type=Path,
        metavar="FILE",
        help="put what mnist_cnn.benchmark --fast --out FILE wrote into the record of NAME",
    )
    parser.add_argument("--readme", action="store_true", help="write README.md's table")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw README.md's picture")
    args = parser.parse_args(argv)
    if args.name is None and (args.seeds or args.folder or args.write or args.ratio):
        parser.error("--seeds, --from, --write and --ratio need a NAME")
    if Path(__file__).parent == ROOT:
        raise ValueError("the records come with a clone of the project, not with its package")
    if args.name is not None and args.name not in names():
        raise ValueError(must_be("NAME", either(names()), args.name))
    if args.name and (args.write or args.folder or args.seeds or not args.ratio):
        again(args.name, args.seeds, args.folder, args.write)
    if args.ratio:
        add_ratio(args.name, args.ratio)
    if args.plot:
        draw(load(), args.plot)
    if args.readme:
        write_readme(load())
    if not (args.name or args.plot or args.readme):
        show(load(), terminal.console())


if __name__ == "__main__":
    main()
