"""Runs found in folders."""

import csv
import functools
import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from mnist_cnn.config.compose import flat
from mnist_cnn.runs.state import FAILED, LAST, LOCK, OVERRIDES, PRUNED, RESULTS, SWEEP, State, state

MARKS = {RESULTS, FAILED, PRUNED, LOCK, "train.log"}  # any makes a run's folder
INSIDE = {".hydra", "checkpoints", "tensorboard", "evaluation"}  # parts of a run, never runs


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
    state: State | Literal["unreadable"]
    note: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)

    @property
    def checkpoint(self) -> Path | None:
        """Its best checkpoint, its last where none is best, None where none is left."""
        files = (self.folder / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
        return next((file for file in files if file.exists()), None)


def find_runs(top: Path) -> Iterator[Path]:
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
    return next((path.parent for path in newest_first if any(find_runs(path.parent))), None)


def natural_order(name: str) -> list[tuple[int, str]]:
    """A sort key that puts 9 before 10."""
    return [(int(digits or -1), text) for digits, text in re.findall(r"(\d+)|(\D+)", name)]


def read_run(folder: Path, name: str) -> Run:
    """What lies in a run's folder. Whatever cannot be read is reported in `note`, not raised."""
    run = Run(folder, name, state(folder))
    file = {"finished": RESULTS, "failed": FAILED, "pruned": PRUNED}.get(run.state)
    try:
        found = read_json(folder / file) if file else {}
        if run.state == "finished":
            run.config = flat(found.pop("config"))
            run.results = {key: metric_value(key, value) for key, value in found.items()}
            if missing := {"objective.metric", "objective.mode"} - run.config.keys():
                raise KeyError(min(missing))
            return run
        if run.state == "failed":
            run.note = first_line(f"{found['type']}: {found['error']}")
        elif run.state == "pruned":
            run.note = "after epoch {epoch}: {metric}={value:.4f}".format(**found)
            run.results = found
        elif run.state == "running":
            run.note = f"{len(read_history(folder))} epochs done"
        elif (folder / LAST).exists():
            run.note = f"resume it with ckpt_path={folder}"
        run.config = read_overrides(folder)
    except KeyError as e:
        run.state, run.note = "unreadable", f"{file}: has no {e.args[0]}"
    except (OSError, ValueError, TypeError, AttributeError) as e:
        run.state, run.note = "unreadable", f"{file}: {first_line(str(e))}"
    return run


def read_json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        raise ValueError("not an object of JSON")
    return content


def metric_value(key: str, value: Any) -> Any:
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


def read_overrides(folder: Path) -> dict[str, Any]:
    """What a run's command line set, as far as it can be read."""
    try:
        lines = (folder / OVERRIDES).read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    return {key: value for line in lines for key, value in parse_override(line).items()}


@functools.cache  # the jobs of a sweep share most of their lines, and YAML takes its time
def parse_override(line: str) -> dict[str, Any]:
    """One line of overrides.yaml, `- key=value`."""
    try:
        return flat(parse_pairs(map(str, OmegaConf.create(line)))) if line.startswith("- ") else {}
    except (ValueError, TypeError, YAMLError, OmegaConfBaseException):
        return {}


def parse_pairs(pairs: Iterable[str]) -> dict[str, Any]:
    """key=value texts as a nested configuration, each value read as YAML."""
    plain: Any = OmegaConf.to_container(OmegaConf.from_dotlist(list(pairs)))
    return plain


def read_history(folder: Path) -> list[dict[str, float]]:
    """The rows of history.csv, as far as they are whole."""
    rows = []
    try:
        with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                rows.append({k: float(v) for k, v in row.items() if k and v})
    except (OSError, ValueError):
        pass
    return rows
