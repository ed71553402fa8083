"""The place of this process among those that train a run together."""

import atexit
import ctypes
import os
import signal
import sys
from typing import Any

PR_SET_PDEATHSIG = 1  # prctl(2): the signal that a process gets when its parent ends


def world_size() -> int:
    """The number of processes that torchrun started, on all machines; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def under_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def rank() -> int:
    """The number of this process among them, from 0, which writes the run's files."""
    return int(os.environ.get("RANK", 0)) if under_torchrun() else 0


def end_with_launcher(number: int = signal.SIGKILL) -> None:
    """Send this process a signal when its launcher is killed: it would train on alone.

    What waits for other processes hears none but SIGKILL; a run that is killed is resumed exactly.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


def broadcast(values: list[Any], accelerator: str | None) -> list[Any]:
    """Return the values of rank 0 in all processes, which are joined at the first call.

    Args:
        accelerator: what they are going to train on, as the Trainer takes it; None where no
            Lightning is used.
    """
    if world_size() == 1 or not under_torchrun():
        return values
    from torch import cuda, distributed

    if not distributed.is_initialized():
        end_with_launcher()
        # Lightning takes the group over. It must be told of gloo, for which it divides sums: gloo's
        # own mean fails for integers, with which Lightning counts what sync_dist=True averages
        on_cpu = accelerator == "cpu" or not cuda.is_available()
        distributed.init_process_group("gloo" if on_cpu else None)
        atexit.register(distributed.destroy_process_group)
    distributed.broadcast_object_list(values)
    return values
