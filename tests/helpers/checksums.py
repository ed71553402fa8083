"""Print SHA-256 sums of the weights of short runs: python -m tests.helpers.checksums [NAME ...]

Run it before and after a change that must keep results bitwise identical, with the same machine,
number of threads and release of PyTorch, on which the sums depend.
"""

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from safetensors.numpy import load_file

SHORT = ["data.val_fraction=0.2", "trainer.limit_val_batches=2", "test=false", "logger=none"]
RUNS = {
    "article": ["trainer.max_epochs=3", "trainer.limit_train_batches=40"],
    "fast": ["experiment=fast", "trainer.limit_train_batches=40"],
    "averaged": [
        *("model=vgg", "callbacks=averaging", "augment=mild", "trainer.max_epochs=2"),
        "trainer.limit_train_batches=20",
    ],
    "writers": ["data.split=writers", "trainer.max_epochs=2", "trainer.limit_train_batches=40"],
    "freeze": ["module.freeze=[conv1]", "trainer.max_epochs=2", "trainer.limit_train_batches=20"],
    "resumed": ["trainer.max_epochs=2", "trainer.limit_train_batches=40"],
    "ddp": [
        *("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_epochs=1"),
        "trainer.limit_train_batches=20",
    ],
}


def train(folder: Path, *overrides: str) -> None:
    command = [sys.executable, "-m", "mnist_cnn.train", *overrides]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def checksum(weights: Path) -> str:
    """Return the SHA-256 of the tensors of a weights file, sorted by name, without its metadata."""
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(weights).items()):
        digest.update(name.encode() + tensor.tobytes())
    return digest.hexdigest()


def main() -> None:
    for name in sys.argv[1:] or RUNS:
        with tempfile.TemporaryDirectory() as place:
            folder, run = Path(place), f"hydra.run.dir={place}/run"
            train(folder, *SHORT, *RUNS[name], run)
            if name == "resumed":
                train(folder, f"ckpt_path={place}/run", "trainer.max_epochs=4")
            print(f"{name:10} {checksum(folder / 'run' / 'weights.safetensors')}", flush=True)


if __name__ == "__main__":
    main()
