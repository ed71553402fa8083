"""The options of a run of seconds, and a Trainer that writes nothing."""

from typing import Any

import lightning as L

# a run of seconds: 20 steps an epoch, 1,000 images to validate on, 1,000 to test on
SHORT = [
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "trainer.limit_train_batches=20",
    "trainer.limit_val_batches=2",
    "trainer.limit_test_batches=2",
]


def bare_trainer(**options: Any) -> L.Trainer:
    """A Trainer on the CPU that writes and shows nothing."""
    return L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
