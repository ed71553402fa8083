"""Commands as processes of their own."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mnist_cnn

PACKAGE = Path(mnist_cnn.__file__).parents[1]  # of the clone, or installed
TESTS = Path(__file__).parents[2]  # tests.helpers lies there
PATIENCE = 300  # seconds that a process may take


def environment(**more: str) -> dict[str, str]:
    """For processes that tests start: this package, this data folder, two threads if not set."""
    path = os.pathsep.join(dict.fromkeys(map(str, (PACKAGE, TESTS))))
    return {"OMP_NUM_THREADS": "2", **os.environ, "PYTHONPATH": path, **more}


def start(
    folder: Path, *command: str, output: int = subprocess.PIPE, **more: str
) -> "subprocess.Popen[str]":
    """Begin `python -m COMMAND`, or that of a file, in a folder, as the first of a group.

    Args:
        more: environment variables. There is one thread, since rounding depends on their number.
    """
    module = [] if command[0].endswith(".py") else ["-m"]
    return subprocess.Popen(
        [sys.executable, *module, *command],
        cwd=folder,
        env={**environment(), "OMP_NUM_THREADS": "1", **more},
        stdout=output,
        stderr=output,
        text=True,
        start_new_session=True,
    )


def finish(process: "subprocess.Popen[str]", seconds: float = PATIENCE) -> tuple[int, str, str]:
    """Wait for the end: exit code, stdout and stderr. Nothing of its group is left behind."""
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, err


def run(folder: Path, *command: str, **more: Any) -> "subprocess.CompletedProcess[str]":
    """Start a command and wait for its end."""
    return subprocess.CompletedProcess(command, *finish(start(folder, *command, **more)))


def wait_for(condition: Callable[[], Any], process: "subprocess.Popen[str]") -> None:
    """Wait, as long as the process runs, until the condition holds."""
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
