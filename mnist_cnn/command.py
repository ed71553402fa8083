"""How a command ends: what a mistake, Ctrl-C or a closed pipe print, and with which exit code."""

import functools
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

# what a user can get wrong; anything else is a fault of ours and keeps its traceback
USER_ERRORS = (ValueError, OSError)

SIGPIPE = 13  # not in signal on Windows


def command(main: Callable[[Sequence[str] | None], None]) -> Callable[..., None]:
    """Makes main(argv) end as users of a terminal expect, without a traceback.

    A user's mistake ends it with one line and exit code 1. Ctrl-C and a closed pipe, as after
    `| head -1`, end it silently with exit codes 130 and 141.
    """

    @functools.wraps(main)
    def ending(argv: Sequence[str] | None = None) -> None:
        interrupted = False

        def interrupt(number: int, frame: Any) -> None:
            nonlocal interrupted
            interrupted = True
            raise KeyboardInterrupt  # unlike the end by the signal itself, it lets main clean up

        program = signal.getsignal(signal.SIGINT) is signal.SIG_DFL  # set in __init__.py
        if program:
            signal.signal(signal.SIGINT, interrupt)
        tolerate_encoding()
        try:
            try:
                main(argv)
            finally:
                sys.stdout.flush()  # while a closed pipe can still be handled
        except BaseException as e:
            # a library may make an error of its own of a KeyboardInterrupt
            if interrupted or isinstance(e, KeyboardInterrupt):
                sys.exit(128 + signal.SIGINT)
            if isinstance(e, BrokenPipeError):
                discard_output()
                sys.exit(128 + SIGPIPE)
            if isinstance(e, USER_ERRORS):
                sys.exit(f"error: {' '.join(str(e).split())}")
            raise
        finally:
            if program:  # Python ends: nothing is left to clean up
                signal.signal(signal.SIGINT, signal.SIG_DFL)

    return ending


def tolerate_encoding() -> None:
    """Makes the terminal show `?` for a character that its encoding lacks, instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def discard_output() -> None:
    """Discards what is still buffered for standard output, which Python writes when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
