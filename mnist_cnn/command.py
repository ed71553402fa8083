"""The frame of a command: options, and the end by a mistake, a signal or a closed pipe."""

import argparse
import contextlib
import functools
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from mnist_cnn.config import instantiate
from mnist_cnn.config.compose import CONF, VERSION_BASE
from mnist_cnn.runs.resume import take_ckpt_path
from mnist_cnn.runs.signals import SIGPIPE, interrupted, interruptible
from mnist_cnn.sweeps.names import in_sweep

# what a user can get wrong; anything else is a fault of ours and keeps its traceback
USER_ERRORS = (ValueError, OSError, OmegaConfBaseException)


def command(main: Callable[[Sequence[str] | None], None]) -> Callable[..., None]:
    """Make main(argv) end as users of a terminal expect, without a traceback.

    A user's mistake ends it with one line and exit code 1; SIGINT, SIGTERM and SIGUSR1 with one
    line, and a closed pipe (as after `| head -1`) silently, with the conventional exit codes.
    """

    @functools.wraps(main)
    def ending(argv: Sequence[str] | None = None) -> None:
        for stream in (sys.stdout, sys.stderr):  # `?` for what the terminal's encoding lacks
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        try:
            with interruptible():
                main(argv)
                sys.stdout.flush()  # while a closed pipe can still be handled
        except BaseException as e:
            if (stop := interrupted(e)) is None:
                if isinstance(e, USER_ERRORS):
                    sys.exit(one_line(e))
                raise
            if stop.number == SIGPIPE:  # else Python writes there what is still buffered at its end
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            else:
                print(stop, file=sys.stderr)
            sys.exit(128 + stop.number)

    return ending


def hydra_main(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], Any]]:
    """hydra.main for conf/<config_name>.yaml; a mistake is one line without HYDRA_FULL_ERROR=1."""
    # Hydra 1.4 asks which code its callbacks and plugins may be
    options = VERSION_BASE or {"execution_whitelist": instantiate.COMMANDS}

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], Any]:
        @functools.wraps(task)
        def job(cfg: DictConfig) -> Any:
            try:
                return task(cfg)
            except BaseException as e:  # Rich ends the program where nobody reads what it prints
                if (stop := interrupted(e)) is not None:
                    raise stop from None
                full = in_sweep() or os.environ.get("HYDRA_FULL_ERROR")
                if full or not isinstance(e, USER_ERRORS):
                    raise
                sys.exit(one_line(e))

        return hydra.main(config_path=str(CONF), config_name=config_name, **options)(job)

    return decorate


def one_line(error: BaseException) -> str:
    return f"error: {' '.join(str(error).split())}"


NETWORK = """\
ckpt_path=PATH   the trained network: a run's folder, a checkpoint or a weights file (default: the
                 network in the package)
targets=[PKG.*]  your own code that the network is of, where it is: a file never imports it"""


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The options of a command that uses a trained network, with the network as `ckpt_path`.

    It is named as in training and evaluation: ckpt_path=PATH. What targets= lists may be imported
    from then on.
    """
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = f"{parser.description}\n\n{NETWORK}"
    given = sys.argv[1:] if argv is None else argv
    instantiate.allow_given(given)
    place, rest = take_ckpt_path(given)
    if place == "":
        parser.error("ckpt_path must be a run's folder, a checkpoint or a weights file, got ''")
    options = [a for a in rest if not a.startswith("targets=")]
    return parser.parse_args(options, argparse.Namespace(ckpt_path=place))


@contextlib.contextmanager
def new_files(out: Path, names: Sequence[str]) -> Iterator[Path]:
    """A temporary folder whose files of these names end in `out`, all of them or none.

    Raises:
        ValueError: a file of such a name is there.
    """
    if old := [name for name in names if (out / name).exists()]:
        raise ValueError(f"--out must be a folder without {old[0]}, got {out}")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out) as folder:
        yield Path(folder)
        for name in names:
            Path(folder, name).rename(out / name)


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add the limits of a page's reading to the options of a command."""
    for name, default, unit in (("--max-seconds", 5, "S"), ("--max-memory", 1000, "MB")):
        note = f"for a page (default: {default})"
        parser.add_argument(name, type=_positive, default=default, metavar=unit, help=note)


def _positive(text: str) -> float:
    if not 0 < float(text) < 1e6:
        raise ValueError(text)
    return float(text)
