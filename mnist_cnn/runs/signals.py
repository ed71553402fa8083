"""Signals that ask a run to stop."""

import contextlib
import inspect
import multiprocessing
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType, TracebackType
from typing import Any

SIGPIPE = 13  # not in signal on Windows
# requests to stop; clusters announce the end of a job by one of the last three, which Windows lacks
SIGNALS = [signal.SIGINT, signal.SIGTERM]
SIGNALS += [getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name)]


class Interrupted(BaseException):
    """A signal asked the program to stop: `number` is the signal's, `hint` says how to resume."""

    raised = False  # whether one was, inside the last `interruptible`

    def __init__(self, number: int, hint: str = ""):
        super().__init__(number, hint)
        self.number, self.hint = number, hint
        Interrupted.raised = True

    def __str__(self) -> str:
        name = "SIGPIPE" if self.number == SIGPIPE else signal.Signals(self.number).name
        return f"interrupted by {name}; {self.hint}".removesuffix("; ")


def interrupt(number: int, frame: FrameType | None, outer: int = 0) -> None:
    """Raise Interrupted for a signal; while modules are being imported, postpone it.

    A module that was imported in part fails unpredictably when it is used.

    Args:
        outer: the number of import frames on the stack when the handler was installed.
    """
    if imports(frame) > outer:
        again(number)
    else:
        raise Interrupted(number)


def imports(frame: FrameType | None) -> int:
    """Count the frames of Python's import system in a stack."""
    names = (f.f_code.co_filename for f, _ in traceback.walk_stack(frame))
    return sum(name.startswith("<frozen importlib") for name in names)


def again(number: int) -> None:
    """Send this process a signal after 10 ms."""
    # os.kill would end the process on Windows; elsewhere it also interrupts a system call
    send = signal.raise_signal if os.name == "nt" else partial(os.kill, os.getpid())
    timer = threading.Timer(0.01, send, [number])
    timer.daemon = True  # it does not keep the program alive
    timer.start()


def interrupted(error: BaseException, hint: str = "") -> Interrupted | None:
    """Return the interruption that caused an error, which a library may have replaced, or None."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, Interrupted):
            return Interrupted(cause.number, cause.hint or hint)
        if isinstance(cause, KeyboardInterrupt):
            return Interrupted(signal.SIGINT, hint)
        # Rich has replaced the closed output when it ends the program
        silenced = isinstance(cause, SystemExit) and isinstance(cause.__context__, BrokenPipeError)
        if silenced or (isinstance(cause, BrokenPipeError) and is_output_closed()):
            return Interrupted(SIGPIPE, hint)
        cause = cause.__context__
    return None


def is_output_closed() -> bool:
    """Return whether nobody can read this program's output or errors any more.

    Windows cannot tell. Another pipe may be broken as well, such as one to a worker that has died.
    """
    if not hasattr(select, "poll"):
        return True
    poll = select.poll()
    for stream in (sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or none
            poll.register(stream.fileno(), 0)  # type: ignore[union-attr]
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def handle(handler: Any) -> dict[int, Any]:
    """Set a handler for the signals that are not ignored; return the previous handlers."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in heard}


def restore(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def repeat(ignored: Any) -> None:
    """Handle an exception that Python ignores, as in callbacks: send its signal again.

    After an interruption others are dropped: an object whose constructor was interrupted, such as
    the iterator of a DataLoader, can fail in its finalizer.
    """
    error = ignored.exc_value
    if isinstance(error, Interrupted):
        again(error.number)
    elif not Interrupted.raised:
        sys.__unraisablehook__(ignored)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raise Interrupted for each of the signals inside; restore the handlers on leaving."""
    outer = imports(inspect.currentframe())
    handlers, hook = handle(partial(interrupt, outer=outer)), sys.unraisablehook
    sys.unraisablehook, Interrupted.raised = repeat, False
    try:
        yield
    except BaseException as e:
        if interrupted(e):
            finalize(e)
        raise
    finally:
        sys.unraisablehook = hook
        restore(handlers)


def finalize(error: BaseException | None) -> None:
    """Clear the frames of an error and its causes, so that the finalizers of their objects run."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def outlive_stop(worker: int, init: Callable[[int], Any] | None = None) -> None:
    """Ignore the signals in a DataLoader's worker, then call its own `worker_init_fn`, if any.

    Ctrl-C, torchrun and SLURM send a signal to the workers of a training as well, which needs them
    until its checkpoint is saved. Only SIGTERM from the training itself ends them, but no program
    that they start; where the sender is unknown, as on macOS, any does.
    """
    parent = multiprocessing.parent_process()
    if parent and threading.current_thread() is threading.main_thread():  # else it is no process
        sys.excepthook = report
        for number in set(SIGNALS) - {signal.SIGTERM}:
            signal.signal(number, lambda *_: None)
        if hasattr(signal, "sigwaitinfo"):
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            threading.Thread(target=end_with_parent, args=[parent.pid], daemon=True).start()
    if init:
        init(worker)


def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a worker's error, unless it is that the process which asked for a tensor is gone.

    Errors of the data do not get here: the loader sends them to the training.
    """
    if not issubclass(kind, (EOFError, ConnectionError)):
        sys.__excepthook__(kind, error, trace)


def end_with_parent(parent: int) -> None:
    """End this process when its parent sends SIGTERM, which all threads block."""
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)


class StopSignal:
    """A stop signal that is answered after the current step; `received` is its number, or 0."""

    def __init__(self) -> None:
        self.received, self.patient = 0, False
        self.before: dict[int, Any] = {}  # the previous handlers

    def listen(self, patient: bool) -> None:
        """Install the handlers. A second SIGINT raises Interrupted, unless `patient`."""
        # patient: a launcher forwards a Ctrl-C that its processes got from the terminal as well
        self.received, self.patient = 0, patient
        self.before |= handle(self.note)

    def note(self, number: int, frame: Any) -> None:
        if number == signal.SIGINT and self.received and not self.patient:
            raise Interrupted(number)
        if not self.received:
            self.received = number
            with contextlib.suppress(OSError):  # Ctrl-C also ends a `| tee` that reads this
                more = b"" if self.patient else b"; Ctrl-C again stops at once"
                os.write(2, b"\nstopping when this step is saved" + more + b"\n")

    def ignore(self) -> None:
        """Restore the previous handlers."""
        restore(self.before)
        self.before = {}
