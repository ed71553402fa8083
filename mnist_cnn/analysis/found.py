"""Runs found in folders, as a table."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mnist_cnn.analysis.progress import track
from mnist_cnn.runs.folder import BEST, FAILED, LAST, LOCK, PRUNED, RESULTS, SWEEP, flat, state

MARKS = {RESULTS, FAILED, PRUNED, LOCK}  # any makes a run's folder


def find_runs(top: Path) -> Iterator[Path]:
    """Folders of runs at any depth, `top` among them."""
    for path, folders, files in os.walk(top):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if not MARKS.isdisjoint(files) and SWEEP not in files:  # a sweep may be locked, too
            yield Path(path)


def newest_sweep(top: Path) -> Path | None:
    """Folder of the sweep that was started last, of those that have a run."""
    sweeps = sorted(top.rglob(SWEEP), key=lambda path: path.stat().st_mtime, reverse=True)
    return next((path.parent for path in sweeps if any(find_runs(path.parent))), None)


def natural_order(name: str) -> list[tuple[int, str]]:
    """Sort key that puts 9 before 10."""
    return [(int(digits or -1), text) for digits, text in re.findall(r"(\d+)|(\D+)", name)]


def read_runs(folders: Sequence[Path]) -> pd.DataFrame:
    """Find and read all runs in some folders, each once: a row a run, see `read_run`.

    Raises:
        ValueError: a folder does not exist, or there is no run in any of them.
    """
    names: dict[Path, tuple[str, Path]] = {}
    for top in folders:
        if not top.is_dir():
            raise ValueError(f"{top}: no such folder")
        for folder in find_runs(top):
            name = folder.relative_to(top) if len(folders) == 1 else folder
            names.setdefault(folder.resolve(), (str(name), folder))
    if not names:
        raise ValueError(f"{', '.join(map(str, folders))}: no runs in there")
    ordered = sorted(names.values(), key=lambda pair: natural_order(pair[0]))
    return pd.DataFrame([read_run(folder, name) for name, folder in track(ordered, "reading")])


def read_run(folder: Path, name: str) -> dict[str, Any]:
    """Read a run's folder. Whatever cannot be read is reported in `message`, not raised.

    Returns:
        name, folder, state;
        message: the first line of its error, or its progress;
        checkpoint: its best one, its last where none is best, None where none is left;
        config: flat; empty where the run is not finished;
        results: content of results.json, `config` apart; of a pruned run its last objective.
    """
    files = [folder / file for file in (BEST, LAST) if (folder / file).exists()]
    run: dict[str, Any] = {"name": name, "folder": folder, "state": state(folder), "message": ""}
    run |= {"checkpoint": files[0] if files else None, "config": {}, "results": {}}
    file = {"finished": RESULTS, "failed": FAILED, "pruned": PRUNED}.get(run["state"])
    try:
        content = read_json(folder / file) if file else {}
        if file == RESULTS:
            config = flat(content.pop("config"))
            measured = {k: v for k, v in content.items() if "/" in k or k == "seconds"}
            numbers = {key: float("nan" if v is None else v) for key, v in measured.items()}
            run["results"] = content | numbers
            run["config"] = {key: value for key, value in config.items() if value != {}}
            _ = config["objective.metric"], config["objective.mode"]
        elif file == FAILED:
            run["message"] = first_line(f"{content['type']}: {content['error']}")
        elif file == PRUNED:
            run["message"] = "after epoch {epoch}: {metric}={value:.4f}".format(**content)
            run["results"] = {content["metric"]: content["value"]}
        elif run["state"] == "running" and (folder / "history.csv").exists():
            rows = (folder / "history.csv").read_bytes().count(b"\n")
            run["message"] = f"{rows - 1} epochs done"
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as e:
        why = f"has no {e.args[0]}" if isinstance(e, KeyError) else first_line(str(e))
        run |= {"state": "unreadable", "message": f"{file}: {why}"}
    return run


def read_json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        raise ValueError("not an object of JSON")
    return content


def first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
