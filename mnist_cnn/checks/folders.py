"""Read the files in the folders of runs, and compare them bit for bit."""

import hashlib
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

# no results: measured times, and how a run was interrupted and resumed
MEASURED = {"seconds", "images/s", "elapsed", "started", "finished", "ckpt_path", "run_dir"}
MEASURED |= {"every_steps", "every_seconds", "git_commit"}
# Lightning's step counter for loggers, which is one too high after some resumes
MEASURED |= {"_batches_that_stepped"}
FOREIGN = {name: f"not the run's: {name}" for name in ("notes.txt", "checkpoints/notes.txt")}


def rows(run: Path) -> list[dict[Any, Any]]:
    """Return the rows of a run's history as text."""
    table = pd.read_csv(run / "history.csv", dtype=str, keep_default_na=False)
    return table.to_dict("records")


def results(run: Path) -> dict[str, Any]:
    return json.loads((run / "results.json").read_text("utf-8"))


def last(run: Path) -> dict[str, Any]:
    """Load last.ckpt; raise whatever torch raises if it is incomplete."""
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "weights.safetensors")


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the (step, value) pairs of each scalar of a run, as TensorBoard shows them.

    They have the names that they were logged by; those of the run `results` begin with it.
    """
    found = {}
    for part in ("train", "val", "results"):
        events = accumulated(run / part)
        for tag in events.Tags()["scalars"]:
            name = tag.replace("curves", part, 1) if part != "results" else f"{part}/{tag}"
            found[name] = [(e.step, e.value) for e in events.Scalars(tag)]
    return found


def accumulated(folder: Path) -> EventAccumulator:
    """Read the event files of a folder."""
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it logs every restart
    with tempfile.TemporaryDirectory() as place:
        # zero-padded, the numbers of files from the same second sort 9 before 10
        for file in folder.glob("events.*"):
            name = re.sub(r"\.(\d+)$", lambda m: f".{m[1]:0>6}", file.name)
            shutil.copy(file, Path(place, name))
        return EventAccumulator(place).Reload()


def files(folder: Path) -> dict[str, bytes]:
    """Return the contents of all files below a folder, by their relative paths."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def contents(run: Path) -> dict[str, str]:
    """Return what a finished run wrote: `file: key` -> number, text or a tensor's checksum."""
    found: dict[str, Any] = {
        "history.csv": rows(run),
        "results.json": results(run),
        "files": {name: name for name in files(run) if "tfevents" not in name},
    }
    if (run / "weights.safetensors").exists():  # of a classifier
        found["weights.safetensors"] = weights(run)
    if any(run.glob("*/events.*")):
        found["tensorboard"] = scalars(run)
    for file in (run / "checkpoints").glob("*.ckpt"):
        found[file.name] = torch.load(file, weights_only=True)
    leaves = {}
    for name, content in found.items():
        for keys, value in flat(content):
            if not (MEASURED | FOREIGN.keys()) & set(keys):
                text = text_of(value).replace(str(run), "RUN").replace(str(run.parent), "SWEEP")
                leaves[f"{name}: {'.'.join(keys)}"] = text
    return leaves


def flat(value: Any, *keys: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the leaves of nested dicts and lists, each as (keys, value)."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from flat(part, *keys, str(key))
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from flat(part, *keys, str(i))
    else:
        yield keys, value


def text_of(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return repr(value)  # NaN equals NaN, and -0.0 differs from 0.0
    digest = hashlib.sha256(value.numpy().tobytes()).hexdigest()[:12]
    return f"{value.dtype} {tuple(value.shape)} {digest}"


def differences(whole: Path, cut: Path) -> list[str]:
    """Return a line for each difference, bit for bit, between two runs' folders."""
    one, two = contents(whole), contents(cut)
    keys = dict.fromkeys([*one, *two])
    changed = {key: (one.get(key), two.get(key)) for key in keys if one.get(key) != two.get(key)}
    return [f"{key}: {new}, not {old}" for key, (old, new) in changed.items()]
