"""What the launchers of sweeps need, and how their jobs are canceled."""

import itertools
import os
import signal
import time
from collections.abc import Iterable, Sequence
from types import FrameType
from typing import Any

from mnist_cnn.config.messages import install

EXTRAS = {"joblib": "sweep", "submitit_local": "slurm", "submitit_slurm": "slurm", "ray": "ray"}


def submitted(frames: Iterable[tuple[FrameType, int]]) -> list[Any]:
    """The jobs of submitit that a launcher is waiting for, which has no other way to tell them."""
    jobs = (job for frame, _ in frames for job in frame.f_locals.get("jobs", ()))
    return [job for job in jobs if type(job).__module__.startswith("submitit.")]


def cancel(jobs: Sequence[Any]) -> None:
    """Ends jobs of submitit; those on this machine save a checkpoint first."""
    local = [job for job in jobs if type(job).__name__ == "LocalJob"]
    for job in jobs:
        if job not in local:
            job.cancel(check=False)
    for seconds in itertools.count():
        running = [job for job in local if not job.done()]
        if not running:
            return
        if seconds % 10 == 0:  # again, for one that was just starting and did not hear it
            for job in running:
                os.kill(int(job.job_id), signal.SIGTERM)  # its controller hands it on
        time.sleep(1)


def missing(extra: str) -> str:
    return f"not installed: {install(extra)}"
