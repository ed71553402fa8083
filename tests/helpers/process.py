"""Run commands in subprocesses."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mnist_cnn

PACKAGE = Path(mnist_cnn.__file__).parents[1]  # the clone, or where it is installed
TESTS = Path(__file__).parents[2]  # contains tests.helpers
PATIENCE = 300  # timeout of a process in seconds


def environment(**more: str) -> dict[str, str]:
    """Return the environment of subprocesses: this package, its data, two threads unless set."""
    path = os.pathsep.join(dict.fromkeys(map(str, (PACKAGE, TESTS))))
    return {"OMP_NUM_THREADS": "2", **os.environ, "PYTHONPATH": path, **more}


def start(
    folder: Path,
    *command: str,
    output: int = subprocess.PIPE,
    within: Sequence[str] = (),
    **more: str,
) -> "subprocess.Popen[str]":
    """Start `python -m COMMAND`, or a file, in a folder and a new process group.

    Args:
        within: a program that starts it, with its options.
        more: environment variables. By default there is one thread, as rounding depends on their
            number.
    """
    module = [] if command[0].endswith(".py") else ["-m"]
    return subprocess.Popen(
        [*within, sys.executable, *module, *command],
        cwd=folder,
        env={**environment(), "OMP_NUM_THREADS": "1", **more},
        stdout=output,
        stderr=output,
        text=True,
        start_new_session=True,
    )


def finish(process: "subprocess.Popen[str]", seconds: float = PATIENCE) -> tuple[int, str, str]:
    """Wait for a process, return exit code, stdout and stderr, and kill its process group."""
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, err


def run(folder: Path, *command: str, **more: Any) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    return subprocess.CompletedProcess(command, *finish(start(folder, *command, **more)))


def wait_for(condition: Callable[[], Any], process: "subprocess.Popen[str]") -> None:
    """Wait until the condition holds, while the process runs."""
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
