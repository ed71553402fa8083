"""Runs grouped by configuration and ranked by their objective."""

import difflib
import functools
import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mnist_cnn.analysis.found import ABSENT, Run, read_overrides
from mnist_cnn.config.messages import shown
from mnist_cnn.config.depends import NEUTRAL

# what a result does not depend on: beginnings of keys, and last names
IGNORED = (
    *NEUTRAL,
    "trainer.devices",
)
IGNORED_NAMES = ("seed", "dirpath", "save_dir")
AVERAGED = ("data.fold",)  # what repeats a run on other images, as its seed does


class Summary(NamedTuple):
    n: int
    mean: float
    std: float | None  # of the sample, n - 1; None for n = 1


@dataclass
class Group:
    """Finished runs of one configuration, the best first."""

    config: dict[str, Any]
    runs: list[Run]

    def mean(self, metric: str) -> float | None:
        summary = self.summary(metric)
        return summary and summary.mean

    def summary(self, metric: str) -> Summary | None:
        return summarize([run.results[metric] for run in self.runs if metric in run.results])


class Leaderboard:
    """Groups of finished runs, the best first, by the mean of the objective alone.

    Args:
        runs: finished or not.
        over: keys, or whole parts, that do not tell groups apart, as seed and fold do not.

    Attributes:
        finished, others: the runs.
        metric, mode: the objective of most runs.
        n_ranked: number of finished runs that had that objective.
        groups: the best first, and of each the best run first.
        repeats: number of runs left out, as they repeat another with the same seed.
        columns: the keys that tell the groups apart, and how each may be called for short.
        averaged: the keys that vary inside groups: the seed, the fold, ...

    Raises:
        ValueError: no run has such a key.
    """

    def __init__(self, runs: Sequence[Run], over: Sequence[str] = ()):
        self.runs = runs
        self.finished = [run for run in runs if run.state == "finished"]
        self.others = [run for run in runs if run.state != "finished"]
        over = [*AVERAGED, *(find_key(name, self.finished) for name in over if self.finished)]
        objectives = Counter(
            (run.config["objective.metric"], run.config["objective.mode"]) for run in self.finished
        )
        common = objectives.most_common(1) or [(("val/loss", "min"), 0)]
        (self.metric, self.mode), self.n_ranked = common[0]
        groups: dict[str, Group] = {}
        outcomes = set()
        for run in self.finished:
            config = setting(run, over)
            same = json.dumps(config, sort_keys=True, default=str)
            again = (run.config.get(key) for key in ("seed", *AVERAGED))
            numbers = (run.results.get(key) for key in (self.metric, "train/loss", "test/acc"))
            outcome = (same, *again, *numbers)
            if outcome not in outcomes:  # the same run twice is no second observation
                groups.setdefault(same, Group(config, [])).runs.append(run)
            outcomes.add(outcome)
        self.repeats = len(self.finished) - len(outcomes)
        for group in groups.values():
            group.runs.sort(key=lambda run: self.worse(run.results.get(self.metric)))
        self.groups = sorted(groups.values(), key=lambda group: self.worse(group.mean(self.metric)))
        self.columns = short_names(differing([group.config for group in self.groups]))
        self.averaged = [
            key
            for key in ("seed", *over)
            if any(len({repr(part_of(run.config, key)) for run in g.runs}) > 1 for g in self.groups)
        ]

    @property
    def is_ranked(self) -> bool:
        """Whether any run has the objective: without validation images none has."""
        return any(self.metric in run.results for run in self.finished)

    def worse(self, value: float | None) -> tuple[bool, float]:
        """A sort key for values of the objective: the better the sooner, None and NaN last."""
        value = math.nan if value is None else value
        return math.isnan(value), value if self.mode == "min" else -value

    @functools.cached_property
    def usual(self) -> dict[str, Any]:
        """The most common value of each column."""
        found = {}
        for key in self.columns:
            values = [group.config.get(key, ABSENT) for group in self.groups]
            common = statistics.mode(map(repr, values))
            found[key] = next(value for value in values if repr(value) == common)
        return found

    def apart(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """What sets a configuration apart from the usual one, by short names."""
        return {
            self.columns[key]: config[key]
            for key, common in self.usual.items()
            if key in config and repr(config[key]) != repr(common)
        }

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
        """What is summarized of each group."""
        return list(dict.fromkeys((self.metric, "val/acc", "test/acc", "seconds")))


def summarize(values: Sequence[float]) -> Summary | None:
    """None of no values; a value that is not finite makes mean and std so, too."""
    if not values:
        return None
    if not all(map(math.isfinite, values)):
        return Summary(len(values), sum(values), None)
    std = statistics.stdev(values) if len(values) > 1 else None
    return Summary(len(values), statistics.mean(values), std)


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


def part_of(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The value of a key, or all values of a part."""
    return {name: value for name, value in config.items() if f"{name}.".startswith(f"{key}.")}


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
    endings = {}
    for key in keys:
        parts = key.removesuffix(".name").split(".")
        endings[key] = [".".join(parts[i:]) for i in reversed(range(len(parts)))]
    n = Counter(end for ends in endings.values() for end in ends)
    return {
        key: next((end for end in ends if n[end] == 1), ends[-1]) for key, ends in endings.items()
    }


def brief(value: Any) -> str:
    """A value of a configuration, short; 1.0, all batches, is not 1, one batch."""
    if isinstance(value, float):
        text = f"{value:.4g}"
        return f"{text}.0" if text.lstrip("-").isdecimal() else text
    return repr(value) if value is ABSENT else shown(value)


def pairs(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={brief(v)}" for name, v in values.items() if v is not ABSENT)


def most_varied(keys: Sequence[str], configs: Sequence[Mapping[str, Any]], most: int) -> list[str]:
    """At most `most` keys, those whose values have the greatest entropy, in their order."""

    def evenness(key: str) -> float:
        counts = Counter(repr(config.get(key, ABSENT)) for config in configs)
        return sum(n * math.log(n) for n in counts.values())

    kept = sorted(keys, key=evenness)[:most]
    return [key for key in keys if key in kept]


def peculiar_settings(board: Leaderboard) -> list[str]:
    """Of each unfinished run what its command line set that not all runs have."""
    # a group that was chosen stands in the overrides only
    best = [group.runs[0] for group in board.groups[:1]]
    usual = [{**read_overrides(run.folder), **run.config} for run in best]
    usual = usual or [run.config for run in board.others]
    settings = []
    for run in board.others:
        own = {}
        for key, v in run.config.items():
            varied = any(f"{name}.".startswith(f"{key}.") for name in board.varied)
            new = varied or any(config.get(key, ABSENT) != v for config in usual)
            inside = key == "ckpt_path" and run.folder.resolve() in Path(str(v)).parents
            if key.split(".")[-1] == "seed" or (new and matters(key, ()) and not inside):
                own[key] = v
        names = short_names(list(own))
        settings.append(pairs({names[key]: v for key, v in own.items()}))
    return settings
