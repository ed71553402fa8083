"""Signals that ask a run to stop."""

import math
import os
import signal
import threading
import time
from typing import Any

from mnist_cnn.command import SIGPIPE

# what asks a program to stop; clusters announce the end of a job by one of the last two
SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])]


class Interrupted(BaseException):
    """A signal asked the program to stop: `number` says which, `hint` how to resume."""

    def __init__(self, number: int, hint: str = ""):
        closed = number == SIGPIPE
        what = "output closed" if closed else f"interrupted by {signal.Signals(number).name}"
        super().__init__(f"{what}; {hint}".removesuffix("; "))
        self.number = number


def interrupt(number: int, frame: Any) -> None:
    """A handler of signals."""
    raise Interrupted(number)


class StopSignal:
    """Notes a signal to stop, so that it can be answered when the step is done.

    `received` is its number, 0 for none. A second SIGINT raises Interrupted on the spot.
    """

    # a group's launcher passes on the Ctrl-C that its processes have had from the terminal already
    echo = 2.0  # seconds

    def __init__(self) -> None:
        self.received = 0
        self.before: dict[int, Any] = {}  # the handlers that were there

    def listen(self, patient: bool) -> None:
        """Takes the signals over; a patient listener takes two at once for one."""
        self.received, self.patient, self.first = 0, patient, -math.inf
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self.before[number] = signal.signal(number, self.note)

    def note(self, number: int, frame: Any) -> None:
        again = number == signal.SIGINT and self.received
        if again and not (self.patient and time.monotonic() < self.first + self.echo):
            raise Interrupted(number)
        if not self.received:
            self.received, self.first = number, time.monotonic()
            os.write(2, b"\nstopping when this step is saved; Ctrl-C again stops at once\n")

    def ignore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}
