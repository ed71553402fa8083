"""What a run leaves in its folder, read back."""

import csv
import json
import os
from pathlib import Path

import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist_cnn import pretrained
from mnist_cnn.data import mnist
from mnist_cnn.runs import state

TIMES = ("seconds", "images/s", "elapsed", "started")


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open() as file:
        return list(csv.DictReader(file))


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of each scalar of the run, as TensorBoard shows them."""
    (folder,) = (run / "tensorboard").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def histogram_steps(run: Path) -> list[int]:
    (folder,) = (run / "tensorboard").iterdir()
    events = EventAccumulator(str(folder), {"histograms": 0}).Reload()
    return [event.step for event in events.Histograms("conv1/weight")]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "weights.safetensors")


@torch.no_grad()
def measured(run: Path) -> tuple[float, float]:
    """Loss and accuracy of a run's network on all 10,000 test images."""
    images, labels = mnist.load_split("mnist", os.environ["MNIST_CNN_DATA"], "test")
    assert len(images) == 10_000
    net = pretrained.load(run)
    p = torch.cat([net(batch) for batch in images.split(500)]).double()
    losses = -p[torch.arange(len(p)), labels].log()
    return losses.mean().item(), (p.argmax(1) == labels).double().mean().item()


def only_run(folder: Path) -> Path:
    (run,) = folder.glob("outputs/*/*/")
    return run


def plain(value):
    """A state with tensors as lists and without what is measured, to be compared with ==."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k not in TIMES}
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def end(run: Path) -> dict:
    """All that a finished run left behind, apart from what was measured."""
    with (run / "history.csv").open() as file:
        history = [plain(row) for row in csv.DictReader(file)]
    results = json.loads((run / "results.json").read_text())
    last = torch.load(run / state.LAST, weights_only=True)
    keys = ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "processes", "epoch")
    return {
        "history": history,
        "results": {key: results[key] for key in results if "/" in key and key != "images/s"},
        "weights": plain(load_file(run / "weights.safetensors")),
        "last": plain({key: last[key] for key in keys}),
        "not averaged": plain(last.get("current_model_state")),
    }
