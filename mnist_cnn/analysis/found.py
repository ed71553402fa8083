"""Runs found in folders."""

import csv
import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from mnist_cnn.runs.folder import (
    FAILED,
    LAST,
    LOCK,
    OVERRIDES,
    PRUNED,
    RESULTS,
    SWEEP,
    State,
    flat,
    state,
)

MARKS = {RESULTS, FAILED, PRUNED, LOCK, "train.log"}  # any makes a run's folder
INSIDE = {".hydra", "checkpoints", "tensorboard", "evaluation"}  # parts of a run, never runs
ABSENT = "-"  # the value of a key that a configuration does not have


@dataclass
class Run:
    """One run's folder.

    Attributes:
        name: path from the folder that was searched.
        note: reason, progress or advice of a run that is not finished, in one line.
        config: dotted key to value; of a run that is not finished, what was overridden.
        results: content of results.json, `config` apart; of a pruned run its last objective.
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
    """Folders of runs at any depth, `top` among them and those behind symbolic links, each once."""
    seen = set()
    for path, folders, names in os.walk(top, followlinks=True):
        real = os.path.realpath(path)
        folders[:] = [name for name in folders if not name.startswith(".") and real not in seen]
        # a sweep may be locked, too
        if real not in seen and not MARKS.isdisjoint(names) and SWEEP not in names:
            yield Path(path)
            folders[:] = [name for name in folders if name not in INSIDE]
        seen.add(real)


def newest_sweep(top: Path) -> Path | None:
    """Folder of the sweep that was started last, of those that have a run."""
    sweeps = [path for path in top.rglob(SWEEP) if path.is_file()]
    newest_first = sorted(sweeps, key=lambda path: path.stat().st_mtime, reverse=True)
    # an evaluation over several values has the same file, and no run
    return next((path.parent for path in newest_first if any(find_runs(path.parent))), None)


def natural_order(name: str) -> list[tuple[int, str]]:
    """Sort key that puts 9 before 10."""
    return [(int(digits or -1), text) for digits, text in re.findall(r"(\d+)|(\D+)", name)]


def read_run(folder: Path, name: str) -> Run:
    """Read a run's folder. Whatever cannot be read is reported in `note`, not raised."""
    run = Run(folder, name, state(folder))
    file = {"finished": RESULTS, "failed": FAILED, "pruned": PRUNED}.get(run.state)
    try:
        content = read_json(folder / file) if file else {}
        if run.state == "finished":
            run.config = values_of(content.pop("config"))
            measured = [key for key in content if "/" in key or key == "seconds"]
            # others make null of NaN
            numbers = {
                key: float(math.nan if content[key] is None else content[key]) for key in measured
            }
            run.results = content | numbers
            if missing := {"objective.metric", "objective.mode"} - run.config.keys():
                raise KeyError(min(missing))
            return run
        if run.state == "failed":
            run.note = first_line(f"{content['type']}: {content['error']}")
        elif run.state == "pruned":
            run.note = "after epoch {epoch}: {metric}={value:.4f}".format(**content)
            run.results = {content["metric"]: content["value"]}
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


def first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def read_overrides(folder: Path) -> dict[str, Any]:
    """Values that a run's command line set, by their whole keys; none where it cannot be read."""
    found: dict[str, Any] = {}
    try:
        for pair in OmegaConf.load(folder / OVERRIDES):
            found |= parse_pair(str(pair))
    except (OSError, ValueError, TypeError, AttributeError, YAMLError, OmegaConfBaseException):
        return {}
    return found


def parse_pair(pair: str) -> dict[str, Any]:
    """Values by their whole keys of a text key=value, where the value is read as YAML."""
    return values_of(OmegaConf.from_dotlist([pair]))


def values_of(config: Any) -> dict[str, Any]:
    """Values of a configuration by their whole keys; an empty part has none."""
    return {key: value for key, value in flat(config).items() if value != {}}


def read_history(folder: Path) -> list[dict[str, float]]:
    """Rows of history.csv, as far as they are whole."""
    rows = []
    try:
        with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                rows.append({k: float(v) for k, v in row.items() if k and v})
    except (OSError, ValueError):
        pass
    return rows
