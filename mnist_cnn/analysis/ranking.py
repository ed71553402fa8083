"""Runs grouped by configuration and ranked by their objective, those of each data set apart."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mnist_cnn.config.depends import depends_on
from mnist_cnn.config.instantiate import is_custom
from mnist_cnn.config.messages import shown

REPEATED = {"seed", "dirpath", "save_dir"}  # last names of keys that do not tell groups apart
CLASSIFIER = "mnist_cnn.module.DigitClassifier"
FOLD = "data.fold"  # repeats a run on other images, as its seed does


class Ranking:
    """The runs of some folders, as a report has them.

    Args:
        runs: a row a run, see `found.read_run`.

    Attributes:
        boards: the leaderboard of each data set and module, that of the most runs first; ranks go
            on from one to the next, so that a rank names one group.
        unfinished: name, state and message of the runs without a result.
    """

    def __init__(self, runs: pd.DataFrame):
        done = runs["state"] == "finished"
        self.unfinished = runs.loc[~done, ["name", "state", "message"]]
        finished = runs[done].assign(data=[task(config) for config in runs["config"][done]])
        sizes = finished["data"].value_counts()
        self.boards: list[Leaderboard] = []
        for name in sorted(sizes.index, key=lambda name: -sizes[name]):
            of_set = finished[finished["data"] == name].drop(columns="data")
            self.boards.append(Leaderboard(of_set, name, 1 + len(self.members)))

    @property
    def members(self) -> list[pd.DataFrame]:
        """The runs of each group, by rank."""
        return [members for board in self.boards for members in board.members]


class Leaderboard:
    """Groups of finished runs on one data set, the best first, by the mean of the objective alone.

    Args:
        runs: a row a finished run, see `found.read_run`.
        data: the name of the data set.
        first: the rank of the best group.

    Attributes:
        metric, mode: the objective of most runs.
        metrics: what is summarized of each group.
        finished: the runs that count: of one configuration, seed and fold the last.
        members: the runs of each group, the best first.
        groups: a row a group: rank, the value of each key in `columns`, and what `summarize` gives.
        columns: the keys that tell the groups apart, those of the most values first.
    """

    def __init__(self, runs: pd.DataFrame, data: str, first: int = 1):
        self.data = data
        objectives = [(c["objective.metric"], c["objective.mode"]) for c in runs["config"]]
        self.metric, self.mode = statistics.mode(objectives)
        known = {metric for results in runs["results"] for metric in results}
        shown = ("val/acc", "test/acc", "seconds")
        self.metrics = list(dict.fromkeys((self.metric, *filter(known.__contains__, shown))))
        finished = runs.assign(
            setting=[repr(setting(config)) for config in runs["config"]],
            repeat=[f"{c.get('seed')} {c.get(FOLD)}" for c in runs["config"]],
            value=[results.get(self.metric, math.nan) for results in runs["results"]],
        )
        self.finished = finished.drop_duplicates(["setting", "repeat"], keep="last")

        upwards = {"ascending": self.mode == "min", "kind": "stable"}  # NaN is last
        ordered = self.finished.sort_values("value", **upwards)
        alike = [group for _, group in ordered.groupby("setting", sort=False)]
        means = pd.Series([group["value"].mean(skipna=False) for group in alike], dtype=float)
        self.members = [alike[k] for k in means.sort_values(**upwards).index]

        chosen = [setting(group["config"].iloc[0]) for group in self.members]
        self.columns = sorted(differing(chosen), key=lambda key: -len(distinct(chosen, key)))
        self.groups = pd.DataFrame({"rank": range(first, first + len(chosen))})
        for key in self.columns:
            # as objects: among numbers null would become NaN, and whole numbers fractions
            values = [config.get(key) for config in chosen]
            self.groups[key] = pd.Series(values, dtype=object)
        summaries = pd.DataFrame([summarize(group, self.metrics) for group in self.members])
        self.groups = self.groups.join(summaries)


def data_set(config: Mapping[str, Any]) -> str:
    """The name of the data set of a flat configuration; arrays and pictures are told by content."""
    target, name = str(config.get("data._target_")), config.get("data.name")
    if is_custom({"_target_": target}):
        return str(name or target.rpartition(".")[2])
    content = config.get("data.fingerprint")
    return f"{name} ({content[:8]})" if content else str(name)


def task(config: Mapping[str, Any]) -> str:
    """The name of the data set, and of the module where it is no classifier of this project's."""
    module = str(config.get("module._target_", CLASSIFIER))
    other = "" if module == CLASSIFIER else f", {module.rpartition('.')[2]}"
    return data_set(config) + other


def summarize(group: pd.DataFrame, metrics: Sequence[str]) -> dict[str, Any]:
    """The row of a group: n, of each metric n, mean and sample standard deviation, and checkpoint.

    A value that is not a number makes the mean so. The checkpoint is that of the first run.
    """
    row: dict[str, Any] = {"n": len(group)}
    for metric in metrics:
        values = pd.Series([r[metric] for r in group["results"] if metric in r], dtype=float)
        row[f"{metric} n"] = len(values)
        row[f"{metric} mean"] = values.mean(skipna=False)
        row[f"{metric} std"] = values.std(skipna=False)
    return row | {"checkpoint": group["checkpoint"].iloc[0]}


def setting(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a flat configuration that a finished run's result depends on, by sorted keys.

    The seed and the fold are left out.
    """
    ckpt_path, run_dir = config.get("ckpt_path"), config.get("run_dir")
    # a run that was resumed in its own folder is the same run
    own = ckpt_path and run_dir and Path(str(run_dir)) in Path(str(ckpt_path)).parents
    kept = depends_on(config) | {"ckpt_path": None if own else ckpt_path}
    left_out = {"test", FOLD} | {key for key in kept if key.split(".")[-1] in REPEATED}
    return {key: kept[key] for key in sorted(kept) if key not in left_out}


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys that tell configurations apart; a key that is missing counts as null.

    Left out are keys with the same values as a key before, and keys that not all have where one of
    the same part, as the optimizer, tells the same configurations apart.
    """
    keys = dict.fromkeys(key for config in configs for key in config)
    kept, seen = [], set()
    for key in keys:
        values = tuple(repr(config.get(key)) for config in configs)
        pattern = (key.rpartition(".")[0], *map(values.index, values))
        partial = not all(key in config for config in configs)
        if len({*values}) > 1 and values not in seen and not (partial and pattern in seen):
            kept.append(key)
            seen |= {values, pattern}
    return kept


def distinct(configs: Iterable[Mapping[str, Any]], key: str) -> set[str]:
    """The values of a key in configurations, as text."""
    return {repr(config.get(key)) for config in configs}


def brief(value: Any) -> str:
    """A value of a configuration, in at most four digits."""
    return shown(float(f"{value:.4g}") if isinstance(value, float) else value)
