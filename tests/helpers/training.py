"""The options of runs of seconds, and a Trainer that writes nothing."""

from typing import Any

import lightning as L

# 20 steps an epoch, 1,000 images to validate on, 1,000 to test on
SHORT = [
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "trainer.limit_train_batches=20",
    "trainer.limit_val_batches=2",
    "trainer.limit_test_batches=2",
]
# half a second: a network that is as small, and nothing beside the training
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
# a fault of helpers/faults.py, at the point that a test's environment names
FAULT = ["targets=[tests.helpers.*]", "+callbacks.fault._target_=tests.helpers.faults.KillAt"]


def bare_trainer(**options: Any) -> L.Trainer:
    """A Trainer on the CPU that writes and shows nothing."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    files = {"logger": False, "enable_checkpointing": False}
    return L.Trainer(**{"accelerator": "cpu", **quiet, **files, **options})
