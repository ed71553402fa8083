"""Runs grouped by configuration and ranked by their objective."""

import difflib
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from mnist_cnn.analysis.found import ABSENT, Run, read_overrides
from mnist_cnn.config.depends import depends_on
from mnist_cnn.config.messages import shown

REPEATED = {"seed", "dirpath", "save_dir"}  # last names of keys that do not tell groups apart
FOLD = "data.fold"  # repeats a run on other images, as its seed does
CHOICES = ("name", "_target_")  # last names of keys that choose the class of a part


class Summary(NamedTuple):
    n: int
    mean: float
    std: float | None  # of the sample, n - 1; None for n = 1


def summarize(values: Sequence[float]) -> Summary | None:
    """None of no values; a value that is not finite makes mean and std so, too."""
    if not values:
        return None
    if not all(map(math.isfinite, values)):
        return Summary(len(values), sum(values), None)
    std = statistics.stdev(values) if len(values) > 1 else None
    return Summary(len(values), statistics.mean(values), std)


@dataclass
class Group:
    """Finished runs of one configuration, the best first."""

    config: dict[str, Any]
    runs: list[Run]

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
        ranked: the runs that count (`observations`), the best first.
        groups: the best first, and of each the best run first.
        columns: the keys that tell the groups apart, and how each may be called for short.
        averaged: the keys that vary inside groups: the seed, the fold, ...
        metrics: what is summarized of each group.

    Raises:
        ValueError: no run has such a key.
    """

    def __init__(self, runs: Sequence[Run], over: Sequence[str] = ()):
        self.runs = runs
        self.finished = [run for run in runs if run.state == "finished"]
        self.others = [run for run in runs if run.state != "finished"]
        over = [FOLD, *(find_key(name, self.finished) for name in over if self.finished)]
        objectives = Counter(
            (run.config["objective.metric"], run.config["objective.mode"]) for run in self.finished
        )
        common = objectives.most_common(1) or [(("val/loss", "min"), 0)]
        (self.metric, self.mode), self.n_ranked = common[0]
        self.metrics = list(dict.fromkeys((self.metric, "val/acc", "test/acc", "seconds")))
        counted = observations(self.finished, self.metric)
        self.ranked = sorted(counted, key=lambda run: self.worse(run.results.get(self.metric)))
        groups: dict[str, Group] = {}
        for run in self.ranked:
            config = setting(run, over)
            groups.setdefault(repr(sorted(config.items())), Group(config, [])).runs.append(run)
        self.groups = sorted(groups.values(), key=self.by_mean)
        self.columns = short_names(differing([group.config for group in self.groups]))
        self.averaged = [key for key in ("seed", *over) if any(varies(key, g) for g in self.groups)]

    @property
    def is_ranked(self) -> bool:
        """True if any run has the objective: without validation images none has."""
        return any(self.metric in run.results for run in self.finished)

    def worse(self, value: float | None) -> tuple[bool, float]:
        """Sort key for values of the objective: the better the sooner, None and NaN last."""
        value = math.nan if value is None else value
        return math.isnan(value), value if self.mode == "min" else -value

    def by_mean(self, group: Group) -> tuple[bool, float]:
        summary = group.summary(self.metric)
        return self.worse(summary.mean if summary else None)


def varies(key: str, group: Group) -> bool:
    """Tell if the value of a key, or any value of a part, differs inside a group."""
    parts = [[(k, v) for k, v in run.config.items() if key in groups_of(k)] for run in group.runs]
    return len({*map(repr, parts)}) > 1


def observations(finished: Sequence[Run], metric: str) -> list[Run]:
    """The runs that count.

    Of runs with the same configuration, seed and fold, those that were tested stand for those that
    were not, and the newest for those with the same numbers.
    """
    names = list(dict.fromkeys((metric, "train/loss", "test/acc")))
    table = pd.DataFrame([run.results for run in finished], columns=[*names, "finished"])
    table["same"] = [repr(sorted(observation(run).items())) for run in finished]
    tested = table["test/acc"].notna()
    table = table[tested | ~tested.groupby(table["same"]).transform("any")]
    newest_first = table.sort_values("finished", ascending=False, kind="stable")
    counted = newest_first.drop_duplicates(["same", *names]).index
    return [finished[k] for k in sorted(counted)]


def observation(run: Run) -> dict[str, Any]:
    """Settings that tell a finished run from all others, its seed included."""
    return {**setting(run), "seed": run.config.get("seed")}


def setting(run: Run, over: Sequence[str] = ()) -> dict[str, Any]:
    """The part of a finished run's configuration that its result depends on, `over` apart."""
    kept = {
        key: value
        for key, value in depends_on(run.config).items()
        if key.rpartition(".")[2] not in REPEATED and not {"test", *over} & {*groups_of(key)}
    }
    # a run that was resumed in its own folder is the same run
    ckpt_path, run_dir = run.config.get("ckpt_path"), run.config.get("run_dir")
    own = ckpt_path and run_dir and Path(str(run_dir)) in Path(str(ckpt_path)).parents
    return {**kept, "ckpt_path": None if own else ckpt_path}


def groups_of(key: str) -> list[str]:
    """Return the groups that a key is in, and the key itself: a, a.b, a.b.c."""
    parts = key.split(".")
    return [".".join(parts[: n + 1]) for n in range(len(parts))]


def find_key(name: str, finished: Sequence[Run]) -> str:
    """The key, or part, of runs' configurations that a name stands for: itself or an ending.

    Raises:
        ValueError: there is none, or more than one.
    """
    keys = dict.fromkeys(key for run in finished for key in run.config)
    parts = dict.fromkeys(part for key in keys for part in groups_of(key))
    endings = [name] if name in parts else [key for key in parts if key.endswith(f".{name}")]
    if len(endings) > 1:
        raise ValueError(f"{name}: more than one key ends so: {', '.join(endings)}")
    if not endings:
        # the last name of a key is what is mistyped as a rule
        lasts = [key.split(".")[-1] for key in parts]
        near = difflib.get_close_matches(name, [*parts, *lasts], n=1)
        raise ValueError(f"{name}: no such key" + (f"; did you mean {near[0]}?" if near else ""))
    return endings[0]


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
        absent = tuple(value == repr(ABSENT) for value in values)
        same: list[Any] = [(last, tuple(values))]  # interpolated from another
        if any(absent) and len(set(values)) == 2:
            same.append((part, absent))  # a part that only some have, and all alike
            if repr(None) in values:  # null in all the others
                same.append((key, tuple(not value for value in absent)))
        choices = [column[f"{part}.{name}"] for name in CHOICES if f"{part}.{name}" in column]
        # one value with each class of its part
        follows = any(len({*zip(of, values, strict=True)}) == len({*of}) for of in choices)
        if (last in CHOICES or not follows) and seen.isdisjoint(same):
            kept.add(key)
        seen.update(same)
    return [key for key in keys if key in kept]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """For each key its shortest ending that no other key has; optimizer for optimizer.name."""
    endings = {}
    for key in keys:
        parts = part_named(key).split(".")
        endings[key] = [".".join(parts[i:]) for i in reversed(range(len(parts)))]
    n = Counter(end for ends in endings.values() for end in ends)
    return {
        key: next((end for end in ends if n[end] == 1), ends[-1]) for key, ends in endings.items()
    }


def part_named(key: str) -> str:
    """The part whose class a key names; another key as it is."""
    return key.removesuffix(".name").removesuffix("._target_")


def brief(value: Any) -> str:
    """A value of a configuration, short; 1.0, all batches, is not 1, one batch."""
    if isinstance(value, float):
        text = f"{value:.4g}"
        return f"{text}.0" if text.lstrip("-").isdecimal() else text
    return shown(value)


def pairs(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={brief(v)}" for name, v in values.items() if v != ABSENT)


def peculiar_settings(board: Leaderboard) -> list[str]:
    """Settings of each unfinished run's command line that not all runs have."""
    # a group that was chosen stands in the overrides only
    known = [{**read_overrides(g.runs[0].folder), **g.config} for g in board.groups]
    known += [run.config for run in board.others if run.config]
    texts = pd.DataFrame(known, dtype=object).map(repr)
    varied = {"seed", *texts.columns[texts.nunique() > 1]}
    settings = []
    for run in board.others:
        keys = [key for key in depends_on(run.config) if key in varied]
        settings.append(pairs({name: run.config[k] for k, name in short_names(keys).items()}))
    return settings
