"""States of the runs below some folders, and what resumes them."""

import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from mnist_cnn.analysis.found import read_history, read_runs
from mnist_cnn.analysis.tables import format_metric
from mnist_cnn.runs import folder as files

ORDER = ("running", "interrupted", "failed", "unreadable", "pruned", "finished", "new")
# the file whose modification time is the start of a state
SINCE = {
    "running": files.CONFIG,
    "interrupted": files.LAST,
    "failed": Path(files.FAILED),
    "pruned": Path(files.PRUNED),
    "finished": Path(files.RESULTS),
}
RESUMABLE = ("interrupted", "failed")


def status(folders: Sequence[Path]) -> tuple[pd.DataFrame, list[str]]:
    """Return the states of the runs in some folders, at any depth.

    Returns:
        A row of text for each run, running ones first: its name, its state, the completed epochs,
        the best value of its objective so far, since when it is in that state (a running one: its
        start) and its error; and what resumes interrupted and failed runs, a line for each sweep
        and each run outside of a sweep.
    """
    runs = read_runs(folders).to_dict("records")
    runs.sort(key=lambda run: ORDER.index(run["state"]))
    rows = [row(run["folder"], run["name"], run["state"], run["message"]) for run in runs]
    again = [resumed(run["folder"], folders) for run in runs if run["state"] in RESUMABLE]
    return pd.DataFrame(rows), list(dict.fromkeys(again))


def row(folder: Path, name: str, state: str, message: str) -> dict[str, str]:
    """Return the row of a run, with dashes for values that cannot be read."""
    config, history = read_recorded(folder / files.CONFIG), read_history(folder)
    epoch, best = "-", "-"
    metric, mode = (str(config.get(f"objective.{key}")) for key in ("metric", "mode"))
    if len(history):
        epoch = f"{history['epoch'].iloc[-1]:.0f}/{config.get('trainer.max_epochs', '-')}"
    if metric in history and mode in ("min", "max"):
        value = history[metric].agg(mode)
        best = f"{metric} {format_metric(metric, value)}"
    return {
        "run": name,
        "state": state,
        "epoch": epoch,
        "best": best,
        "since": since(folder, state),
        "message": message,
    }


def read_recorded(file: Path) -> dict[str, Any]:
    """Read the recorded configuration of a run, or a sweep's file, flat; empty if unreadable."""
    try:
        content = yaml.safe_load(file.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return files.flat(content) if isinstance(content, dict) else {}


def since(folder: Path, state: str) -> str:
    """Return the local time at which a run's state began; if interrupted, its last checkpoint's."""
    for file in (SINCE.get(state, files.CONFIG), files.CONFIG):
        if (folder / file).exists():
            written = datetime.fromtimestamp((folder / file).stat().st_mtime)
            return written.isoformat(" ", "minutes")
    return "-"


def resumed(run: Path, folders: Sequence[Path]) -> str:
    """Return what resumes a run, or its sweep if that is in one of the folders."""
    tops = {top.resolve() for top in folders}
    inside = [parent for parent in run.parents if any(map(parent.is_relative_to, tops))]
    place = next(filter(files.is_sweep, inside), run)
    home = Path.cwd()
    shown = place.relative_to(home) if place.is_relative_to(home) else place
    if place == run and not (run / files.OVERRIDES).is_file():  # started from Python
        return files.how_to_resume(shown)
    owner = read_recorded(place / files.SWEEP).get("application", "train")
    if owner != "train":  # a sweep of another Hydra application
        return f"the command of {owner} with hydra.sweep.dir={shlex.quote(str(shown))}"
    return f"python -m mnist_cnn.train ckpt_path={shlex.quote(str(shown))}"
