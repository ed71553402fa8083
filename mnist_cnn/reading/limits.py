"""Work in a process of its own, within limits: a small file can ask for minutes and gigabytes.

On Windows there are no limits, on macOS none of memory.
"""

import argparse
import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

# forked from a process that has imported what is slow to import, a new one takes 50 ms
_context: Any = multiprocessing.get_context("spawn" if os.name == "nt" else "forkserver")
_lock = threading.Lock()  # of two threads that look for the end of a process one would miss it


class LimitError(ValueError):
    """The work took too much time or memory."""


class Worker:
    """A process that calls a function, and is replaced when a call passes a limit.

    Args:
        work: the function; picklable.
        seconds: of processor time for a call.
        megabytes: of memory for a call.
        preload: modules to import before the process is forked.
    """

    def __init__(
        self, work: Callable[..., Any], seconds: float, megabytes: float, preload: list[str]
    ):
        # as bytes: multiprocessing would send an open file for each of a limited number of tensors
        self.arguments = pickle.dumps(work), seconds, megabytes
        _context.set_forkserver_preload(preload)
        self._start()

    def _start(self) -> None:
        self.pipe, end = _context.Pipe()
        self.process = _context.Process(target=_serve, args=(end, *self.arguments), daemon=True)
        self.process.start()
        end.close()  # else the end of the process would not be seen

    def stop(self) -> None:
        """End a call that is being made, with a LimitError."""
        self.process.kill()

    def __call__(self, *arguments: Any) -> Any:
        """Return what the function returns, or raise its OSError or ValueError.

        Raises:
            LimitError: it takes too much time or memory.
            RuntimeError: it failed in another way, which the process has printed.
        """
        with _lock:
            if not self.process.is_alive():
                self._start()
        try:
            self.pipe.send(arguments)
            result = self.pipe.recv()
        except (EOFError, ConnectionError):
            with _lock:
                self.process.join()
                code = self.process.exitcode
            if code == 1:
                raise RuntimeError("the work failed in its process") from None
            _, seconds, megabytes = self.arguments
            late = code == -getattr(signal, "SIGPROF", 0)
            limit = f"{seconds:g} s" if late else f"{megabytes:g} MB of memory"
            raise LimitError(f"reading it takes over {limit}") from None
        if isinstance(result, Exception):
            raise result
        return result


def _serve(pipe: Connection, pickled: bytes, seconds: float, megabytes: float) -> None:
    """Call the function with what comes through the pipe, until its other end is closed."""
    import cv2
    import torch

    torch.set_num_threads(1)  # threads would use up the processor time
    cv2.setNumThreads(1)
    # Ctrl-C in a terminal reaches all processes: the one at the other end ends this one
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    work = pickle.loads(pickled)
    _limit_memory(megabytes)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            arguments = pipe.recv()
            _limit_time(seconds)
            try:
                result = work(*arguments)
            except (OSError, ValueError) as error:
                result = error
            except Exception as error:  # OpenCV and PyTorch have errors of their own for it
                if isinstance(error, MemoryError) or "allocate" in str(error):
                    os.kill(os.getpid(), signal.SIGKILL)  # no memory to go on with
                raise
            _limit_time(0)
            pipe.send(result)


def _limit_time(seconds: float) -> None:
    """Let a signal end this process after seconds of processor time; 0: no more."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _limit_memory(megabytes: float) -> None:
    """Let this process have so much memory in addition to what it has."""
    if sys.platform == "linux":
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            data = int(file.read().split()[5]) * resource.getpagesize()
        limit = data + round(megabytes * 1e6)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add the limits of a page's reading to the options of a command."""
    for name, default, unit in (("--max-seconds", 20, "S"), ("--max-memory", 1000, "MB")):
        note = f"for a page (default: {default})"
        parser.add_argument(name, type=_positive, default=default, metavar=unit, help=note)


def _positive(text: str) -> float:
    try:
        if 0 < (number := float(text)) < 1e6:
            return number
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"must be a number over 0 and below 1000000, got {text}")
