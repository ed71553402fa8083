"""Print a checksum of the weights that short runs of each kind end with.

    python -m tests.helpers.checksums [NAME ...]

A change that is to leave training as it is prints the same lines before and after it, on one
machine. One thread, so that the sums do not depend on the number of processors.
"""

import hashlib
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

from mnist_cnn.config.compose import compose
from mnist_cnn.runs.folder import WEIGHTS
from mnist_cnn.train import train
from tests.helpers.own_data import OWN
from tests.helpers.training import SHORT

RUNS = {
    "article": [],
    "long": ["trainer.limit_train_batches=60", "trainer.max_epochs=9", "optimizer.lr=0.01"],
    "plateau": ["scheduler.threshold=10", "scheduler.patience=0", "trainer.max_epochs=4"],
    "rarely validated": ["trainer.check_val_every_n_epoch=2", "trainer.max_epochs=4"],
    "validated often": ["trainer.val_check_interval=5"],
    "fast": ["experiment=fast"],
    "tiny": ["experiment=tiny"],
    "accurate": ["experiment=accurate", "data.batch_size=16"],
    "certified": ["experiment=certified", "data.batch_size=16"],
    "few labels": ["experiment=few_labels", "data.batch_size=16"],
    "photo": ["augment=photo", "scheduler=one_cycle_cosine", "optimizer=sgd"],
    "accumulated": ["trainer.accumulate_grad_batches=3", "scheduler=cosine", "optimizer=adamw"],
    "muon, clipped": ["optimizer=muon", "trainer.gradient_clip_val=0.5"],
    "averaged": ["callbacks=averaging", "callbacks.averaging.update_every_n_steps=3"],
    "normalised": ["model.mean=auto", "model.std=auto", "module.label_smoothing=0.1"],
    "frozen": ["module.freeze=[conv1]", "model.dropout=0.3"],
    "64 bits": ["trainer.precision=64-true"],
    "own loss": ["+loss._target_=torch.nn.MultiMarginLoss"],
    "own data": [*OWN, "trainer.limit_val_batches=1.0", "trainer.limit_test_batches=1.0"],
    "two processes": ["trainer=ddp", "trainer.devices=2", "model.dropout=0.3"],
    "pages": [
        *("experiment=reader", "data.pages=16", "data.val_pages=4", "data.batch_size=4"),
        *("model.width=8", "data.workers=0"),
    ],
}


def checksum(name: str, folder: Path) -> str:
    """Train a run in a folder, and return a checksum of its weights file's tensors."""
    options = [*SHORT, "logger=none", "callbacks.summary=null", *RUNS[name], "run_name=x"]
    train(compose([*options, "trainer.accelerator=cpu"], run_dir=folder))
    digest = hashlib.sha256()
    for key, value in sorted(load_file(folder / WEIGHTS).items()):
        digest.update(key.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def main() -> None:
    torch.set_num_threads(1)
    for name in sys.argv[1:] or RUNS:
        with tempfile.TemporaryDirectory() as folder:
            print(f"{name:<20} {checksum(name, Path(folder, 'run'))}", flush=True)


if __name__ == "__main__":
    main()
