"""What Hydra calls around a run and around a sweep."""

import functools
import itertools
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import hydra
from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mnist_cnn.runs.folder import LOCK, SWEEP, replace, state
from mnist_cnn.runs.ranks import rank, under_torchrun
from mnist_cnn.runs.resume import OF_SWEEP, commands, own_config_dirs, quote
from mnist_cnn.sweeps.names import shared_keys

MADE_BY_HYDRA = {"multirun.yaml", ".submitit"}

# no attribute of the callback: joblib's workers get a copy of that, which a lock has none of
LOCKS: dict[Path, FileLock] = {}


def refusing(method: Callable[..., None]) -> Callable[..., None]:
    """End the program with one line where a callback raises, which Hydra would make a warning."""

    @functools.wraps(method)
    def ending(self: Callback, config: DictConfig, **kwargs: Any) -> None:
        try:
            method(self, config, **kwargs)
        except Exception as e:
            if os.environ.get("HYDRA_FULL_ERROR"):
                traceback.print_exc()
            sys.exit(f"error: {' '.join(str(e).split())}")

    return ending


class Folders(Callback):
    """Checks a configuration before any folder exists, and gives each run or sweep its own.

    A sweep's folder is locked while it runs, and keeps the commands that filled it in sweep.yaml.
    Its end is a report, and exit code 1 where a job has failed or is running.

    Args:
        check: `package.module.function` of a run's configuration; it raises ValueError.
        report: likewise, of a sweep's folder.
    """

    def __init__(self, check: str | None = None, report: str | None = None):
        self.check, self.report = check, report

    @refusing
    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        given = is_given(config, "run")
        if under_torchrun() and not given:
            raise ValueError("hydra.run.dir must be given under torchrun, the same for all")
        if self.check:
            with read_write(config.hydra.runtime), open_dict(config):
                config.hydra.runtime.output_dir = str(Path(config.hydra.run.dir).absolute())
            HydraConfig.instance().set_config(config)  # which the configuration refers to
            hydra.utils.get_method(self.check)(without_hydra(config))
        if not given and rank() == 0:
            take_default(config, "run")

    @refusing
    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        if under_torchrun():
            raise ValueError("torchrun starts the processes of one run: leave out -m")
        if not is_given(config, "sweep"):
            take_default(config, "sweep")
        folder = Path(config.hydra.sweep.dir).absolute()
        check_sweep(folder, config.hydra.job.name)
        folder.mkdir(parents=True, exist_ok=True)
        LOCKS[folder] = FileLock(folder / LOCK, timeout=0)
        try:
            LOCKS[folder].acquire()
        except Timeout:
            raise ValueError(f"{folder}: another process is running this sweep") from None
        record_command(folder, config)
        shared = shared_keys(config.hydra.overrides.task)
        with read_write(config.hydra):  # each job is composed anew, from these
            config.hydra.overrides.hydra += [
                f"hydra.sweep.dir={quote(folder)}",
                f"hydra.job.config.override_dirname.exclude_keys={shared}",
            ]

    @refusing
    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir).absolute()
        if (lock := LOCKS.pop(folder, None)) is not None:
            lock.release()
        if sys.exc_info()[0] is not None:  # Hydra 1.4 calls this on the way of an error, too
            return
        if self.report:
            hydra.utils.get_method(self.report)(folder)
        jobs = states(folder)
        left = {
            how: [name for name, its in jobs.items() if its == how] for how in ("failed", "running")
        }
        if any(left.values()):
            told = [f"{len(names)} {how} ({names[0]})" for how, names in left.items() if names]
            hint = f"resume them with ckpt_path={folder}"
            sys.exit(f"of {len(jobs)} jobs {' and '.join(told)}; {hint}")


class EvaluationFolders(Callback):
    """Gives each evaluation a folder of its own where none is named."""

    @refusing
    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        if not is_given(config, "run"):
            take_default(config, "run")

    @refusing
    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        if not is_given(config, "sweep"):
            take_default(config, "sweep")


def states(sweep: Path) -> dict[str, str]:
    """The state of each job in a sweep's folder, by name."""
    return {job.parent.name: state(job.parent) for job in sorted(sweep.glob(f"*/{LOCK}"))}


def is_given(config: DictConfig, kind: str) -> bool:
    return any(o.startswith(f"hydra.{kind}.dir=") for o in config.hydra.overrides.hydra)


def take_default(config: DictConfig, kind: str) -> None:
    """Make the folder hydra.<kind>.dir, under another name where it exists already."""
    wanted = Path(OmegaConf.select(config, f"hydra.{kind}.dir"))
    for folder in numbered(wanted):
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            continue
    with read_write(config.hydra), open_dict(config):
        config.hydra[kind].dir = str(folder)


def numbered(path: Path) -> Iterator[Path]:
    yield path
    for n in itertools.count(2):
        yield path.with_name(f"{path.name}-{n}")


def check_sweep(folder: Path, application: str) -> None:
    """Raise ValueError where anything but a sweep of this application lies in the folder."""
    found = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    if not found:
        return
    if SWEEP not in found:
        raise ValueError(f"hydra.sweep.dir must be empty or a sweep's, {folder} has {found[0]}")
    owner = OmegaConf.load(folder / SWEEP).application
    if owner != application:
        raise ValueError(
            f"hydra.sweep.dir must be a sweep of {application}, {folder} is of {owner}"
        )


def record_command(folder: Path, config: DictConfig) -> None:
    """Add a command to those that the sweep's folder was filled by."""
    overrides = config.hydra.overrides
    command = {
        "hydra": [str(o) for o in overrides.hydra if o.startswith(OF_SWEEP)],
        "task": list(map(str, overrides.task)),
        "config_dirs": own_config_dirs(config.hydra),
    }
    known = commands(folder) if (folder / SWEEP).exists() else []
    content: Mapping[str, Any] = {
        "application": config.hydra.job.name,
        "commands": [*(c for c in known if c != command), command],
    }
    new = folder / f"{SWEEP}.new"
    OmegaConf.save(content, new)
    replace(new, folder / SWEEP)


def without_hydra(config: DictConfig) -> DictConfig:
    """A copy of a configuration as Hydra hands it to a job."""
    task = config.copy()
    with read_write(task), open_dict(task):
        del task["hydra"]
    return task
