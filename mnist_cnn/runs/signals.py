"""Signals that ask a run to stop."""

import contextlib
import inspect
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from functools import partial
from types import FrameType
from typing import Any

SIGPIPE = 13  # not in signal on Windows
# what asks a program to stop; clusters announce the end of a job by one of the last two
SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])]


class Interrupted(BaseException):
    """A signal asked the program to stop: `number` is the signal's, `hint` says how to resume."""

    def __init__(self, number: int, hint: str = ""):
        super().__init__(number, hint)
        self.number, self.hint = number, hint

    def __str__(self) -> str:
        name = "SIGPIPE" if self.number == SIGPIPE else signal.Signals(self.number).name
        return f"interrupted by {name}; {self.hint}".removesuffix("; ")


def interrupt(number: int, frame: FrameType | None, outer: int = 0) -> None:
    """Handle a signal by raising Interrupted, or later while modules are being imported.

    A module of which half was imported fails in any way where it is used.

    Args:
        outer: the imports that were under way when the signals were taken over.
    """
    if imports(frame) > outer:
        again(number)
    else:
        raise Interrupted(number)


def imports(frame: FrameType | None) -> int:
    """Count the frames of Python's import in a stack."""
    names = (f.f_code.co_filename for f, _ in traceback.walk_stack(frame))
    return sum(name.startswith("<frozen importlib") for name in names)


def again(number: int) -> None:
    """Send this process a signal a moment later."""
    timer = threading.Timer(0.01, os.kill, [os.getpid(), number])
    timer.daemon = True  # the end of the program does not wait for it
    timer.start()


def interrupted(error: BaseException, hint: str = "") -> Interrupted | None:
    """The Interrupted that an error stands for, of which a library may have made its own."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, Interrupted):
            return Interrupted(cause.number, cause.hint or hint)
        if isinstance(cause, KeyboardInterrupt):
            return Interrupted(signal.SIGINT, hint)
        if isinstance(cause, BrokenPipeError):
            return Interrupted(SIGPIPE, hint)
        cause = cause.__context__
    return None


def handle(handler: Any) -> dict[int, Any]:
    """Give those signals that are not ignored a handler; return the ones they had."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in heard}


def restore(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def repeat(ignored: Any) -> None:
    """Raise a signal again that came where Python ignores errors: in callbacks, for example."""
    error = ignored.exc_value
    if isinstance(error, Interrupted):
        again(error.number)
    else:
        sys.__unraisablehook__(ignored)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Inside, each of the signals raises Interrupted; outside, the handlers are those of before."""
    outer = imports(inspect.currentframe())
    handlers, hook = handle(partial(interrupt, outer=outer)), sys.unraisablehook
    sys.unraisablehook = repeat
    try:
        yield
    finally:
        sys.unraisablehook = hook
        restore(handlers)


class StopSignal:
    """A signal to stop, `received`, that is answered when the step is done; 0 for none."""

    def __init__(self) -> None:
        self.received = 0
        self.before: dict[int, Any] = {}  # the handlers that were there

    def listen(self, patient: bool) -> None:
        """Take the signals over. A second SIGINT raises Interrupted, unless `patient`."""
        # a launcher of processes passes on the Ctrl-C that they have had from the terminal
        self.received, self.patient = 0, patient
        self.before |= handle(self.note)

    def note(self, number: int, frame: Any) -> None:
        if number == signal.SIGINT and self.received and not self.patient:
            raise Interrupted(number)
        if not self.received:
            self.received = number
            os.write(2, b"\nstopping when this step is saved; Ctrl-C again stops at once\n")

    def ignore(self) -> None:
        """Give the signals back."""
        restore(self.before)
        self.before = {}
