"""What the launchers of sweeps need, and those whose jobs do not end with the sweep."""

import contextvars
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from mnist_cnn.internals.launchers import jobs_of

ASIDE = ("submitit_local", "submitit_slurm", "ray")  # launchers that run in a thread of their own
POLL = 0.2  # seconds


def launch_aside(launch: Callable[[], Any], name: str) -> None:
    """Calls a launcher in a thread of its own, whose processes don't hear the terminal's Ctrl-C.

    Ray and submitit lose what a signal's handler raises while they wait.
    """
    outcome: Future[Any] = Future()
    with jobs_of(name) as jobs:

        def work() -> None:
            if hasattr(signal, "pthread_sigmask"):  # processes inherit it
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                outcome.set_result(launch())
            except BaseException as e:
                jobs.wait()
                outcome.set_exception(e)

        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=[work], daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                for number in (
                    signal.SIGINT,
                    signal.SIGTERM,
                ):  # Ray has a handler that dumps its stack
                    signal.signal(number, signal.getsignal(number))
                thread.join(POLL)
            outcome.result()
        except BaseException:
            jobs.cancel()
            raise
