"""Runs found in folders, grouped by configuration, ranked by their objective, and compared."""

import csv
import difflib
import functools
import json
import math
import os
import re
import shlex
import statistics
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from mnist_cnn import runs
from mnist_cnn.config import CONF, files, shown

MARKS = {runs.RESULTS, runs.FAILED, runs.PRUNED, runs.LOCK, "train.log"}  # any makes a run's folder
INSIDE = {".hydra", "checkpoints", "tensorboard", "evaluation"}  # parts of a run, never runs
SWEEP = runs.SWEEP

# what a result does not depend on: beginnings of keys, and last names
IGNORED = (
    *(set(runs.UNRELATED) - {"ckpt_path", "trainer.max_epochs", "trainer.max_time"}),
    "trainer.devices",
)
IGNORED_NAMES = ("seed", "dirpath", "save_dir")
AVERAGED = ("data.fold",)  # what repeats a run on other images, as its seed does


class Absent:
    """The value of a key that a configuration does not have."""

    def __repr__(self) -> str:
        return "-"


ABSENT = Absent()


@dataclass
class Run:
    """One run's folder.

    Attributes:
        name: its path from the folder that was searched.
        note: what became of it where it is not finished, in one line.
        config: dotted key to value; of a run that is not finished, what was overridden.
        results: what results.json holds, `config` apart; of a pruned run what pruned.json holds.
    """

    folder: Path
    name: str
    state: runs.State | Literal["unreadable"]
    note: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)

    @property
    def checkpoint(self) -> Path | None:
        """Its best checkpoint, its last where none is best, None where none is left."""
        files = (self.folder / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
        return next((file for file in files if file.exists()), None)


class Summary(NamedTuple):
    n: int
    mean: float
    std: float | None  # of the sample, n - 1; None for n = 1


@dataclass
class Group:
    """Finished runs of one configuration, the best first."""

    config: dict[str, Any]
    runs: list[Run]

    def values(self, metric: str) -> list[float]:
        return [run.results[metric] for run in self.runs if metric in run.results]

    def summary(self, metric: str) -> Summary | None:
        return summarise(self.values(metric))


@dataclass
class Leaderboard:
    """Groups, the best first, by the mean of the objective alone; and what is not finished.

    Attributes:
        metric, mode: the objective of most runs.
        columns: the keys that tell the groups apart, and how each may be called for short.
        judged: how many of the finished runs had that objective.
        repeats: how many runs of groups were left out, being another's with the same seed again.
        averaged: the keys that vary inside groups: the seed, the fold, ...
    """

    runs: list[Run]
    metric: str
    mode: str
    groups: list[Group]
    columns: dict[str, str]
    judged: int
    repeats: int = 0
    averaged: list[str] = field(default_factory=list)

    @functools.cached_property
    def usual(self) -> dict[str, Any]:
        """The most common value of each column."""
        found = {}
        for key in self.columns:
            values = [group.config.get(key, ABSENT) for group in self.groups]
            common, _ = Counter(map(repr, values)).most_common(1)[0]
            found[key] = next(value for value in values if repr(value) == common)
        return found

    def apart(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """What sets a configuration apart from the usual one, by short names."""
        return {
            self.columns[key]: config[key]
            for key, common in self.usual.items()
            if key in config and repr(config[key]) != repr(common)
        }

    @property
    def finished(self) -> list[Run]:
        return [run for run in self.runs if run.state == "finished"]

    @property
    def others(self) -> list[Run]:
        return [run for run in self.runs if run.state != "finished"]

    @functools.cached_property
    def varied(self) -> set[str]:
        """All keys that are not the same in all groups."""
        usual = self.groups[0].config if self.groups else {}
        return {
            key
            for group in self.groups
            for key in group.config.keys() | usual.keys()
            if usual.get(key, ABSENT) != group.config.get(key, ABSENT)
        }

    @property
    def metrics(self) -> list[str]:
        """What is summed up of each group."""
        return list(dict.fromkeys((self.metric, "val/acc", "test/acc", "seconds")))


def summarise(values: Sequence[float]) -> Summary | None:
    """None of no values; a value that is not finite makes mean and std so, too."""
    if not values:
        return None
    if not all(map(math.isfinite, values)):
        return Summary(len(values), sum(values), None)
    std = statistics.stdev(values) if len(values) > 1 else None
    return Summary(len(values), statistics.mean(values), std)


def find(top: Path) -> Iterator[Path]:
    """The folders of runs at any depth, `top` among them."""
    for path, folders, names in os.walk(top):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if not MARKS.isdisjoint(names) and SWEEP not in names:  # a sweep may be locked, too
            yield Path(path)
            folders[:] = [name for name in folders if name not in INSIDE]


def newest_sweep(top: Path) -> Path | None:
    """The folder of the sweep that was started last, of those that have a run."""
    sweeps = [path for path in top.rglob(SWEEP) if path.is_file()]
    newest_first = sorted(sweeps, key=lambda path: path.stat().st_mtime, reverse=True)
    # an evaluation over several values has the same file, and no run
    return next((path.parent for path in newest_first if any(find(path.parent))), None)


def natural(name: str) -> list[tuple[int, str]]:
    """A sort key that puts 9 before 10."""
    return [(int(digits or -1), text) for digits, text in re.findall(r"(\d+)|(\D+)", name)]


def read(folder: Path, name: str) -> Run:
    """What lies in a run's folder. Whatever cannot be read is told in `note`, not raised."""
    run = Run(folder, name, runs.state(folder))
    file = {"finished": runs.RESULTS, "failed": runs.FAILED, "pruned": runs.PRUNED}.get(run.state)
    try:
        found = load(folder / file) if file else {}
        if run.state == "finished":
            run.config = runs.flat(found.pop("config"))
            run.results = {key: check(key, value) for key, value in found.items()}
            if missing := {"objective.metric", "objective.mode"} - run.config.keys():
                raise KeyError(min(missing))
            return run
        if run.state == "failed":
            run.note = first_line(f"{found['type']}: {found['error']}")
        elif run.state == "pruned":
            run.note = "after epoch {epoch}: {metric}={value:.4f}".format(**found)
            run.results = found
        elif run.state == "running":
            run.note = f"{len(history(folder))} epochs done"
        elif (folder / runs.LAST).exists():
            run.note = f"go on with ckpt_path={folder}"
        run.config = overrides(folder)
    except KeyError as e:
        run.state, run.note = "unreadable", f"{file}: has no {e.args[0]}"
    except (OSError, ValueError, TypeError, AttributeError) as e:
        run.state, run.note = "unreadable", f"{file}: {first_line(str(e))}"
    return run


def load(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        raise ValueError("not an object of JSON")
    return content


def check(key: str, value: Any) -> Any:
    """A value of results.json; a metric must be a number, or null, which others make of NaN."""
    if "/" not in key and key != "seconds":
        return value
    if value is None:
        return math.nan
    if not isinstance(value, int | float):
        raise ValueError(f"{key} is {value!r}, not a number")
    return value


def first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def overrides(folder: Path) -> dict[str, Any]:
    """What a run's command line set, as far as it can be told."""
    try:
        lines = (folder / runs.OVERRIDES).read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    return {key: value for line in lines for key, value in override(line).items()}


@functools.cache  # the jobs of a sweep share most of their lines, and YAML takes its time
def override(line: str) -> dict[str, Any]:
    """One line of overrides.yaml, `- key=value`."""
    try:
        return runs.flat(parse(map(str, OmegaConf.create(line)))) if line.startswith("- ") else {}
    except (ValueError, TypeError, YAMLError, OmegaConfBaseException):
        return {}


def parse(pairs: Iterable[str]) -> dict[str, Any]:
    """key=value texts as a nested configuration, each value read as YAML."""
    plain: Any = OmegaConf.to_container(OmegaConf.from_dotlist(list(pairs)))
    return plain


def history(folder: Path) -> list[dict[str, float]]:
    """The rows of history.csv, as far as they are whole."""
    rows = []
    try:
        with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                rows.append({k: float(v) for k, v in row.items() if k and v})
    except (OSError, ValueError):
        pass
    return rows


@functools.cache
def matters(key: str, over: tuple[str, ...]) -> bool:
    """Whether a result may depend on a key of the configuration; not on those in `over`."""
    averaged = any(f"{key}.".startswith(f"{part}.") for part in over)
    name = key.rpartition(".")[2]
    return not (averaged or name in IGNORED_NAMES or key.startswith(IGNORED))


def setting(run: Run, over: Sequence[str] = ()) -> dict[str, Any]:
    """The part of a finished run's configuration that its result depends on, `over` apart."""
    kept = {key: value for key, value in run.config.items() if matters(key, tuple(over))}
    limits = (run.config.get(f"trainer.limit_{stage}_batches", 1.0) for stage in ("val", "test"))
    if any(limit != 1.0 or isinstance(limit, int) for limit in limits):
        # it sets how many images a number of batches has, otherwise nothing
        kept["data.eval_batch_size"] = run.config.get("data.eval_batch_size")
    # a run that was resumed in its own folder is the same run
    ckpt_path, run_dir = run.config.get("ckpt_path"), run.config.get("run_dir")
    if ckpt_path and run_dir and Path(str(run_dir)) in Path(str(ckpt_path)).parents:
        kept["ckpt_path"] = None
    return kept


def worse(value: float, mode: str) -> tuple[bool, float]:
    """A sort key: the better the sooner, NaN last."""
    return math.isnan(value), value if mode == "min" else -value


def build(found: Sequence[Run], over: Sequence[str] = ()) -> Leaderboard:
    """Groups and ranks runs.

    Args:
        over: keys, or whole parts, that do not tell groups apart, as seed and fold do not.

    Raises:
        ValueError: no run has such a key.
    """
    finished = [run for run in found if run.state == "finished"]
    if finished:
        over = [find_key(name, finished) for name in over]
    over = [*AVERAGED, *over]
    objectives = Counter(
        (run.config["objective.metric"], run.config["objective.mode"]) for run in finished
    )
    (metric, mode), judged = objectives.most_common(1)[0] if finished else (("val/loss", "min"), 0)
    groups: dict[str, Group] = {}
    outcomes = set()
    for run in finished:
        config = setting(run, over)
        same = json.dumps(config, sort_keys=True, default=str)
        again = (run.config.get(key) for key in ("seed", *AVERAGED))
        numbers = (run.results.get(key) for key in (metric, "train/loss", "test/acc"))
        outcome = (same, *again, *numbers)
        if outcome not in outcomes:  # the same run twice is no second observation
            groups.setdefault(same, Group(config, [])).runs.append(run)
        outcomes.add(outcome)

    def score(values: Sequence[float]) -> tuple[bool, float]:
        summary = summarise(values)
        return worse(summary.mean if summary else math.nan, mode)

    for group in groups.values():
        group.runs.sort(key=lambda run: worse(run.results.get(metric, math.nan), mode))
    ranked = sorted(groups.values(), key=lambda group: score(group.values(metric)))
    columns = short_names(differing([group.config for group in ranked]))
    repeats = len(finished) - len(outcomes)
    averaged = [
        key
        for key in ("seed", *over)
        if any(len({repr(part(run.config, key)) for run in group.runs}) > 1 for group in ranked)
    ]
    return Leaderboard(list(found), metric, mode, ranked, columns, judged, repeats, averaged)


def part(config: Mapping[str, Any], key: str) -> Any:
    """The value of a key, or all values of a part."""
    if key in config:
        return config[key]
    return {name: value for name, value in config.items() if name.startswith(f"{key}.")}


def find_key(name: str, finished: Sequence[Run]) -> str:
    """The key, or part, of runs' configurations that a name stands for: itself or an ending.

    Raises:
        ValueError: there is none, or more than one.
    """
    keys = dict.fromkeys(key for run in finished for key in run.config)
    parts = dict.fromkeys(".".join(key.split(".")[: i + 1]) for key in keys for i in range(9))
    if name in parts:
        return name
    endings = [key for key in parts if key.endswith(f".{name}")]
    if len(endings) == 1:
        return endings[0]
    if endings:
        raise ValueError(f"{name}: more than one key ends so: {', '.join(endings)}")
    # the last name of a key is what is mistyped as a rule
    near = difflib.get_close_matches(name, [*parts, *(key.split(".")[-1] for key in parts)], n=1)
    raise ValueError(f"{name}: no such key" + (f"; did you mean {near[0]}?" if near else ""))


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys that tell configurations apart, without those that only repeat another."""
    keys = list(dict.fromkeys(key for config in configs for key in config))
    column = {key: [repr(config.get(key, ABSENT)) for config in configs] for key in keys}
    column = {key: values for key, values in column.items() if len(set(values)) > 1}
    kept = set()
    seen: set[Any] = set()
    for key in sorted(column, key=lambda key: key.count(".")):
        values = column[key]
        part, _, last = key.rpartition(".")
        name = column.get(f"{part}.name")
        follows = last != "name" and name and len({*zip(name, values, strict=True)}) == len({*name})
        absent = tuple(value == repr(ABSENT) for value in values)
        same: list[Any] = [(last, tuple(values))]  # interpolated from another
        if any(absent) and len(set(values)) == 2:
            same.append((part, absent))  # a part that only some have, and all alike
            if repr(None) in values:  # null in all the others
                same.append((key, tuple(not value for value in absent)))
        if not follows and seen.isdisjoint(same):
            kept.add(key)
        seen.update(same)
    return [key for key in keys if key in kept]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """For each key its shortest ending that no other key has; optimizer for optimizer.name."""
    names = {}
    plain = {key: key.removesuffix(".name") for key in keys}
    for key in keys:
        parts = plain[key].split(".")
        endings = [".".join(parts[i:]) for i in reversed(range(len(parts)))]
        names[key] = next(
            end
            for end in endings
            if end == plain[key]
            or not any(f".{plain[other]}".endswith(f".{end}") for other in keys if other != key)
        )
    return names


def brief(value: Any) -> str:
    """A value of a configuration, short; 1.0, all batches, is not 1, one batch."""
    if isinstance(value, float):
        text = f"{value:.4g}"
        return f"{text}.0" if text.lstrip("-").isdecimal() else text
    return repr(value) if value is ABSENT else shown(value)


def pairs(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={brief(v)}" for name, v in values.items() if v is not ABSENT)


def most_varied(keys: Sequence[str], configs: Sequence[Mapping[str, Any]], most: int) -> list[str]:
    """At most so many keys, those whose values have the greatest entropy, in their order."""

    def evenness(key: str) -> float:
        counts = Counter(repr(config.get(key, ABSENT)) for config in configs)
        return sum(n * math.log(n) for n in counts.values())

    kept = sorted(keys, key=evenness)[:most]
    return [key for key in keys if key in kept]


def peculiar(board: Leaderboard) -> list[str]:
    """Of each unfinished run what its command line set that not all runs have."""
    known: dict[str, Any] = {}
    if board.groups:
        best = board.groups[0].runs[0]
        known = {**overrides(best.folder), **best.config}  # a chosen group stands in the first only
    varied_keys = board.varied
    told = []
    for run in board.others:
        own = {}
        for key, v in run.config.items():
            if board.groups:
                varied = any(f"{name}.".startswith(f"{key}.") for name in varied_keys)
                new = varied or known.get(key, ABSENT) != v
            else:
                new = any(other.config.get(key, ABSENT) != v for other in board.others)
            inside = key == "ckpt_path" and run.folder.resolve() in Path(str(v)).parents
            if key.split(".")[-1] == "seed" or (new and matters(key, ()) and not inside):
                own[key] = v
        names = short_names(list(own))
        told.append(pairs({names[key]: v for key, v in own.items()}))
    return told


def select(text: str, board: Leaderboard) -> list[Run]:
    """The finished runs that a text names.

    Args:
        text: a rank of the leaderboard, or one or more key=value, separated by spaces; keys may be
            shortened as in the leaderboard.

    Raises:
        ValueError: there is no such rank, key or value.
    """
    if text.isdigit():
        if not 1 <= int(text) <= len(board.groups):
            raise ValueError(f"{text}: no such rank; allowed: 1 to {len(board.groups)}")
        return board.groups[int(text) - 1].runs
    chosen = board.finished
    if not chosen or "=" not in text:
        raise ValueError(f"{text}: allowed: a folder, a rank of the leaderboard, or key=value")
    short = {name: key for key, name in board.columns.items()}
    for pair in shlex.split(text):
        name, _, value = pair.partition("=")
        key = short.get(name) or find_key(name, board.finished)
        if any(f"{key}.name" in run.config for run in chosen):
            key = f"{key}.name"
        wanted = chosen_by(key, value)
        there = [{k: run.config.get(k, ABSENT) for k in wanted} for run in chosen]
        equal = [run for run, own in zip(chosen, there, strict=True) if own == wanted]
        # 1.0 and 1 are equal, but the first is all batches and the second is one
        same = [run for run in equal if all(repr(run.config[k]) == repr(wanted[k]) for k in wanted)]
        chosen = same or equal
        if not chosen:
            allowed = ", ".join(
                dict.fromkeys(pairs(own) if len(own) > 1 else brief(*own.values()) for own in there)
            )
            raise ValueError(f"{pair}: no finished run has that; allowed: {allowed}")
    return chosen


def chosen_by(key: str, value: str) -> dict[str, Any]:
    """The keys and values that key=value means; where it chooses a file of a group, the file's."""
    group = key.removesuffix(".name")
    if value not in files(group):
        return runs.flat(parse([f"{key}={value}"]))
    content = runs.flat(OmegaConf.load(CONF / group / f"{value}.yaml"))
    name = f"{group}.name"
    whole = {f"{group}.{k}": v for k, v in content.items() if k != "defaults"}
    return {name: whole[name]} if name in whole else whole


class Difference(NamedTuple):
    """Of the means of two groups of runs in one metric, first minus second.

    Attributes:
        first, second: None where no run has the metric.
        mean: None where one of them is.
        interval: bounds of the 95 % confidence interval, or None where none can be told.
        alike: where it is from pairs, the keys in which partners are alike; None where it is not.
        why: where there is no interval, why.
    """

    first: Summary | None
    second: Summary | None
    mean: float | None
    interval: tuple[float, float] | None
    alike: list[str] | None
    why: str


def difference(a: Sequence[Run], b: Sequence[Run], metric: str) -> Difference:
    """Compares two groups of finished runs, in pairs where each run has a partner in the other.

    Partners are alike in all that varies inside a group, as the seed does. In pairs the interval is
    Student's of the differences, otherwise Welch's.

    Raises:
        ModuleNotFoundError: scipy is not installed.
    """
    from scipy import stats

    a, b = ([run for run in side if metric in run.results] for side in (a, b))
    x, y = ([run.results[metric] for run in side] for side in (a, b))
    first, second = summarise(x), summarise(y)
    if first is None or second is None:
        return Difference(first, second, None, None, None, "not measured in both")
    mean = first.mean - second.mean
    if not math.isfinite(mean):
        return Difference(first, second, mean, None, None, "a value is not a number")
    alike, partners = pair(a, b)
    if partners:
        x, y = ([run.results[metric] for run in side] for side in zip(*partners, strict=True))
        gaps = [u - v for u, v in zip(x, y, strict=True)]
        spread = max(gaps) - min(gaps)
    else:
        spread = max(max(x) - min(x), max(y) - min(y))
    how = alike if partners else None
    if min(len(x), len(y)) < 2:
        return Difference(first, second, mean, None, how, "one run has no spread: add seeds")
    if spread < 1e-12 * max(map(abs, (*x, *y))):  # what rounding leaves of equal values
        return Difference(first, second, mean, None, how, "no spread: nothing to judge by")
    with warnings.catch_warnings():
        # a side whose runs are all equal has a variance that is right, 0
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        test = stats.ttest_rel(x, y) if partners else stats.ttest_ind(x, y, equal_var=False)
    low, high = map(float, test.confidence_interval(0.95))
    return Difference(first, second, mean, (low, high), how, "")


def pair(a: Sequence[Run], b: Sequence[Run]) -> tuple[list[str], list[tuple[Run, Run]]]:
    """The keys that vary inside a group, and partners, none where they are not one to one."""
    details = [[{**setting(run), "seed": run.config.get("seed")} for run in s] for s in (a, b)]
    keys = dict.fromkeys(key for side in details for config in side for key in config)
    varied = [
        key
        for key in keys
        if any(len({repr(config.get(key, ABSENT)) for config in side}) > 1 for side in details)
    ]
    named = [
        {
            repr([config.get(key, ABSENT) for key in varied]): run
            for run, config in zip(side, configs, strict=True)
        }
        for side, configs in zip((a, b), details, strict=True)
    ]
    one_to_one = len(named[0]) == len(a) and len(named[1]) == len(b)
    if not one_to_one or named[0].keys() != named[1].keys():
        return varied, []
    return varied, [(run, named[1][key]) for key, run in named[0].items()]
