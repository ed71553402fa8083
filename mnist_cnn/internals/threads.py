"""How PyTorch's threads share the processors with other programs.

The threads of one operation meet at a barrier. There they spin, which is fastest on a quiet
machine; where another program has put one of them aside, the others burn the processor that it
waits for.
"""

import os
import sys
import time
from pathlib import Path

SPIN = "GOMP_SPINCOUNT"  # of GNU's OpenMP, which PyTorch's builds for Linux use
SETTINGS = (SPIN, "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
BUSY = 0.5  # processors in use by others
WAITED = 0.15  # share of the time of a training's threads from which fewer threads are faster


def sleep_at_barriers_if_busy() -> None:
    """Makes the threads sleep at once at a barrier, while other programs keep a processor busy.

    It changes no result. To be called before torch is imported, which reads the setting; nothing
    is done where the user has set how threads wait or how many there are.
    """
    idle = "torch" not in sys.modules and not any(key in os.environ for key in SETTINGS)
    if idle and processors_in_use() > BUSY:
        os.environ[SPIN] = "0"


def processors_in_use(seconds: float = 0.1) -> float:
    """Processors that other programs use, measured while this one sleeps; 0 where not known."""
    before = busy_seconds()
    time.sleep(seconds)
    return (busy_seconds() - before) / seconds


def busy_seconds() -> float:
    """Seconds that all processors together have worked since the system started (proc_stat(5))."""
    try:
        user, nice, system = Path("/proc/stat").read_text(encoding="utf-8").split()[1:4]
    except OSError:  # not Linux
        return 0.0
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")


def waiting_seconds() -> float:
    """Seconds that this process's threads were ready but had no processor; 0 where not known."""
    waited = 0
    for task in Path("/proc/self/task").glob("*/schedstat"):
        try:
            waited += int(task.read_text().split()[1])
        except OSError:  # the thread has just ended
            continue
    return waited / 1e9


class Waits:
    """How long this process's threads are ready but have no processor, from now on."""

    def __init__(self) -> None:
        self.started, self.before = time.perf_counter(), waiting_seconds()

    def share(self, threads: int) -> float:
        """The waiting as a share of the time of that number of threads; 0 where not known."""
        seconds = time.perf_counter() - self.started
        # what a thread waited is no longer told when it has ended
        return max(0.0, waiting_seconds() - self.before) / (seconds * threads)
