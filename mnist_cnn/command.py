"""How a command ends: what a mistake, Ctrl-C or a closed pipe print, and with which exit code."""

import argparse
import functools
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from mnist_cnn import versions
from mnist_cnn.config import instantiate

# what a user can get wrong; anything else is a fault of ours and keeps its traceback
USER_ERRORS = (ValueError, OSError)

SIGPIPE = 13  # not in signal on Windows


def command(main: Callable[[Sequence[str] | None], None]) -> Callable[..., None]:
    """Makes main(argv) end as users of a terminal expect, without a traceback.

    A user's mistake ends it with one line and exit code 1. Ctrl-C and a closed pipe, as after
    `| head -1`, end it silently with exit codes 130 and 141. With --version the versions are all
    that it prints.
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
        for stream in (sys.stdout, sys.stderr):  # `?` for what the terminal's encoding lacks
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        try:
            try:
                if "--version" in (sys.argv[1:] if argv is None else argv):
                    print(versions.line())
                else:
                    main(argv)
            finally:
                sys.stdout.flush()  # while a closed pipe can still be handled
        except BaseException as e:
            # a library may make an error of its own of a KeyboardInterrupt
            if interrupted or isinstance(e, KeyboardInterrupt):
                sys.exit(128 + signal.SIGINT)
            if isinstance(e, BrokenPipeError):
                # else Python writes there what is still buffered when it ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(128 + SIGPIPE)
            if isinstance(e, USER_ERRORS):
                sys.exit(f"error: {' '.join(str(e).split())}")
            raise
        finally:
            if program:  # Python ends: nothing is left to clean up
                signal.signal(signal.SIGINT, signal.SIG_DFL)

    return ending


NETWORK = """\
ckpt_path=PATH   the trained network: a run's folder, a checkpoint or a weights file (default: the
                 network in the package)
targets=[PKG.*]  your own code that the network is of, where it is: a file never imports it"""


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The options of a command that uses a trained network, with the network as `ckpt_path`.

    It is named as in training and evaluation: ckpt_path=PATH; --ckpt_path PATH is the same. What
    targets= lists may be imported from then on.
    """
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = f"{parser.description}\n\n{NETWORK}"
    parser.add_argument("--version", action="store_true", help="print the versions, then end")
    parser.add_argument("--ckpt_path", "--checkpoint", help=argparse.SUPPRESS)
    given = sys.argv[1:] if argv is None else argv
    # before what may be many files, among which argparse takes no option
    network = [f"--{a}" for a in given if a.startswith("ckpt_path=")]
    instantiate.allow_given(given)
    keys = ("ckpt_path=", "targets=")
    args = parser.parse_args(network + [a for a in given if not a.startswith(keys)])
    if args.ckpt_path == "":
        parser.error("ckpt_path must be a run's folder, a checkpoint or a weights file, got ''")
    return args
