"""Options for runs that take seconds, and a Trainer that writes nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np

from mnist_cnn.analysis.networks import as_trained
from mnist_cnn.config.compose import compose, tutorial
from mnist_cnn.evaluate import evaluate
from mnist_cnn.module import DigitClassifier
from mnist_cnn.train import train

# 20 steps per epoch, 1,000 images to validate on, 1,000 to test on
SHORT = [
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "trainer.limit_train_batches=20",
    "trainer.limit_val_batches=2",
    "trainer.limit_test_batches=2",
]
# half a second: a tiny network, and nothing besides training
TINY = [
    *SHORT,
    "trainer.limit_train_batches=10",
    "trainer.limit_val_batches=1",
    "model.channels=[4,4]",
    "model.hidden=8",
    "test=false",
    "logger=none",
    "callbacks.summary=null",
]
# a fault at the point given by the environment
FAULT = "+callbacks.fault._target_=mnist_cnn.checks.faults.KillAt"


def trained(folder: Path, *overrides: str) -> Path:
    """Train a run of TINY with these options in a folder, and return the folder."""
    train(compose([*TINY, *overrides], run_dir=folder, run_name="x"))
    return folder


def save_arrays(path: Path, shape: Any = (3, 32, 32), count: int = 20, **changes: Any) -> None:
    """Write 600 noise images for training and 100 for testing, in `count` classes in turn."""
    chance, arrays = np.random.default_rng(0), dict[str, Any]()
    for split, n in (("train", 600), ("test", 100)):
        arrays[f"x_{split}"] = chance.integers(0, 256, (n, *shape), np.uint8)
        arrays[f"y_{split}"] = np.arange(n) % count
    np.savez(path, **{**arrays, **changes})


def save_untrained(path: Path, data: Mapping[str, Any]) -> Path:
    """Write a tiny untrained network of 28x28 images with this description of its data."""
    size = {"channels": [4, 4], "hidden": 8, "classes": len(data["classes"])}
    DigitClassifier(model=tutorial("model") | size).save_weights(path, {"data": data})
    return path


def evaluated(ckpt_path: Path | str, folder: Path, *overrides: str) -> dict[str, Any]:
    """Evaluate a network, with the files in a folder, and return the content of evaluation.json."""
    argv = as_trained([f"ckpt_path={ckpt_path}", *overrides])
    given = [o for o in argv if not o.startswith("hydra")]
    return evaluate(compose(given, run_dir=folder, entry="evaluate"))


def bare_trainer(**options: Any) -> L.Trainer:
    """Make a Trainer on the CPU that writes and prints nothing."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    files = {"logger": False, "enable_checkpointing": False}
    return L.Trainer(**{"accelerator": "cpu", **quiet, **files, **options})
