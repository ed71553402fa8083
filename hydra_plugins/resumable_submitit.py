"""hydra/launcher=slurm and local: the launchers of hydra-submitit-launcher, made resumable.

A job is saved before submitit queues it again, and a job that was cancelled or killed keeps no
sweep waiting. Hydra takes launchers from this namespace alone, and imports it whenever a program
starts.
"""

import contextlib
import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher

Base: Any = Launcher  # without the extra slurm, whose configurations these launchers need
with contextlib.suppress(ImportError):
    from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import (
        BaseSubmititLauncher as Base,
    )

GPUS = "CUDA_VISIBLE_DEVICES"


class SavedFirst(Base):
    """A launcher whose jobs are saved before submitit answers a signal."""

    def __call__(self, *args: Any) -> JobReturn:
        """Run a job in its process."""
        from mnist_cnn.runs.signals import Interrupted, interruptible

        try:
            with interruptible():
                return super().__call__(*args)
        except Interrupted as e:
            stop = e
        # submitit's: queues the job again and exits, or raises an error after too many times
        handler = signal.getsignal(stop.number)
        if callable(handler):
            handler(stop.number, None)
        print(stop, file=sys.stderr)
        sys.exit(128 + stop.number)


class LocalLauncher(SavedFirst):
    """Processes of this machine, with the GPUs that the command has."""

    _EXECUTOR = "local"

    def __init__(self, **params: Any):
        super().__init__(**params)
        self.gpus = os.environ.get(GPUS)  # submitit sets it for the job

    def __call__(self, *args: Any) -> JobReturn:
        os.environ.pop(GPUS, None)
        if self.gpus is not None:
            os.environ[GPUS] = self.gpus
        return super().__call__(*args)


class SlurmLauncher(SavedFirst):
    """Jobs in the queue of a SLURM cluster.

    Their states come from squeue: sacct, which submitit asks, needs a database that a cluster may
    not have.
    """

    _EXECUTOR = "slurm"

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        """Submit jobs, and return their results once all have ended.

        Raises:
            ValueError: SLURM is missing or refuses the jobs, or jobs have ended without a result.
        """
        try:
            jobs = self.submit(job_overrides, initial_job_idx)
        except RuntimeError as e:  # submitit's
            raise ValueError(f"hydra/launcher=slurm: {e}") from e
        wait(jobs)
        shared = set.intersection(*map(set, job_overrides)) if len(jobs) > 1 else set()
        results, left = [], []
        for job, overrides in zip(jobs, job_overrides, strict=True):
            if (result := result_of(job)) is not None:
                results.append(result)
            else:
                own = [o for o in overrides if o not in shared]
                left.append(" ".join([f"SLURM's {job.job_id}", *own]))
        if left:
            raise ValueError(
                f"{len(left)} of {len(jobs)} jobs ended without a result, as when cancelled, "
                "killed or out of time: "
                f"{', '.join(left)}; logs: {self.params['submitit_folder']}; "
                "the same command resumes them"
            )
        return results

    def submit(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
        """Submit jobs as an array, as the launcher that this one extends does."""
        # repeated, as `launch` there returns no jobs: it waits for them by sacct, and raises the
        # error of the first that has no result. What a release changes in it must be changed here
        import submitit

        options = dict(self.params)
        if (tasks := options["nodes"] * options["tasks_per_node"]) != 1:
            raise ValueError(
                "hydra.launcher.nodes and hydra.launcher.tasks_per_node must be 1, "
                f"got {tasks} tasks: a job starts its trainer.devices processes itself"
            )
        folder, times = options.pop("submitit_folder"), options.pop("max_num_timeout")
        executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=times)
        shared = {field.name for field in dataclasses.fields(BaseQueueConf)}
        executor.update_parameters(
            **{key if key in shared else f"slurm_{key}": value for key, value in options.items()}
        )
        numbers = range(initial_job_idx, initial_job_idx + len(job_overrides))
        return executor.map_array(
            self,
            map(list, job_overrides),
            itertools.repeat("hydra.sweep.dir"),
            numbers,
            map("job_id_for_{}".format, numbers),
            itertools.repeat(Singleton.get_state()),
        )


def wait(jobs: Iterable[Any]) -> None:
    """Wait until each job has a result, or is no longer in the queue."""
    left, gone = {job.job_id: job for job in jobs}, set()
    begun = asked = time.monotonic()
    while left:
        time.sleep(1)
        left = {key: job for key, job in left.items() if not has_result(job)}
        now = time.monotonic()
        if now - asked < min(30, max(2, (now - begun) / 10)):
            continue
        asked = now
        if (queued := queue()) is None:
            continue
        # twice: a result may appear on this machine after its job has left the queue
        ended, gone = gone - queued, left.keys() - queued
        left = {key: job for key, job in left.items() if key not in ended}


def has_result(job: Any) -> bool:
    folder = job.paths.folder
    with contextlib.suppress(OSError):
        folder.chmod(folder.stat().st_mode)  # NFS forgets what it knew of the folder
    return job.paths.result_pickle.exists()


def result_of(job: Any) -> JobReturn | None:
    """Return the result of a job that has ended; None if it has none, or a traceback."""
    try:
        return job.result() if has_result(job) else None
    except RuntimeError:  # submitit's
        return None


def queue() -> set[str] | None:
    """Return the IDs of this user's jobs in the queue, or None if SLURM does not answer."""
    ask = ["squeue", "--noheader", "--array", "--format=%i", f"--user={os.getuid()}"]
    done = subprocess.run(ask, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return set(done.stdout.split()) if done.returncode == 0 else None
