"""One-line messages for errors of the user."""

import os
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from mnist_cnn.runs.terminal import printable

FULL_ERROR = "HYDRA_FULL_ERROR"  # environment variable, 1 for tracebacks
# any other error is a bug, and keeps its traceback
USER_ERRORS = (ValueError, OSError, HydraException, OmegaConfBaseException, YAMLError)
PACKAGE = Path(__file__).parents[1]
OURS = {PACKAGE, *map(PACKAGE.with_name, ("hydra_plugins", "benchmarks"))}
LIBRARIES = ("site-packages", "dist-packages")
STANDARD = sysconfig.get_path("stdlib")


def one_line(error: BaseException, failed: Path | None = None) -> str:
    """Return the message of an error, with the line of the user's own code that caused it.

    Args:
        failed: the file that may have its traceback.
    """
    # Hydra appends its search path
    text = printable(" ".join(str(error).split()).partition(" Config search path:")[0])
    if line := line_of_user(error):
        known = failed is not None and failed.exists()
        text += f" ({line}; {f'traceback in {failed}' if known else f'traceback: {FULL_ERROR}=1'})"
    return f"error: {text}"


def line_of_user(error: BaseException) -> str | None:
    """Return the file and line of the user's code that caused an error; None if ours did."""
    while error.__cause__ not in (None, error):
        error = error.__cause__
    trace, found = error.__traceback__, None
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not OURS.isdisjoint(Path(file).parents):
            found = None
        elif is_users(file):
            found = f"{file}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return found


def is_users(file: str) -> bool:
    """Return whether the file of a frame is the user's: no library's, and none that is not here."""
    libraries = file.startswith(STANDARD) or any(name in file for name in LIBRARIES)
    # compiled code names its source, as numpy/random/bit_generator.pyx
    return not libraries and os.path.isabs(file) and os.path.exists(file)


def raised_by_hydra(error: BaseException) -> bool:
    """Return whether Hydra itself raised an error: then the command line is wrong."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return str(module).partition(".")[0] in ("hydra", "omegaconf")


@contextmanager
def handed_on() -> Iterator[bool]:
    """Make Hydra raise errors instead of printing them; yield whether tracebacks were asked for."""
    before = os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"
    try:
        yield before == "1"
    finally:
        del os.environ[FULL_ERROR]
        if before is not None:
            os.environ[FULL_ERROR] = before
