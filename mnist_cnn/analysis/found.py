"""Find and read the runs in folders."""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mnist_cnn.config.messages import must_be
from mnist_cnn.runs import folder as files
from mnist_cnn.runs.terminal import track

MARKS = {files.RESULTS, files.FAILED, files.PRUNED, files.LOCK}  # any marks a run's folder
SWEEPS = {files.SWEEP, files.PENDING}  # or a sweep's, which may be locked, too
# columns of a report: a key of the user's with such a name is shown with a +
OF_A_GROUP = ("rank", "runs", "n", "checkpoint", "seconds")


def find_runs(top: Path) -> Iterator[Path]:
    """Yield the folders of runs at any depth, including `top`; links are followed."""
    seen: set[str] = set()  # links may form a cycle
    for path, folders, names in os.walk(top, followlinks=True):
        if (place := os.path.realpath(path)) in seen:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if not MARKS.isdisjoint(names) and SWEEPS.isdisjoint(names):
            yield Path(path)


def read_runs(folders: Sequence[Path]) -> pd.DataFrame:
    """Read all runs in some folders, each once: one row per run, see `read_run`.

    Raises:
        ValueError: a folder does not exist, or none has a run.
    """
    names: dict[Path, str] = {}
    for top in folders:
        if not top.is_dir():
            raise ValueError(f"{top}: no such folder")
        for path in find_runs(top):
            names[path.resolve()] = str(path.relative_to(top) if len(folders) == 1 else path)
    if not names:
        raise ValueError(f"{', '.join(map(str, folders))}: no runs in there")
    return pd.DataFrame([read_run(path, name) for path, name in track(names.items(), "reading")])


def read_run(folder: Path, name: str) -> dict[str, Any]:
    """Read a run's folder. Errors are reported in `message`, not raised.

    Returns:
        A dict with

        - name, folder, state;
        - message: the first line of its error;
        - checkpoint: the best one, else the last one, else None;
        - config: flat; empty if the run is not finished;
        - results: the content of results.json without `config`;
        - logarithmic: see `searched_in_logs`.
    """
    state = files.state(folder)
    checkpoints = [str(folder / c) for c in (files.BEST, files.LAST) if (folder / c).exists()]
    run: dict[str, Any] = {"name": name, "folder": folder, "state": state, "message": ""}
    run |= {"checkpoint": next(iter(checkpoints), None), "config": {}, "results": {}}
    run["logarithmic"] = searched_in_logs(folder)
    try:
        if state == "failed":
            failure = files.read_json(folder / files.FAILED)
            run["message"] = (failure["error"].strip() or failure["type"]).splitlines()[0]
        if state == "finished":
            results = files.read_json(folder / files.RESULTS)
            if "config" not in results:
                raise ValueError("the results of another program")
            flat = files.flat(results.pop("config"))
            config = {f"+{k}" if k in OF_A_GROUP else k: v for k, v in flat.items() if v != {}}
            names = {"data.fingerprint": None, **config}
            for key in ("objective.metric", "objective.mode", "data.fingerprint"):
                if not isinstance(names[key], str | None):
                    raise TypeError(must_be(key, "text", names[key]))
            metrics = {key: v for key, v in results.items() if "/" in key or key == "seconds"}
            results |= {key: float("nan" if v is None else v) for key, v in metrics.items()}
            run |= {"config": config, "results": results}
    except (OSError, ValueError, TypeError, AttributeError, LookupError, OverflowError) as e:
        message = f"{type(e).__name__}: {e}".replace(f"{folder}{os.sep}", "")
        run |= {"state": "unreadable", "message": message}
    return run


def read_history(folder: Path) -> pd.DataFrame:
    """Read a run's history, one row per epoch; empty if the file is missing or damaged."""
    try:
        history = pd.read_csv(folder / "history.csv").apply(pd.to_numeric)
    except (OSError, ValueError):  # pandas' own errors are ValueErrors
        return pd.DataFrame()
    return history if "epoch" in history else pd.DataFrame()


def searched_in_logs(folder: Path) -> set[str]:
    """Return the keys that a job's sweep searches on a logarithmic scale: tag(log, ...)."""
    texts = []
    for file in (folder.parent / files.SWEEP, folder / files.CONFIG.parent / "hydra.yaml"):
        with contextlib.suppress(OSError, ValueError):
            texts.append(file.read_text("utf-8"))
    return set(re.findall(r"([\w.]+)[=:] ?tag\(log\b", "\n".join(texts)))
