"""Commands and runs as processes of their own."""

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
from mnist_cnn.runs.folder import LAST, OVERRIDES, RESULTS

PATIENCE = 300  # seconds that a process may take
GRACE = 30  # seconds that its ranks may take to end after torchrun
TIGHT = 0.0002  # seconds between two looks at a file that is there for milliseconds


def environment() -> dict[str, str]:
    """For processes that tests start: this package, this data folder, two threads if not told."""
    package = Path(mnist_cnn.__file__).parents[1]  # of the clone, or installed
    return {"OMP_NUM_THREADS": "2", **os.environ, "PYTHONPATH": str(package)}


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    """Waits, as long as the process runs, until the condition holds."""
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Piece:
    """One process of a run: from its start, or from where it was interrupted, to its end.

    Args:
        folder: the run's, an absolute path; its parent must exist.
        overrides: the configuration of a run that has not begun.
        resumed: what is asked of a run that has.
        new: whether the run is a new one, whatever is there.
    """

    def __init__(
        self,
        folder: Path,
        overrides: Sequence[str],
        resumed: Sequence[str] = (),
        new: bool = False,
    ):
        self.folder = folder
        self.stderr = folder.with_suffix(".err")
        begun = (folder / OVERRIDES).exists() and not new
        anew = [*overrides, f"hydra.run.dir={folder}", "run_name=x"]
        command = [f"ckpt_path={folder}", *resumed] if begun else anew
        self.ddp = "trainer=ddp" in overrides
        torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
        self.logs = self.list_logs()
        self.opened: float | None = None
        self.start, self.date = time.monotonic(), time.time()
        with self.stderr.open("w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *torchrun[: 4 * self.ddp], "mnist_cnn.train", *command],
                cwd=folder.parent,
                # rounding depends on the number of threads
                env={**environment(), "OMP_NUM_THREADS": "1"},
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )

    @property
    def age(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self.start

    def list_logs(self) -> set[Path]:
        return set(self.folder.glob("tensorboard/*/*tfevents*"))

    def training(self) -> bool:
        """Whether it has begun to train, for which it opens a file for TensorBoard."""
        if self.opened is None and self.list_logs() - self.logs:
            self.opened = self.age
        return self.opened is not None

    def unfinished(self) -> str | None:
        """The checkpoint that is being written, under another name than it will have."""
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.folder / LAST.parent):
                if name.endswith(".new"):
                    return name
        return None

    def wait_for(self, condition: Callable[[], Any], pause: float = 0.005) -> bool:
        """Waits until the condition is true; False where the process ends before."""
        while not condition():
            if self.process.poll() is not None:
                return False
            if self.age > PATIENCE:
                raise TimeoutError(f"{self.folder}: waited {PATIENCE} s")
            time.sleep(pause)
        return self.process.poll() is None

    def has_results(self) -> bool:
        """Whether it has written the run's results."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / RESULTS).stat().st_mtime > self.date
        return False

    def stop_while(self, condition: Callable[[], Any]) -> bool:
        """Stops it (SIGSTOP) in a condition of milliseconds; False where it ends before."""
        while self.wait_for(condition, TIGHT):
            self.hit(signal.SIGSTOP)
            time.sleep(0.002)  # until the system has done so
            if condition():
                return True
            self.hit(signal.SIGCONT)
        return False

    def processes(self) -> list[int]:
        """The ids of its processes, as long as the first of them runs."""
        if self.process.poll() is not None:
            return []
        pid = self.process.pid
        ranks = Path(f"/proc/{pid}/task/{pid}/children")  # on Linux alone, but at once
        return [pid, *map(int, ranks.read_text().split() if self.ddp else ())]

    def hit(self, *signals: signal.Signals, whom: slice = slice(None), gap: float = 0.0) -> None:
        """Sends signals to some of its processes, with pauses in seconds in between."""
        for i, number in enumerate(signals):
            time.sleep(gap if i else 0.0)
            for pid in self.processes()[whom]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def left(self) -> list[int]:
        """The ids of all processes that have the run's folder in their command line."""
        command = ["pgrep", "-f", f"={self.folder}( |$)"]
        found = subprocess.run(command, capture_output=True, text=True)
        return [int(pid) for pid in found.stdout.split()]

    def end(self) -> int:
        """Waits for its end; the exit code, negative where a signal ended it."""
        try:
            code = self.process.wait(PATIENCE)
            deadline = time.monotonic() + GRACE
            while (left := self.left()) and time.monotonic() < deadline:
                time.sleep(0.1)
            self.orphans = len(left)
            return code
        finally:  # whatever goes wrong here, nothing is left running
            for pid in self.left():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()

    def said(self) -> str:
        """The line of its stderr that says how to go on, or the last one."""
        lines = self.stderr.read_text().splitlines() or [""]
        return next((line for line in lines if "; resume it with ckpt_path=" in line), lines[-1])
