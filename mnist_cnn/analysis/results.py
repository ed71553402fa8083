"""Results of a finished run: results.json and a printed table."""

import contextlib
import functools
import importlib.metadata
import platform
import re
import subprocess
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from mnist_cnn.runs import terminal
from mnist_cnn.runs.folder import BEST, OF_EPOCH, RESULTS, WEIGHTS

STAGES = {"train": "training", "val": "validation", "test": "test"}
PACKAGES = ("torch", "torchvision", "lightning", "hydra-core", "numpy", "mnist-cnn")


def collect(
    history: Any,
    best_epoch: int | None,
    test: Mapping[str, float],
    module: torch.nn.Module,
    device: torch.device,
    config: Mapping[str, Any],
) -> dict[str, Any]:
    """Collect the content of results.json. `seconds` covers training alone, see `History`.

    Args:
        history: the run's History.
        best_epoch: from 1; None, without a monitored metric, stands for the last.
        test: metrics on the test set, empty if it was not used.
        device: the device of the training.
    """
    rows = history.rows
    net = getattr(module, "net", module)  # a module may train with more than its network
    kept = next((row for row in rows if row["epoch"] == best_epoch), rows[-1] if rows else {})
    return {
        **{key: kept[key] for key in kept if key not in OF_EPOCH},
        **{key: test[key] for key in test if key != "step"},
        "epochs": len(rows),
        "best_epoch": int(kept["epoch"]) if kept else None,
        "seconds": sum(row["seconds"] for row in rows),
        "images/s": len(rows) / sum(1 / row["images/s"] for row in rows) if rows else None,
        "seed": config["seed"],
        "parameters": sum(p.numel() for p in net.parameters()),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processor": processor(),
        "threads": torch.get_num_threads(),
        # torch.__version__ names the build, such as +cpu; the package's version may not
        "versions": {**versions(), "torch": str(torch.__version__)},
        "git_commit": commit(),
        "started": history.run_started.isoformat(timespec="seconds"),
        "finished": now().isoformat(timespec="seconds"),
        "config": config,
    }


def now() -> datetime:
    return datetime.now(timezone.utc)


@functools.cache  # each checkpoint names it
def processor() -> str:
    """Return the processor's model name, or what the platform module knows of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Return the versions of Python and of those of PACKAGES that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def commit() -> str | None:
    """Return the commit of this code's clone, with a + if it was changed; None outside a clone."""
    git = ["git", "-C", str(Path(__file__).parent)]
    ask = functools.partial(subprocess.run, capture_output=True, text=True)
    try:
        # not the commit of another repository that contains the environment
        ours = ask([*git, "ls-files", "--error-unmatch", __file__]).returncode == 0
        names = ["--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
        return ask([*git, "describe", *names]).stdout.strip() or None if ours else None
    except OSError:
        return None


def print_results(results: Mapping[str, Any], folder: Path) -> None:
    """Print the run's metrics and the names of its files."""
    by_stage: dict[str, dict[str, float | None]] = {stage: {} for stage in STAGES}
    for key, value in results.items():
        stage, _, name = key.partition("/")
        if stage in STAGES and name:
            by_stage[stage][name] = value
    names = list(dict.fromkeys(name for metrics in by_stage.values() for name in metrics))
    table = Table("", *names)
    for stage, metrics in by_stage.items():
        cells = [metric_text(name, metrics[name]) if name in metrics else "" for name in names]
        if metrics:
            table.add_row(STAGES[stage], *cells)
    console = terminal.console()
    console.print(table)
    console.print(
        f"best epoch {results['best_epoch']} of {results['epochs']}, seed {results['seed']}, "
        f"{results['parameters']:,} parameters, {results['seconds']:.1f} s"
    )
    written = [name for name in (RESULTS, "history.png", BEST, WEIGHTS) if (folder / name).exists()]
    console.print(f"{folder}: {', '.join(map(str, written))}")


def metric_text(name: str, value: float | None) -> str:
    if value is None:  # it was not finite
        return "null"
    first = name.partition("/")[0]  # of several loaders, acc/dataloader_idx_0
    return f"{value:.2%}" if re.match(r"acc(_|$)", first) else f"{value:.4f}"
