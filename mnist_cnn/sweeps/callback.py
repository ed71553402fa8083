"""Hydra callback that prepares the folders of runs and sweeps."""

import contextlib
import itertools
import multiprocessing
import pkgutil
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mnist_cnn.internals.hydra import (
    Override,
    compose_job,
    config_loader,
    jobs_of,
    parse_overrides,
    set_hydra_config,
)
from mnist_cnn.runs.errors import USER_ERRORS, one_line
from mnist_cnn.runs.folder import (
    LOCK,
    PENDING,
    SWEEP,
    RunFolder,
    cleared,
    is_sweep,
    replace,
    state,
)
from mnist_cnn.runs.names import renamed, swept_keys
from mnist_cnn.runs.ranks import end_with_launcher, under_torchrun
from mnist_cnn.runs.resume import OF_SWEEP, commands, key_of, quote
from mnist_cnn.sweeps import ENDED, STOPPED, stopped_by
from mnist_cnn.sweeps.dry_run import Job, jobs, show


@contextlib.contextmanager
def refusal() -> Iterator[None]:
    """Exit with a one-line message on an exception, which Hydra would only warn about.

    Print the traceback, too, unless it is an error of the user.
    """
    try:
        yield
    except Exception as e:
        if not isinstance(e, (*USER_ERRORS, ImportError)):  # Optuna may be missing
            traceback.print_exc()
        raise SystemExit(one_line(e)) from e


class Folders(Callback):
    """Checks a configuration before any folder is created, and gives each run or sweep its own.

    A sweep's folder is locked while it runs, and its jobs are named by what is swept. It ends with
    a report, and with exit code 1 if a job there has failed, was refused or is running.

    Args:
        check: the `package.module:function` that is called with a run's configuration.
        check_folder: the one that a dry run also calls with it, which raises ValueError if the
            folder of the run would refuse it.
        report: the `package.module:function` that is called with a sweep's folder.
        dry_run: list the jobs of a sweep, or a run, and check each, instead of running them.
        stop_on_failure: start no further job of a sweep once one has failed or was refused.
        objective: the key of a node with the `metric` that a job returns and its `mode`; a search
            for another is refused.
    """

    # on the class: joblib's workers get a copy of the callback, and a lock cannot be copied
    held: ClassVar = contextlib.ExitStack()

    def __init__(
        self,
        check: str | None = None,
        check_folder: str | None = "mnist_cnn.sweeps:check_folder",
        report: str | None = None,
        dry_run: bool = False,
        stop_on_failure: bool = False,
        objective: str | None = None,
    ):
        for name, value in (("dry_run", dry_run), ("stop_on_failure", stop_on_failure)):
            if not isinstance(value, bool):  # no and off are text, as Hydra reads them
                raise ValueError(f"{name} must be true or false, got {value}")
        self.check, self.check_folder, self.report = check, check_folder, report
        self.dry_run, self.stop_on_failure = dry_run, stop_on_failure
        self.objective = objective

    @refusal()
    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.run.dir).absolute()
        self.check_task(config, folder)
        if self.dry_run:
            sys.exit(int(show([Job(folder.name, str(state(folder)))])))
        take(config, "run")

    @refusal()
    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        if under_torchrun():
            raise ValueError("torchrun starts the processes of one run: leave out -m")
        overrides = parsed(config)
        first = check_composed(config, overrides)
        # of another sweeper's options nothing is known
        if str(config.hydra.sweeper._target_).startswith("hydra_plugins.resumable_optuna."):
            from mnist_cnn.sweeps import search  # imports Optuna, which may be missing

            space = {o.get_key_element(): o for o in overrides}
            objective: Any = OmegaConf.select(first, self.objective) if self.objective else {}
            search.check(config.hydra.sweeper, space, objective)
        if self.dry_run:
            sys.exit(int(show(self.jobs(config, overrides))))
        take(config, "sweep")
        folder = Path(config.hydra.sweep.dir).absolute()
        check_sweep(folder, config.hydra.job.name)
        Folders.held.close()
        Folders.held.enter_context(RunFolder(folder).locked())
        notes(folder)
        (folder / STOPPED).unlink(missing_ok=True)
        if self.stop_on_failure:
            (folder / STOPPED).touch()
        before = known_commands(folder)
        known = with_command(before, config)
        content = {"application": config.hydra.job.name, "commands": known}
        OmegaConf.save(content, cleared(folder / PENDING))
        for line in renamed(folder, sorted(swept_keys(known) - swept_keys(before))):
            print(line, file=sys.stderr)
        with read_write(config.hydra):  # each job is composed from these
            config.hydra.overrides.hydra += of_jobs(folder, known)

    def jobs(self, config: DictConfig, overrides: Sequence[Override]) -> list[Job]:
        """Return the jobs that a sweep would run."""
        if "n_trials" in config.hydra.sweeper:  # also Hydra's own sweeper for Optuna
            raise ValueError("dry_run must be false in a search, which chooses its jobs one by one")
        folder = Path(config.hydra.sweep.dir).absolute()
        check_sweep(folder, config.hydra.job.name)
        known = with_command(known_commands(folder), config)
        points = jobs_of(overrides)
        return list(jobs(config, points, of_jobs(folder, known), self.check_task))

    def check_task(self, config: DictConfig, folder: Path) -> None:
        """Raise an error for a configuration that must not be run in a folder."""
        with read_write(config.hydra.runtime), open_dict(config):
            config.hydra.runtime.output_dir = str(folder)
        set_hydra_config(config)  # the configuration refers to it
        task = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        for check in (self.check, self.check_folder if self.dry_run else None):
            if check:
                pkgutil.resolve_name(check)(task)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        end_with_sweep()

    @refusal()
    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        with Folders.held:  # released last: another command would lose its own records
            if sys.exc_info()[0] is None:  # Hydra 1.4 also calls this on an error
                self.end(config)

    def end(self, config: DictConfig) -> None:
        """Report a sweep, and exit with the names of the jobs that are left."""
        folder = Path(config.hydra.sweep.dir).absolute()
        jobs = {lock.parent.name: str(state(lock.parent)) for lock in folder.glob(f"*/{LOCK}")}
        if self.report and jobs:  # none where each job was refused
            pkgutil.resolve_name(self.report)(folder)
        ended = notes(folder)
        stopped = stopped_by(folder)
        (folder / STOPPED).unlink(missing_ok=True)
        if jobs or ended:  # the command of jobs that were all refused is not repeated
            if (folder / SWEEP).exists():
                (folder / PENDING).unlink(missing_ok=True)
        elif (folder / PENDING).exists():  # of evaluations, which open no run
            replace(folder / PENDING, folder / SWEEP)
        jobs |= {name: how for name, how, _ in ended}
        ends = ("failed", "running", "refused")
        if left := [f"{job(name)} {how}" for name, how in sorted(jobs.items()) if how in ends]:
            names = "; ".join([", ".join(left), *dict.fromkeys(reason for *_, reason in ended)])
            if stopped:
                names += f"; stopped after {job(stopped)}: the same command runs what is missing"
            sys.exit(f"error: {len(left)} of {len(jobs)} jobs in {folder}: {names}")


def job(name: str) -> str:
    """Return a job's name for people: those of a search are numbers."""
    return f"trial {name}" if name[:1].isdigit() else name


def end_with_sweep() -> None:
    """Have one of joblib's workers end with the sweep, also with a killed one."""
    if (parent := multiprocessing.parent_process()) is not None:
        end_with_launcher(parent.pid, signal.SIGTERM)


def parsed(config: DictConfig) -> list[Override]:
    """Parse the overrides of a sweep's jobs: of the sweeper's params, and of the command line."""
    params = config.hydra.sweeper.get("params") or {}
    given: Any = OmegaConf.to_container(config.hydra.overrides.task)
    overrides = [*(f"{key}={value}" for key, value in params.items()), *given]
    return parse_overrides(overrides, config_loader())


def check_composed(config: DictConfig, overrides: Sequence[Override]) -> DictConfig:
    """Return a sweep's first job; ValueError if it or another file of a group is not there."""
    given: Any = OmegaConf.to_container(config.hydra.overrides.hydra)  # unresolved
    if "hydra.sweep.subdir" in map(key_of, given):
        raise ValueError("hydra.sweep.subdir must be left out: what is swept names the jobs")
    size = config.hydra.sweeper.get("max_batch_size")
    if size is not None and size < 1:
        raise ValueError(f"hydra.sweeper.max_batch_size must be at least 1, got {size}")
    try:
        composed = [compose_job(config, job) for job in samples(overrides)]
    except HydraException as e:
        params = config.hydra.sweeper.get("params") or {}
        key = next((f"hydra.sweeper.params.{key}: " for key in params if key in str(e)), "")
        raise ValueError(f"{key}{e}") from e
    return composed[0]


def samples(overrides: Sequence[Override]) -> Iterator[list[str]]:
    """Yield a sweep's first job, and one with each further file of a group that is swept."""
    every = [single(override) for override in overrides]
    job = [values[0] for values in every]
    yield job
    for number, override in enumerate(overrides):
        if config_loader().get_group_options(override.key_or_group):
            yield from ([*job[:number], one, *job[number + 1 :]] for one in every[number][1:])


def single(override: Override) -> list[str]:
    """Return an override with each of the values that it sweeps; of an interval the start."""
    text = str(override.input_line)
    if not override.is_sweep_override():
        return [text]
    key, _, swept = text.partition("=")
    value: Any = override.value()
    values = [value.start] if override.is_interval_sweep() else [*override.sweep_string_iterator()]
    if not values:
        raise ValueError(f"{key} must be a sweep that has values, got {swept}")
    return [f"{key}={one}" for one in values]


def take(config: DictConfig, kind: str) -> None:
    """Create the folder of a run or sweep; add a number if a name made from the time exists."""
    node: Any = OmegaConf.to_container(config.hydra[kind])
    first, named = Path(config.hydra[kind].dir), "${now:" in node["dir"]
    if named and under_torchrun():
        raise ValueError(f"hydra.{kind}.dir must be given under torchrun, the same for all")
    for number in itertools.count(1):
        folder = first.with_name(f"{first.name}-{number}") if number > 1 else first
        try:
            folder.mkdir(parents=True, exist_ok=not named)
        except FileExistsError:
            if named:
                continue
            raise ValueError(f"hydra.{kind}.dir must be a folder, got {folder}") from None
        except OSError as e:
            raise ValueError(f"hydra.{kind}.dir={folder}: {e}") from e
        with read_write(config.hydra):
            config.hydra[kind].dir = str(folder)
        return


def check_sweep(folder: Path, application: str) -> None:
    """Raise ValueError if there is anything but a sweep of this application in the folder."""
    found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if is_sweep(folder):
        owner = OmegaConf.select(OmegaConf.load(folder / SWEEP), "application")
        if owner != application:
            got = f"{folder / SWEEP} is of {owner or 'no application'}"
            raise ValueError(f"hydra.sweep.dir must be {application}'s, {got}")
    elif found not in ([], [LOCK]) and not {LOCK, PENDING} <= set(found):
        raise ValueError(f"hydra.sweep.dir must be empty or a sweep's, {folder} has {found[0]}")


def notes(folder: Path) -> list[tuple[str, str, str]]:
    """Return name, end and reason of jobs that left no trace in their folders; delete the notes."""
    found = []
    for how in ("failed", "refused"):
        for file in sorted(folder.glob(ENDED.format("*", how))):
            found.append((file.stem[1:], how, file.read_text("utf-8")))
            file.unlink()
    return found


def with_command(known: Sequence[dict[str, Any]], config: DictConfig) -> list[dict[str, Any]]:
    """Return the commands of a sweep with the present one as the last."""
    given: Any = OmegaConf.to_container(config.hydra.overrides)
    of_hydra = [override for override in given["hydra"] if OF_SWEEP.match(override)]
    command = {"hydra": of_hydra, "task": given["task"]}
    return [*(c for c in known if c != command), command]


def known_commands(folder: Path) -> list[dict[str, Any]]:
    """Return the commands that a folder's sweep was started and extended with, if there is one."""
    return commands(folder) if is_sweep(folder) else []


def of_jobs(folder: Path, commands: Sequence[dict[str, Any]]) -> list[str]:
    """Return the overrides of Hydra's own keys that each job of the last command gets.

    Keys that earlier commands swept are part of each job's name too: they may get more values.
    """
    swept = swept_keys(commands)
    shared = [key for key in map(key_of, commands[-1]["task"]) if key not in swept]
    return [
        f"hydra.sweep.dir={quote(folder)}",
        f"hydra.sweep.subdir='${{job_name:{','.join(shared)}}}'",
        "hydra.output_subdir=null",  # a job writes .hydra when it has locked its folder
    ]
