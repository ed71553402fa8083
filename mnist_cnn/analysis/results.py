"""The results of a finished run, for people and programs: results.json and a table."""

import contextlib
import functools
import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from mnist_cnn import terminal
from mnist_cnn.data.datamodule import MNISTDataModule
from mnist_cnn.data.mnist import hits_by_labels

PACKAGES = ("torch", "torchvision", "lightning", "hydra-core", "numpy", "mnist-cnn")


def collect(
    history: Any,
    best_epoch: int | None,
    test: Mapping[str, float],
    module: torch.nn.Module,
    device: torch.device,
    config: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that results.json holds. `seconds` are of training alone, see `History`.

    Args:
        history: the run's History.
        best_epoch: from 1; None where no metric chose one: the last.
        test: metrics on the test set, empty where it was not looked at.
        device: where the module was trained.
    """
    rows = history.rows
    kept = next((row for row in rows if row["epoch"] == best_epoch), rows[-1] if rows else {})
    metrics = {key: kept[key] for key in kept if "/" in key and key != "images/s"}
    return {
        **metrics,
        **{key: test[key] for key in test if "/" in key},
        "epochs": len(rows),
        "best_epoch": int(kept["epoch"]) if kept else None,
        "seconds": sum(row["seconds"] for row in rows),
        "images/s": len(rows) / sum(1 / row["images/s"] for row in rows) if rows else None,
        "seed": config["seed"],
        "parameters": sum(p.numel() for p in module.parameters()),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processor": processor(),
        "threads": torch.get_num_threads(),
        # PyTorch's own version names its build, as +cpu, which the package's may not
        "versions": {**versions(), "torch": str(torch.__version__)},
        "git_commit": commit(),
        "started": history.run_started.isoformat(timespec="seconds"),
        "finished": now().isoformat(timespec="seconds"),
        "config": config,
    }


def label_accuracies(trainer: Any, module: Any, data: Any) -> dict[str, float]:
    """test/acc_sound and test/acc_corrected of the test that has ended; {} of a set but MNIST.

    As `hits_by_labels` has them, over the images of all processes.
    """
    if not isinstance(data, MNISTDataModule) or data.name != "mnist":
        return {}
    epoch, world = module.epoch_metrics["test"], trainer.world_size
    predicted, labels = torch.cat(epoch.logits).argmax(1).cpu(), torch.cat(epoch.labels).cpu()
    batches = torch.arange(len(data.rows["test"])).split(data.eval_batch_size)
    rows = torch.cat([batch[trainer.global_rank :: world] for batch in batches])[: len(labels)]
    found = {}
    for name, hits in hits_by_labels(predicted, labels, rows).items():
        counts = torch.tensor([int(hits.sum()), len(hits)], device=trainer.strategy.root_device)
        correct, images = trainer.strategy.reduce(counts, reduce_op="sum").tolist()
        found[f"test/acc_{name}"] = correct / images
    return found


def now() -> datetime:
    return datetime.now(timezone.utc)


def processor() -> str:
    """The processor's own name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """The versions of Python and of PACKAGES; a clone that is not installed has none of its own."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def commit() -> str | None:
    """The commit of the clone that this code lies in, with a + where it was changed; else None."""
    git = ["git", "-C", str(Path(__file__).parent)]
    ask = functools.partial(subprocess.run, capture_output=True, text=True)
    try:
        # not that of an environment inside somebody else's repository
        ours = ask([*git, "ls-files", "--error-unmatch", __file__]).returncode == 0
        names = ["--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
        return ask([*git, "describe", *names]).stdout.strip() or None if ours else None
    except OSError:
        return None


def print_results(results: Mapping[str, Any], folder: Path) -> None:
    """Prints the run's table and where its files are."""
    table = Table("", "loss", "accuracy")
    for stage, name in (("train", "training"), ("val", "validation"), ("test", "test")):
        if f"{stage}/loss" in results:
            loss, accuracy = results[f"{stage}/loss"], results[f"{stage}/acc"]
            table.add_row(name, f"{loss:.4f}", f"{accuracy:.2%}")
    console = terminal.console()
    console.print(table)
    console.print(
        f"best epoch {results['best_epoch']} of {results['epochs']}, seed {results['seed']}, "
        f"{results['parameters']:,} parameters, {results['seconds']:.1f} s"
    )
    names = ("results.json", "history.png", "checkpoints/best.ckpt", "weights.safetensors")
    console.print(f"{folder}: {', '.join(name for name in names if (folder / name).exists())}")
