"""Runs grouped by configuration and ranked by their objective."""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mnist_cnn.config.depends import depends_on
from mnist_cnn.config.messages import shown

REPEATED = {"seed", "dirpath", "save_dir"}  # last names of keys that do not tell groups apart
FOLD = "data.fold"  # repeats a run on other images, as its seed does
ABSENT = "-"  # the value of a key that a configuration does not have
PARTS = ("n", "mean", "std")  # of a summary


class Leaderboard:
    """Groups of finished runs, the best first, by the mean of the objective alone.

    Args:
        runs: a row a run, see `found.read_run`.
        over: names of keys, or parts, that do not tell groups apart, as seed and fold do not.

    Attributes:
        metric, mode: the objective of most finished runs.
        metrics: what is summarized of each group.
        ranked: the runs that count (`distinct`), the best first, with the `rank` of their group.
        groups: a row a group, the best first: rank, the value of each key in `columns`, n; of each
            metric n, mean and std; checkpoint, of the best run.
        columns: the keys that tell the groups apart, and the short name of each.

    Raises:
        ValueError: no run has such a key.
    """

    def __init__(self, runs: pd.DataFrame, over: Sequence[str] = ()):
        done = runs["state"] == "finished"
        self.runs, self.over, self.finished, self.others = runs, over, runs[done], runs[~done]
        configs = list(self.finished["config"])
        for name in over:
            if not any(is_of(key, name) for config in configs for key in config):
                raise ValueError(f"--over: no finished run has the key {name}")
        objectives = [(c["objective.metric"], c["objective.mode"]) for c in configs]
        self.metric, self.mode = statistics.mode(objectives or [("val/loss", "min")])
        self.metrics = list(dict.fromkeys((self.metric, "val/acc", "test/acc", "seconds")))
        self.is_ranked = any(self.metric in results for results in self.finished["results"])
        upwards = {"ascending": self.mode == "min", "kind": "stable"}  # NaN is last

        counted = distinct(self.finished, self.metric)
        values = pd.Series([r.get(self.metric) for r in counted["results"]], counted.index, float)
        ranked = counted.loc[values.sort_values(**upwards).index]
        settings = [repr(sorted(setting(config, over).items())) for config in ranked["config"]]
        alike = ranked.groupby(pd.Series(settings, ranked.index, dtype=object), sort=False)
        heads = ["n", *(f"{metric} {part}" for metric in self.metrics for part in PARTS)]
        rows = [summarize(group, self.metrics) for _, group in alike]
        table = pd.DataFrame(rows, columns=[*heads, "checkpoint"], dtype=object)
        order = table[f"{self.metric} mean"].astype(float).sort_values(**upwards).index
        ranks = {group: rank for rank, group in enumerate(order, 1)}
        self.ranked = ranked.assign(rank=alike.ngroup().map(ranks))

        best = self.ranked.drop_duplicates("rank").sort_values("rank")
        chosen = [setting(config, over) for config in best["config"]]
        self.columns = short_names(differing(chosen))
        keys = {key: [config.get(key, ABSENT) for config in chosen] for key in self.columns}
        left = pd.DataFrame({"rank": best["rank"].to_list(), **keys}, dtype=object)
        self.groups = left.join(table.loc[order].reset_index(drop=True))


def summarize(group: pd.DataFrame, metrics: Sequence[str]) -> dict[str, Any]:
    """The row of a group: n, and of each metric n, mean and sample standard deviation.

    These are None of no values, std also of one; a value that is not finite makes the mean so.
    """
    row: dict[str, Any] = {"n": len(group), "checkpoint": group["checkpoint"].iloc[0]}
    for metric in metrics:
        values = [results[metric] for results in group["results"] if metric in results]
        mean = statistics.mean(values) if values else None
        spread = len(values) > 1 and all(map(math.isfinite, values))
        std = statistics.stdev(values) if spread else None
        row |= {f"{metric} n": len(values) or None, f"{metric} mean": mean, f"{metric} std": std}
    return row


def distinct(finished: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The runs that count: of each configuration, seed and result the newest, tested ones first."""
    columns = [metric, "train/loss", "test/acc", "finished"]
    table = pd.DataFrame(list(finished["results"]), columns=columns, index=finished.index)
    table["same"] = [repr(sorted(observation(config).items())) for config in finished["config"]]
    table["tested"] = table["test/acc"].notna()
    table = table.sort_values(["tested", "finished"], ascending=False, kind="stable")
    counted = table.drop_duplicates(["same", metric, "train/loss"]).index
    return finished.loc[sorted(counted)]


def observation(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that tell a finished run from all others, its seed included."""
    return {**setting(config), "seed": config.get("seed")}


def setting(config: Mapping[str, Any], over: Sequence[str] = ()) -> dict[str, Any]:
    """The part of a flat configuration that a finished run's result depends on, `over` apart."""
    ckpt_path, run_dir = config.get("ckpt_path"), config.get("run_dir")
    # a run that was resumed in its own folder is the same run
    own = ckpt_path and run_dir and Path(str(run_dir)) in Path(str(ckpt_path)).parents
    kept = depends_on(config) | {"ckpt_path": None if own else ckpt_path}
    ignored = ("test", FOLD, *(key for key in kept if any(is_of(key, name) for name in over)))
    return {k: v for k, v in kept.items() if k not in ignored and k.split(".")[-1] not in REPEATED}


def is_of(key: str, name: str) -> bool:
    """Tell if a name, of one part or several, stands in a key: lr, optimizer and optimizer.lr."""
    return f".{name}." in f".{key}."


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys that tell configurations apart.

    Left out is what follows from another: one value with each class of its part, the same values
    as a key before it, or a part that not all have after its first key.
    """
    keys = dict.fromkeys(key for config in configs for key in config)
    parts = {key[: match.start()] for key in keys for match in re.finditer(r"\.", key)}
    columns = {k: [repr(c.get(k, ABSENT)) for c in configs] for k in keys if k not in parts}
    kept: dict[str, tuple[Any, ...]] = {}
    for key, values in columns.items():
        part, _, last = key.rpartition(".")
        kinds = columns.get(f"{part}._target_", []) if last != "_target_" else []
        follows = len({*zip(kinds, values, strict=False)}) == len({*kinds}) > 0
        partial = repr(ABSENT) in values
        pattern = (part, *map(values.index, values)) if partial else (*values,)
        if len({*values}) > 1 and not follows and pattern not in kept.values():
            kept[key] = pattern
    return list(kept)


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """For each key its shortest ending that no other key has; `optimizer` for its _target_."""
    whole = {key: key.removesuffix("._target_") for key in keys}
    names = {}
    for key, name in whole.items():
        parts = name.split(".")
        endings = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        n_keys = [sum(f".{w}".endswith(f".{end}") for w in whole.values()) for end in endings]
        names[key] = endings[n_keys.index(1)] if 1 in n_keys else key
    return names


def brief(value: Any) -> str:
    """A value of a configuration, short; 1.0, all batches, is not 1, one batch."""
    if isinstance(value, float):
        text = f"{value:.4g}"
        return f"{text}.0" if text.lstrip("-").isdecimal() else text
    return shown(value)
