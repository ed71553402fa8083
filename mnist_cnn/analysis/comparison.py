"""Differences between two groups of runs."""

import math
import shlex
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

from omegaconf import OmegaConf

from mnist_cnn.analysis import ranking
from mnist_cnn.analysis.found import ABSENT, Run, parse_pair
from mnist_cnn.runs.folder import HYDRA


def select_runs(text: str, board: ranking.Leaderboard) -> list[Run]:
    """The finished runs that a text names.

    Args:
        text: a rank of the leaderboard, or one or more key=value, separated by spaces; keys may be
            shortened as in the leaderboard.

    Raises:
        ValueError: there is no such rank, key or value.
    """
    if text.isdigit():
        if not 1 <= int(text) <= len(board.groups):
            raise ValueError(f"--compare: a rank must be 1 to {len(board.groups)}, got {text}")
        return board.groups[int(text) - 1].runs
    chosen = board.finished
    if not chosen or "=" not in text:
        raise ValueError(
            f"--compare must have a folder, a rank of the leaderboard or key=value, got {text}"
        )
    full = {name: key for key, name in board.columns.items()}
    for pair in shlex.split(text):
        name, _, value = pair.partition("=")
        key = ranking.part_named(full.get(name) or ranking.find_key(name, board.finished))
        wanted = ranking.brief(parse_pair(f"key={value}").get("key")).casefold()
        present = [ranking.brief(run.config.get(key, class_of(run, key))) for run in chosen]
        fits = [own.casefold() == wanted for own in present]
        if not any(fits):
            fits = [choice_of(run, name) == value for run in chosen]
        if not any(fits):
            allowed = ", ".join(dict.fromkeys(present))
            raise ValueError(f"{pair}: no finished run has that, only {allowed}")
        chosen = [run for run, fit in zip(chosen, fits, strict=True) if fit]
    return chosen


def class_of(run: Run, part: str) -> str:
    """The class, without its module, of a part of a run's configuration."""
    classes = (run.config.get(f"{part}.{name}") for name in ranking.CHOICES)
    return next((str(kind).rpartition(".")[2] for kind in classes if kind), ABSENT)


def choice_of(run: Run, group: str) -> str | None:
    """The file that a run's configuration has of a group, as Hydra noted it."""
    file = run.folder / HYDRA
    noted = OmegaConf.load(file) if file.exists() else OmegaConf.create()
    choices = OmegaConf.select(noted, "hydra.runtime.choices") or {}
    return choices.get(group)


@dataclass(frozen=True)
class Difference:
    """Of the means of two groups of runs in one metric, first minus second.

    Attributes:
        first, second: None where no run has the metric.
        mean: None where one of them is.
        interval: bounds of the 95 % confidence interval, or None where none can be told.
        alike: where it is from pairs, the keys in which partners are alike; None where it is not.
        why: where there is no interval, why.
    """

    first: ranking.Summary | None
    second: ranking.Summary | None
    mean: float | None = None
    interval: tuple[float, float] | None = None
    alike: list[str] | None = None
    why: str = ""


def difference_of_means(a: Sequence[Run], b: Sequence[Run], metric: str) -> Difference:
    """Compares two groups of finished runs, in pairs where each run has a partner in the other.

    Partners are alike in all that varies inside a group, as the seed does. In pairs the interval is
    Student's of the differences, otherwise Welch's.
    """
    from scipy import stats  # takes a second, which other reports save

    a, b = ([run for run in side if metric in run.results] for side in (a, b))
    x, y = ([run.results[metric] for run in side] for side in (a, b))
    first, second = ranking.summarize(x), ranking.summarize(y)
    if first is None or second is None:
        return Difference(first, second, why="not measured in both")
    found = Difference(first, second, first.mean - second.mean)
    if not math.isfinite(first.mean - second.mean):
        return replace(found, why="a value is not a number")
    alike, partners = pair(a, b)
    observed = [x, y]
    if partners:
        found = replace(found, alike=alike)
        x, y = ([run.results[metric] for run in side] for side in zip(*partners, strict=True))
        observed = [[u - v for u, v in zip(x, y, strict=True)]]
    if min(len(x), len(y)) < 2:
        return replace(found, why="one run has no spread: add seeds")
    # what rounding leaves of equal values
    if max(max(part) - min(part) for part in observed) < 1e-12 * max(map(abs, (*x, *y))):
        return replace(found, why="no spread: nothing to judge by")
    with warnings.catch_warnings():
        # a side whose runs are all equal has a variance that is right, 0
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        test = stats.ttest_rel(x, y) if partners else stats.ttest_ind(x, y, equal_var=False)
    low, high = map(float, test.confidence_interval(0.95))
    return replace(found, interval=(low, high))


def pair(a: Sequence[Run], b: Sequence[Run]) -> tuple[list[str], list[tuple[Run, Run]]]:
    """The keys that vary inside a group, and partners, none where they are not one to one."""
    sides = [[ranking.observation(run) for run in side] for side in (a, b)]
    keys = dict.fromkeys(key for side in sides for config in side for key in config)
    varied = [
        key
        for key in keys
        if any(len({repr(config.get(key, ABSENT)) for config in side}) > 1 for side in sides)
    ]
    names = [[repr([config.get(key, ABSENT) for key in varied]) for config in s] for s in sides]
    first, second = (dict(zip(*side, strict=True)) for side in zip(names, (a, b), strict=True))
    one_to_one = len(first) == len(a) and len(second) == len(b)
    if not one_to_one or first.keys() != second.keys():
        return varied, []
    return varied, [(run, second[name]) for name, run in first.items()]
