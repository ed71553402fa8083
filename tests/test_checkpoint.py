"""Interrupted equals uninterrupted; what is damaged, changed or not finite is refused."""

import csv
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mnist_cnn import callbacks, runs
from mnist_cnn.config import Interrupted, compose
from mnist_cnn.train import train
from tests.conftest import SHORT

MEASURED = ("seconds", "images/s", "elapsed")


def plain(value):
    """A state with tensors as lists and without what is measured, to be compared with ==."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k not in MEASURED}
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def end(run: Path) -> dict:
    """All that a finished run left behind, apart from what was measured."""
    with (run / "history.csv").open() as file:
        history = [plain(row) for row in csv.DictReader(file)]
    results = json.loads((run / "results.json").read_text())
    last = torch.load(run / runs.LAST, weights_only=True)
    keys = ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "processes", "epoch")
    return {
        "history": history,
        "results": {key: results[key] for key in results if "/" in key and key != "images/s"},
        "weights": plain(load_file(run / "weights.safetensors")),
        "last": plain({key: last[key] for key in keys}),
    }


@pytest.fixture
def stop_at(monkeypatch):
    """Sends this process a signal during a step (from 1, over all epochs)."""

    def at(step: int, number: int = signal.SIGTERM) -> None:
        def kill(self, trainer, pl_module, batch, batch_idx):
            if trainer.current_epoch * trainer.num_training_batches + batch_idx + 1 == step:
                os.kill(os.getpid(), number)

        monkeypatch.setattr(callbacks.Finite, "on_train_batch_start", kill)

    return at


RECIPES = {
    "plateau": ["scheduler.threshold=10", "scheduler.patience=0", "model.dropout=0.3"],
    "one cycle, sgd, augmented": ["scheduler=one_cycle", "optimizer=sgd", "augment=photo"],
    "accumulated gradients": ["trainer.accumulate_grad_batches=3", "scheduler=cosine"],
    "clipped, no best": ["trainer.gradient_clip_val=0.1", "trainer.limit_val_batches=0"],
}


@pytest.mark.parametrize("recipe", [r for r in RECIPES if r != "clipped, no best"])
def test_a_run_that_was_stopped_again_and_again_ends_like_one_that_was_not(
    tmp_path, stop_at, recipe
):
    options = [*SHORT, *RECIPES[recipe], "trainer.max_epochs=3", "logger=none"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(compose(options, run_dir=whole))

    again: list[str] = []
    # in the first step, in the middle, in an epoch's last step and first step, in the last of all
    for step in (1, 7, 20, 21, 33, 40, 60):
        stop_at(step)
        with pytest.raises(Interrupted, match=f"SIGTERM; go on with ckpt_path={cut}"):
            train(compose([*options, *again], run_dir=cut))
        again = [f"ckpt_path={cut / runs.LAST}"]
        torch.manual_seed(99)  # whatever the process drew meanwhile
    stop_at(0)
    train(compose([*options, *again], run_dir=cut))
    assert end(cut) == end(whole)
