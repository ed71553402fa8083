"""What two runs leave, compared bit for bit."""

import csv
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist_cnn.runs.state import LAST, RESULTS

MEASURED = {"seconds", "images/s", "elapsed", "started", "finished"}
# where a run is resumed from, how often it saves, and how long it was to be, is no result
ASKED = {
    f"{file}: config.{key}"
    for file in ("results.json", "last.ckpt", "best.ckpt")
    for key in (
        "ckpt_path",
        "callbacks.checkpoint.every_steps",
        "callbacks.checkpoint.every_seconds",
        "trainer.max_epochs",
    )
}
OTHERS = {name: f"not the run's: {name}" for name in ("notes.txt", "checkpoints/notes.txt")}


def contents(run: Path) -> dict[str, Any]:
    """All that a finished run leaves, as `file: key` -> tensor, number or text."""
    (events,) = (run / "tensorboard").iterdir()
    with (run / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    found: dict[str, Any] = {
        "weights.safetensors": load_file(run / "weights.safetensors"),
        "history.csv": history,
        "results.json": json.loads((run / RESULTS).read_text()),
        "tensorboard": logged(events),
    }
    for name in ("last.ckpt", "best.ckpt"):
        found[name] = torch.load(run / "checkpoints" / name, weights_only=True)
    found["files"] = {
        str(path.relative_to(run)): path.is_file()
        for path in run.rglob("*")
        if "tfevents" not in path.name and str(path.relative_to(run)) not in OTHERS
    }
    leaves = {}
    for name, content in found.items():
        for keys, value in flat(content):
            key = f"{name}: {'.'.join(keys)}"
            if not MEASURED & set(keys) and key not in ASKED:
                leaves[key] = value.replace(str(run), "RUN") if isinstance(value, str) else value
    return leaves


def flat(value: Any, *keys: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The leaves of nested dicts and lists, each with the keys that lead to it."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from flat(part, *keys, str(key))
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from flat(part, *keys, str(i))
    else:
        yield keys, value


def logged(folder: Path) -> dict[str, Any]:
    """TensorBoard's events of each kind and tag, without the time when they were written."""
    kinds = ("scalars", "histograms", "images", "tensors")
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of every restart
    events = EventAccumulator(str(folder), dict.fromkeys(kinds, 0)).Reload()
    return {
        f"{kind} {tag}": {
            # where a run goes on, TensorBoard drops what is logged anew, but for tensors
            f"event {event.step if kind == 'tensors' else i}": repr(replace(event, wall_time=0))
            for i, event in enumerate(getattr(events, kind.capitalize())(tag))
        }
        for kind in kinds
        for tag in events.Tags()[kind]
    }


def differences(whole: Mapping[str, Any], cut: Mapping[str, Any]) -> list[str]:
    """A line for each leaf of `contents` that is not the same, bit for bit, in both runs."""
    lines = []
    for key in dict.fromkeys([*whole, *cut]):
        if key not in cut:
            lines.append(f"{key}: missing")
        elif key not in whole:
            lines.append(f"{key}: too much")
        elif isinstance(whole[key], torch.Tensor) and isinstance(cut[key], torch.Tensor):
            a, b = whole[key], cut[key]
            if (a.dtype, a.shape) != (b.dtype, b.shape):
                lines.append(f"{key}: {b.dtype} {tuple(b.shape)}, not {a.dtype} {tuple(a.shape)}")
            elif a.numpy().tobytes() != b.numpy().tobytes():
                wrong = int((a != b).sum())
                most = (a.double() - b.double()).abs().max()
                lines.append(f"{key}: {wrong} of {a.numel()} differ, by up to {most:.1e}")
        elif repr(whole[key]) != repr(cut[key]):  # a nan is like another, -0.0 is not like 0.0
            lines.append(f"{key}: {str(cut[key])[:80]}, not {str(whole[key])[:80]}")
    return lines


def kept(run: Path) -> tuple[int, int] | None:
    """Epochs and steps behind the checkpoint that a run goes on from; None where there is none.

    Raises whatever torch raises for a file that is not whole.
    """
    if not (run / LAST).exists():
        return None
    content = torch.load(run / LAST, weights_only=True)
    return content["epoch"], content["global_step"]
