"""Calls in a separate process within limits, as a small file can need minutes and gigabytes.

There are no limits on Windows, and no memory limit on macOS.
"""

import argparse
import contextlib
import multiprocessing
import os
import pickle
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Generic, ParamSpec, TypeVar

from mnist_cnn.runs.ranks import KILL

P = ParamSpec("P")
T = TypeVar("T")
# forked from a process with the slow imports done, a new one takes 50 ms
if sys.platform == "win32":
    _context = multiprocessing.get_context("spawn")
else:
    _context = multiprocessing.get_context("forkserver")
PRELOADED = "mnist_cnn.reading.preloaded"  # imported there alone, as it imports PyTorch
# exit codes of a process that was killed by this module or the system, aborted by C++, or stopped
OUT_OF_MEMORY = {-KILL, -signal.SIGABRT, -signal.SIGTERM}
_lock = threading.Lock()  # only one thread may wait for a process


class LimitError(ValueError):
    """The work took too much time or memory."""


class Worker(Generic[P, T]):
    """A process that calls a function, and is replaced when a call exceeds a limit.

    Args:
        make: returns the function to call, once in each process, without limits; picklable. So this
            process need not import what the function uses.
        seconds: limit of processor time per call.
        megabytes: limit of memory per call.
        preload: modules to import before the process is forked, besides `preloaded`.
    """

    def __init__(
        self,
        make: Callable[[], Callable[P, T]],
        seconds: float,
        megabytes: float,
        preload: Sequence[str] = (),
    ):
        self.arguments = make, seconds, megabytes
        _context.set_forkserver_preload([PRELOADED, *preload])
        self._start()

    def _start(self) -> None:
        self.pipe, end = _context.Pipe()
        self.process = _context.Process(target=_serve, args=(end, *self.arguments), daemon=True)
        self.process.start()
        end.close()  # else the end of the process would go unnoticed
        self.is_ready = False

    def wait(self) -> None:
        """Wait until the function is made; raise the ImportError, OSError or ValueError of that."""
        if self.is_ready:
            return
        try:
            self._result()
        except (ImportError, OSError, ValueError):
            with _lock:
                self.process.join()  # it ends, and the next call starts another
            raise
        self.is_ready = True

    def stop(self) -> None:
        """Kill the process, so that a running call raises LimitError."""
        self.process.kill()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what the function returns, or raise its OSError or ValueError.

        Raises:
            LimitError: the call takes too much time or memory.
            RuntimeError: the call failed in another way, and the process has printed the error, or
                crashed.
        """
        with _lock:
            if not self.process.is_alive():
                self._start()
        self.wait()
        with contextlib.suppress(ConnectionError):  # where the process has ended
            self.pipe.send((args, kwargs))
        return self._result()

    def _result(self) -> T:
        try:
            result = self.pipe.recv()
        except (EOFError, ConnectionError):
            with _lock:
                self.process.join()
                code = self.process.exitcode
            _, seconds, megabytes = self.arguments
            late = code == -getattr(signal, "SIGPROF", 0)
            if not late and code not in OUT_OF_MEMORY:
                crash = "" if code == 1 else f", which ended with {code}"
                raise RuntimeError(f"the work failed in its process{crash}") from None
            limit = f"{seconds:g} s" if late else f"{megabytes:g} MB of memory"
            raise LimitError(f"reading it takes over {limit}") from None
        if isinstance(result, Exception):
            raise result
        return result


def _serve(
    pipe: Connection, make: Callable[[], Callable[P, T]], seconds: float, megabytes: float
) -> None:
    """Call the function with arguments from the pipe, until its other end is closed."""
    # Ctrl-C in a terminal reaches all processes; the process at the other end ends this one
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    failure: Exception | None = None
    try:
        import cv2
        import torch

        torch.set_num_threads(1)  # threads would use up the processor time
        cv2.setNumThreads(1)
        work = make()
    except ImportError as error:
        failure = error
    except (OSError, ValueError) as error:
        failure = sendable(error)
    with contextlib.suppress(EOFError, ConnectionError):
        pipe.send(failure)
        _limit_memory(megabytes)
        while not failure:
            args, kwargs = pipe.recv()
            _limit_time(seconds)
            try:
                result: object = work(*args, **kwargs)
            except (OSError, ValueError) as error:
                result = sendable(error)
            except Exception as error:  # OpenCV and PyTorch have their own out-of-memory errors
                # oneDNN's is "could not create a primitive"
                if isinstance(error, MemoryError) or re.search("alloc|primitive", str(error)):
                    os.kill(os.getpid(), KILL)  # no memory left to continue
                raise
            _limit_time(0)
            pipe.send(result)


def sendable(error: Exception) -> Exception:
    """Return an error that can be sent, a ValueError for one whose class takes other arguments."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return ValueError(str(error))
    return error


def _limit_time(seconds: float) -> None:
    """End this process by a signal after `seconds` of processor time; 0 removes the limit."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _limit_memory(megabytes: float) -> None:
    """Limit the memory of this process to `megabytes` more than it uses, or to the user's limit."""
    if sys.platform == "linux":
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            data = int(file.read().split()[5]) * resource.getpagesize()
        limit = data + round(megabytes * 1e6)
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)  # of ulimit -d, which cannot be raised
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add the limits for reading a page to the options of a command."""
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
