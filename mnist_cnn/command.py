"""The frame of a command: options, and the end by a mistake, a signal or a closed pipe."""

import argparse
import contextlib
import functools
import io
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from mnist_cnn.config import instantiate
from mnist_cnn.config.compose import CONF, VERSION_BASE, explained
from mnist_cnn.config.messages import must_be
from mnist_cnn.runs.errors import FULL_ERROR, USER_ERRORS, handed_on, one_line, raised_by_hydra
from mnist_cnn.runs.folder import FAILED
from mnist_cnn.runs.resume import take_ckpt_path
from mnist_cnn.runs.signals import SIGPIPE, interrupted, interruptible
from mnist_cnn.sweeps.names import in_sweep

VERSIONS = {"mnist_cnn": "mnist-cnn", "PyTorch": "torch", "Lightning": "lightning"}
VERSIONS["Hydra"] = "hydra-core"


def command(main: Callable[[Sequence[str] | None], None]) -> Callable[..., None]:
    """Make main(argv) end as users of a terminal expect, without a traceback.

    A user's mistake ends it with one line and exit code 1, or with HYDRA_FULL_ERROR=1 with its
    traceback; SIGINT, SIGTERM and SIGUSR1 with one
    line, and a closed pipe (as after `| head -1`) silently, with the conventional exit codes.
    """

    @functools.wraps(main)
    def ending(argv: Sequence[str] | None = None) -> None:
        for stream in (sys.stdout, sys.stderr):  # `?` for what the terminal's encoding lacks
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        try:
            with interruptible():
                if "--version" in (sys.argv[1:] if argv is None else argv):
                    print(", ".join(f"{name} {version(of)}" for name, of in VERSIONS.items()))
                    return
                check_working_directory()
                main(argv)
                sys.stdout.flush()  # while a closed pipe can still be handled
        except BaseException as e:
            if (stop := interrupted(e)) is None:
                if isinstance(e, USER_ERRORS) and os.environ.get(FULL_ERROR) != "1":
                    raise SystemExit(one_line(e)) from None
                raise
            if stop.number == SIGPIPE:  # else Python writes there what is still buffered at its end
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            else:
                print(stop, file=sys.stderr)
            sys.exit(128 + stop.number)

    return ending


def hydra_main(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], Any]]:
    """hydra.main for conf/<config_name>.yaml; a mistake, of Hydra's notice too, is one line."""
    # Hydra 1.4 asks which code its callbacks may be; it takes no pattern but a package
    options = VERSION_BASE or {"execution_whitelist": ("mnist_cnn.*",)}

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], Any]:
        @functools.wraps(task)
        def job(cfg: DictConfig) -> Any:
            try:
                return task(cfg)
            except BaseException as e:  # Rich ends the program where nobody reads what it prints
                if (stop := interrupted(e)) is not None:
                    raise stop from None
                if in_sweep() or not isinstance(e, USER_ERRORS):
                    raise
                raise SystemExit(one_line(e, Path(cfg.run_dir, FAILED))) from e

        start = hydra.main(config_path=str(CONF), config_name=config_name, **options)(job)

        def run() -> None:
            with handed_on() as full:
                try:
                    start()
                except SystemExit as e:
                    if full and isinstance(e.__cause__, Exception):
                        traceback.print_exception(e.__cause__)
                    raise
                except Exception as e:
                    mistake = isinstance(e, USER_ERRORS) or raised_by_hydra(e)
                    if full or not mistake or interrupted(e):
                        raise
                    raise SystemExit(one_line(explained(e, sys.argv[1:]))) from e

        return run

    return decorate


def check_working_directory() -> None:
    """Raise ValueError where the working directory was deleted."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise ValueError("the working directory must exist, it was deleted") from None


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
    # pictures may stand before options and after them
    return parser.parse_intermixed_args(options, argparse.Namespace(ckpt_path=place))


@contextlib.contextmanager
def new_files(out: Path, names: Sequence[str]) -> Iterator[Path]:
    """A temporary folder whose files of these names end in `out`, all of them or none.

    Raises:
        ValueError: a file of such a name is there.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(must_be("--out", "a folder", f"{out}, which is a file"))
    if old := [name for name in names if (out / name).exists()]:
        raise ValueError(f"--out must be a folder without {old[0]}, got {out}")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out) as folder:
        yield Path(folder)
        for name in names:
            Path(folder, name).rename(out / name)


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
