"""What all commands share: options, and exits after user errors, signals and closed pipes."""

import argparse
import contextlib
import functools
import io
import os
import string
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from mnist_cnn.config import instantiate
from mnist_cnn.config.compose import CONF, VERSION_BASE, explained
from mnist_cnn.runs.errors import FULL_ERROR, USER_ERRORS, handed_on, one_line, raised_by_hydra
from mnist_cnn.runs.folder import FAILED, remove_empty
from mnist_cnn.runs.names import in_sweep
from mnist_cnn.runs.resume import take_ckpt_path
from mnist_cnn.runs.signals import SIGPIPE, interrupted, interruptible

VERSIONS = {"mnist_cnn": "mnist-cnn", "PyTorch": "torch", "Lightning": "lightning"}
VERSIONS["Hydra"] = "hydra-core"


def command(main: Callable[[Sequence[str] | None], None]) -> Callable[..., None]:
    """Wrap main(argv) of a command so that it exits without a traceback.

    A user error prints one line and exits with code 1, or shows its traceback with
    HYDRA_FULL_ERROR=1. SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 print one line, a closed pipe (as after
    `| head -1`) nothing, with the conventional exit codes.
    """

    @functools.wraps(main)
    def ending(argv: Sequence[str] | None = None) -> None:
        for stream in (sys.stdout, sys.stderr):  # `?` where the encoding lacks a character
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        try:
            with interruptible():
                if "--version" in (sys.argv[1:] if argv is None else argv):
                    print(", ".join(f"{name} {version(of)}" for name, of in VERSIONS.items()))
                    return
                check_working_directory()
                main(argv)
                sys.stdout.flush()  # here, so that a closed pipe is still handled
        except BaseException as e:
            if (stop := interrupted(e)) is None:
                if isinstance(e, USER_ERRORS) and os.environ.get(FULL_ERROR) != "1":
                    raise SystemExit(one_line(e)) from None
                raise
            if stop.number == SIGPIPE:  # else Python flushes its buffer there at exit
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            else:
                with contextlib.suppress(OSError):  # Ctrl-C also ends a `| tee` that reads this
                    print(stop, file=sys.stderr)
            sys.exit(128 + stop.number)

    return ending


def hydra_main(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], Any]]:
    """Return hydra.main for conf/<config_name>.yaml, with one line for a user error of any kind."""
    # Hydra 1.4 takes an allowlist for its callbacks; its only patterns are packages
    options = VERSION_BASE or {"execution_whitelist": ("mnist_cnn.*",)}

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], Any]:
        @functools.wraps(task)
        def job(cfg: DictConfig) -> Any:
            try:
                return task(cfg)
            except BaseException as e:  # Rich exits the program after a broken pipe
                if (stop := interrupted(e)) is not None:
                    raise stop from None
                if in_sweep() or not isinstance(e, USER_ERRORS):
                    raise
                remove_empty(Path(cfg.run_dir))  # of a run that was refused
                raise SystemExit(one_line(e, Path(cfg.run_dir, FAILED))) from e

        start = hydra.main(config_path=str(CONF), config_name=config_name, **options)(job)

        def run() -> None:
            if {"-h", "--help"} & {*sys.argv[1:]}:
                print(help_of(config_name, sys.argv[1:]))
                return
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


def help_of(config_name: str, argv: Sequence[str]) -> str:
    """Return the help of conf/<config_name>.yaml, with the files of groups, also of --config-dir.

    Hydra's own --help gives the same and the configuration, a second later.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-cd", "--config-dir", type=Path)
    places = [CONF, parser.parse_known_args(argv)[0].config_dir]
    groups: dict[str, set[str]] = {}
    for place in filter(None, places):
        for file in place.glob("*/**/*.yaml"):
            group = file.parent.relative_to(place).as_posix()
            groups.setdefault(group, set()).add(file.stem)
    lines = [f"{group}: {', '.join(sorted(groups[group]))}" for group in sorted(groups)]
    text = OmegaConf.load(CONF / f"{config_name}.yaml").hydra.help.template
    own = [line for line in lines if not line.startswith("hydra/")]
    return string.Template(text).substitute(APP_CONFIG_GROUPS="\n".join(own))


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


def docstring_parser(module: str, doc: str) -> argparse.ArgumentParser:
    """Return a parser whose --help is a command's docstring, without the usage in line one."""
    about, more = doc.split("\n\n", 1)
    return argparse.ArgumentParser(
        f"python -m {module}",
        description=about.split(":")[0] + ".",
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the options of a command that uses a trained network, returned as `ckpt_path`.

    It is given as in training and evaluation: ckpt_path=PATH. The code that targets= lists may be
    imported from then on.
    """
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = f"{parser.description}\n\n{NETWORK}"
    given = sys.argv[1:] if argv is None else argv
    instantiate.allow_given(given)
    place, rest = take_ckpt_path(given)
    if place == "":
        parser.error("ckpt_path must be a run's folder, a checkpoint or a weights file, got ''")
    options = [a for a in rest if not a.startswith("targets=")]
    # pictures may come before and after options
    return parser.parse_intermixed_args(options, argparse.Namespace(ckpt_path=place))
