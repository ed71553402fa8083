"""Group runs by configuration, and rank them by their objective for each data set."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mnist_cnn.config.depends import depends_on
from mnist_cnn.config.instantiate import is_custom
from mnist_cnn.config.messages import shown

CLASSIFIER = "mnist_cnn.module.DigitClassifier"
FOLD = "data.fold"  # a repetition, like a seed, on other images
PLACES = (".dirpath", ".save_dir")  # ends of keys that have no effect


class Ranking:
    """The runs of a report, ranked for each data set and module.

    Args:
        runs: one row per run, see `found.read_run`.

    Attributes:
        boards: one leaderboard per data set and module, the one with the most runs first; ranks
            continue from one to the next, so that each rank identifies one group.
        unfinished: name, state and message of the runs without a result.
    """

    def __init__(self, runs: pd.DataFrame):
        done = runs["state"] == "finished"
        self.unfinished = runs.loc[~done, ["name", "state", "message"]]
        finished = runs[done].assign(data=[task(config) for config in runs["config"][done]])
        self.boards: list[Leaderboard] = []
        for name in finished["data"].value_counts().index:  # the one with the most runs first
            of_set = finished[finished["data"] == name]
            self.boards.append(Leaderboard(of_set, name, 1 + len(self.members)))

    @property
    def members(self) -> list[pd.DataFrame]:
        """The runs of each group, in order of rank."""
        return [members for board in self.boards for members in board.members]


class Leaderboard:
    """Groups of finished runs on one data set, ranked by the mean of the objective alone.

    Args:
        runs: one row per finished run, see `found.read_run`.
        data: the name of the data set.
        first: the rank of the best group.

    Attributes:
        metric, mode: the objective of most runs.
        is_ranked: whether a run has that metric; else the groups are in the order of their runs.
        metrics: the metrics that are summarized for each group.
        finished: the last run of each configuration, seeds and fold.
        members: the runs of each group, the best group first.
        groups: one row per group: rank, the value of each key in `columns`, and its `summarize`.
        columns: the keys in which the groups differ, those with the most values first.
    """

    def __init__(self, runs: pd.DataFrame, data: str, first: int):
        self.data = data
        objectives = [(c["objective.metric"], c["objective.mode"]) for c in runs["config"]]
        self.metric, self.mode = statistics.mode(objectives)
        known = {metric for results in runs["results"] for metric in results}
        shown = ("val/acc", "test/acc", "seconds")
        self.metrics = list(dict.fromkeys((self.metric, *filter(known.__contains__, shown))))
        finished = runs.assign(
            setting=[repr(setting(config)) for config in runs["config"]],
            repeat=[repr(repeat(config)) for config in runs["config"]],
            value=[results.get(self.metric, math.nan) for results in runs["results"]],
        )
        self.finished = finished.drop_duplicates(["setting", "repeat"], keep="last")

        self.is_ranked = bool(self.finished["value"].notna().any())
        upwards = {"ascending": self.mode == "min", "kind": "stable"}  # NaN is last
        ordered = self.finished.sort_values("value", **upwards)
        alike = [group for _, group in ordered.groupby("setting", sort=False)]
        means = pd.Series([group["value"].mean(skipna=False) for group in alike], dtype=float)
        self.members = [alike[k] for k in means.sort_values(**upwards).index]

        chosen = [setting(group["config"].iloc[0]) for group in self.members]
        distinct = {key: {repr(c.get(key)) for c in chosen} for key in differing(chosen)}
        self.columns = sorted(distinct, key=lambda key: -len(distinct[key]))
        self.groups = pd.DataFrame({"rank": range(first, first + len(chosen))})
        for key in self.columns:
            # as objects: beside null integers would become floats, and null NaN
            values = [config.get(key) for config in chosen]
            self.groups[key] = pd.Series(values, dtype=object)
        summaries = pd.DataFrame([summarize(group, self.metrics) for group in self.members])
        self.groups = self.groups.join(summaries)


def data_set(config: Mapping[str, Any]) -> str:
    """Return the data set's name in a flat configuration, with a hash of its content if any."""
    target, name = str(config.get("data._target_")), config.get("data.name")
    if is_custom({"_target_": target}):
        return str(name or target.rpartition(".")[2])
    content = config.get("data.fingerprint")
    return f"{name} ({content[:8]})" if content else str(name)


def task(config: Mapping[str, Any]) -> str:
    """Return the name of the data set, and of the module unless it is this project's classifier."""
    module = str(config.get("module._target_", CLASSIFIER))
    other = "" if module == CLASSIFIER else f", {module.rpartition('.')[2]}"
    return data_set(config) + other


def summarize(group: pd.DataFrame, metrics: Sequence[str]) -> dict[str, Any]:
    """Summarize a group of runs: n, statistics of each metric, and the first run's checkpoint.

    The statistics are n, the mean and the sample standard deviation, NaN if any value is.
    """
    row: dict[str, Any] = {"n": len(group)}
    for metric in metrics:
        values = pd.Series([r[metric] for r in group["results"] if metric in r], dtype=float)
        row[f"{metric} n"] = len(values)
        row[f"{metric} mean"] = values.mean(skipna=False)
        row[f"{metric} std"] = values.std(skipna=False)
    return row | {"checkpoint": group["checkpoint"].iloc[0]}


def setting(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a flat configuration that results depend on, with sorted keys.

    What `repeat` returns is left out. Of devices and machines their number counts: each process
    draws augmentation and dropout for itself.
    """
    ckpt_path, run_dir = config.get("ckpt_path"), config.get("run_dir")
    devices = config.get("trainer.devices")
    # a run that was resumed in its own folder is the same run
    own = ckpt_path and run_dir and Path(str(run_dir)) in Path(str(ckpt_path)).parents
    kept = depends_on(config) | {"ckpt_path": None if own else ckpt_path}
    kept["trainer.devices"] = 1 if isinstance(devices, list) else devices  # [2]: the GPU 2
    kept["trainer.num_nodes"] = config.get("trainer.num_nodes")
    varied = [key for key in sorted(kept) if not is_repeated(key)]
    return {key: kept[key] for key in varied if key != "test" and not key.endswith(PLACES)}


def repeat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the seeds and the fold of a flat configuration, in which repeats of a setting differ.

    A part's seed that is the run's is left out: runs without that part are its partners.
    """
    kept, seed = depends_on(config), config.get("seed")
    seeds = {key: kept[key] for key in sorted(kept) if is_repeated(key) and kept[key] != seed}
    return {**seeds, "seed": seed, FOLD: config.get(FOLD)}


def is_repeated(key: str) -> bool:
    """Return whether a key is a seed or the fold."""
    return key == FOLD or key.split(".")[-1] == "seed"


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys in which configurations differ; a missing key counts as null.

    Left out are keys with the same values as an earlier key, and keys that some configurations lack
    if an earlier one of the same part, such as the optimizer, distinguishes the same ones.
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


def brief(value: Any) -> str:
    """Format a value of a configuration, floats with at most four digits."""
    return shown(float(f"{value:.4g}") if isinstance(value, float) else value)
