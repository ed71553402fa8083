"""The rank of this process among those that train a run together."""

import atexit
import ctypes
import os
import signal
import sys
from typing import Any

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows has no SIGKILL
PR_SET_PDEATHSIG = 1  # prctl(2): the signal that a process gets when its parent ends


def world_size() -> int:
    """Return the number of processes that torchrun started on all machines; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if under_torchrun() else 1


def under_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def rank() -> int:
    """Return the rank of this process; rank 0 writes the run's files."""
    return int(os.environ.get("RANK", 0)) if under_torchrun() else 0


def say(line: str) -> None:
    """Print a line on standard error, once for all processes."""
    if rank() == 0:
        print(line, file=sys.stderr)


def end_with_launcher(launcher: int | None, number: int = KILL) -> None:
    """Have Linux send this process a signal when its launcher ends, so it does not train on alone.

    A process that waits for others reacts only to SIGKILL; a killed run is resumed exactly.

    Args:
        launcher: the launcher's process ID; the signal is sent now if it has already ended. None
            where it is unknown, as under torchrun: then an earlier end is not noticed.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    if launcher is not None and os.getppid() != launcher:
        os.kill(os.getpid(), number)


def broadcast(values: list[Any], accelerator: str | None) -> list[Any]:
    """Broadcast the values of rank 0; the first call initializes the process group.

    Args:
        accelerator: what the processes will train on, as the Trainer takes it; None without
            Lightning.
    """
    if world_size() == 1:
        return values
    from torch import cuda, distributed

    if not distributed.is_initialized():
        end_with_launcher(None)
        # Lightning uses this group. It must be explicitly gloo, for which Lightning divides sums:
        # gloo's own mean fails for integers, such as Lightning's counts for sync_dist=True
        on_cpu = accelerator == "cpu" or not cuda.is_available()
        distributed.init_process_group("gloo" if on_cpu else None)
        atexit.register(distributed.destroy_process_group)
    distributed.broadcast_object_list(values)
    return values
