"""Runs grouped by configuration and ranked by their objective."""

import difflib
import functools
import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mnist_cnn.analysis.found import ABSENT, Run, read_overrides
from mnist_cnn.config.messages import shown
from mnist_cnn.runs import checks

# what a result does not depend on: beginnings of keys, and last names
IGNORED = (
    *(set(checks.UNRELATED) - {"ckpt_path", "trainer.max_epochs", "trainer.max_time"}),
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

    def values(self, metric: str) -> list[float]:
        return [run.results[metric] for run in self.runs if metric in run.results]

    def summary(self, metric: str) -> Summary | None:
        return summarize(self.values(metric))


@dataclass
class Leaderboard:
    """Groups, the best first, by the mean of the objective alone; and what is not finished.

    Attributes:
        metric, mode: the objective of most runs.
        columns: the keys that tell the groups apart, and how each may be called for short.
        n_ranked: number of finished runs that had that objective.
        repeats: number of runs left out, as they repeat another with the same seed.
        averaged: the keys that vary inside groups: the seed, the fold, ...
    """

    runs: list[Run]
    metric: str
    mode: str
    groups: list[Group]
    columns: dict[str, str]
    n_ranked: int
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


def worse(value: float, mode: str) -> tuple[bool, float]:
    """A sort key: the better the sooner, NaN last."""
    return math.isnan(value), value if mode == "min" else -value


def rank_runs(found: Sequence[Run], over: Sequence[str] = ()) -> Leaderboard:
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
    (metric, mode), n_ranked = (
        objectives.most_common(1)[0] if finished else (("val/loss", "min"), 0)
    )
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
        summary = summarize(values)
        return worse(summary.mean if summary else math.nan, mode)

    for group in groups.values():
        group.runs.sort(key=lambda run: worse(run.results.get(metric, math.nan), mode))
    ranked = sorted(groups.values(), key=lambda group: score(group.values(metric)))
    columns = short_names(differing([group.config for group in ranked]))
    repeats = len(finished) - len(outcomes)
    averaged = [
        key
        for key in ("seed", *over)
        if any(len({repr(value_of(run.config, key)) for run in group.runs}) > 1 for group in ranked)
    ]
    return Leaderboard(list(found), metric, mode, ranked, columns, n_ranked, repeats, averaged)


def value_of(config: Mapping[str, Any], key: str) -> Any:
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
    """At most `most` keys, those whose values have the greatest entropy, in their order."""

    def evenness(key: str) -> float:
        counts = Counter(repr(config.get(key, ABSENT)) for config in configs)
        return sum(n * math.log(n) for n in counts.values())

    kept = sorted(keys, key=evenness)[:most]
    return [key for key in keys if key in kept]


def peculiar_settings(board: Leaderboard) -> list[str]:
    """Of each unfinished run what its command line set that not all runs have."""
    known: dict[str, Any] = {}
    if board.groups:
        best = board.groups[0].runs[0]
        known = {
            **read_overrides(best.folder),
            **best.config,
        }  # a chosen group stands in the first only
    varied_keys = board.varied
    settings = []
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
        settings.append(pairs({names[key]: v for key, v in own.items()}))
    return settings
