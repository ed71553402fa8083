"""Measures how training shares the processors: python -m benchmarks.threads [--rounds N]

Trains experiment=fast in processes of their own, on a quiet machine and beside one busy process,
interleaved, once for each setting of how threads wait at a barrier:

  ours     this project's choice: sleep where the machine is busy when training starts, else spin
  spin     the OpenMP library's own
  sleep    GOMP_SPINCOUNT=0
  1 thread OMP_NUM_THREADS=1
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rich.progress import track
from rich.table import Table

from mnist_cnn import terminal
from mnist_cnn.internals import threads
from mnist_cnn.report import docstring_parser
from mnist_cnn.runs import results

SETTINGS: dict[str, dict[str, str]] = {
    "ours": {},
    "spin": {threads.SPIN: "300000"},  # what the library takes where nothing is set
    "sleep": {threads.SPIN: "0"},
    "1 thread": {"OMP_NUM_THREADS": "1"},
}
PATIENCE = 90  # seconds until a training counts as that long


def train_seconds(setting: Mapping[str, str], folder: Path) -> float:
    """Seconds of training of one run of experiment=fast."""
    clean = {k: v for k, v in os.environ.items() if k not in threads.SETTINGS}
    command = [sys.executable, "-m", "mnist_cnn.train", "experiment=fast", "test=false"]
    command += ["logger=none", f"hydra.run.dir={folder}"]
    try:
        subprocess.run(
            command, env={**clean, **setting}, timeout=PATIENCE, check=True, capture_output=True
        )
    except subprocess.TimeoutExpired:
        return PATIENCE
    return json.loads((folder / "results.json").read_text())["seconds"]


def measure_settings(rounds: int) -> dict[tuple[str, str], list[float]]:
    """Seconds by (setting, machine), interleaved; the machine is quiet or busy."""
    found: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for turn in track(range(rounds), "measuring", console=terminal.console(stderr=True)):
            for machine in ("quiet", "busy"):
                loop = "while True: pass" if machine == "busy" else ""
                with subprocess.Popen([sys.executable, "-c", loop]) as other:
                    for name, setting in SETTINGS.items():
                        folder = Path(scratch, f"{turn}-{machine}-{name}")
                        found.setdefault((name, machine), []).append(train_seconds(setting, folder))
                    other.kill()
    return found


def main() -> None:
    parser = docstring_parser("benchmarks.threads", __doc__)
    parser.add_argument("--rounds", type=int, default=5, help="number of interleaved rounds (5)")
    rounds = parser.parse_args().rounds
    found = measure_settings(rounds)
    table = Table("threads wait", "quiet, s", "busy, s", "busy: min to max")
    for name in SETTINGS:
        quiet, busy = found[name, "quiet"], found[name, "busy"]
        table.add_row(
            name,
            f"{statistics.median(quiet):.2f}",
            f"{statistics.median(busy):.2f}",
            f"{min(busy):.2f} to {max(busy):.2f}",
        )
    console = terminal.console()
    console.print(table)
    console.print(
        f"seconds of training of experiment=fast, medians of {rounds} rounds; busy: beside one "
        f"busy process; {PATIENCE} s is a time-out; {os.cpu_count()} processors, "
        f"{results.processor()}"
    )


if __name__ == "__main__":
    main()
