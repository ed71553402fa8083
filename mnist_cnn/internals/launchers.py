"""Hydra's launchers for submitit and Ray, whose jobs outlive an interrupted sweep.

Read in hydra-submitit-launcher 1.4.0rc3, submitit 1.5.4 and hydra-ray-launcher 1.4.0rc3. The
launchers hold their jobs in local variables and have no way to cancel them. submitit's launcher
submits through AutoExecutor.map_array. A LocalJob's id is that of its controller's process, which
hands SIGTERM on to the job, but not the SIGINT that its `cancel` sends.
tests/test_contracts_launchers.py fails where a release changes this.
"""

import contextlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any
from unittest import mock

ASIDE = ("submitit_local", "submitit_slurm", "ray")  # launchers that run in a thread of their own
POLL = 0.2  # seconds
IN_SUBMITIT = "SUBMITIT_LOCAL_JOB_ID"  # set in a job's environment: submitit ignores SIGTERM there


SUBMITTING = threading.Lock()


@contextlib.contextmanager
def submitted(launcher: str) -> Iterator[list[Any]]:
    """The jobs that submitit submits inside, also in other threads; none where it is Ray."""
    jobs: list[Any] = []
    if launcher == "ray":
        yield jobs
        return
    from submitit import AutoExecutor

    submit = AutoExecutor.map_array

    def noted(self: AutoExecutor, *args: Any) -> list[Any]:
        with SUBMITTING:
            new = submit(self, *args)
            jobs.extend(new)
        return new

    with mock.patch.object(AutoExecutor, "map_array", noted):
        yield jobs


def cancel(launcher: str, jobs: list[Any]) -> None:
    """Ends the jobs of a launcher; those of submitit on this machine save a checkpoint first."""
    if launcher == "ray":  # its jobs would train on unwatched
        import ray

        return ray.shutdown()
    from submitit import LocalJob

    with SUBMITTING:
        local = [job for job in jobs if isinstance(job, LocalJob)]
        queued = [job for job in jobs if not isinstance(job, LocalJob)]
    for job in queued:
        job.cancel(check=False)
    for seconds in itertools.count():
        running = [job for job in local if not job.done()]
        if not running:
            return
        if seconds % 10 == 0:  # again, for one that was just starting and did not hear it
            for job in running:
                os.kill(int(job.job_id), signal.SIGTERM)
        time.sleep(1)


def launch_aside(launch: Callable[[], Any], name: str) -> None:
    """Calls a launcher in a thread of its own, whose processes don't hear the terminal's Ctrl-C.

    Ray and submitit lose what a signal's handler raises while they wait.
    """
    outcome: Future[Any] = Future()
    with submitted(name) as jobs:

        def work() -> None:
            if hasattr(signal, "pthread_sigmask"):  # processes inherit it
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                outcome.set_result(launch())
            except BaseException as e:
                for job in jobs:  # where one was killed, the launcher leaves the others alone
                    job.wait()
                outcome.set_exception(e)

        thread = threading.Thread(target=copy_context().run, args=[work], daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                # Ray has a handler that dumps its stack
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, signal.getsignal(number))
                thread.join(POLL)
            outcome.result()
        except BaseException:
            cancel(name, jobs)
            raise
