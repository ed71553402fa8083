"""Sweeps: numbered jobs in one folder, each recorded however it ends, resumed later.

`Grid` runs every combination of the values given, `Optuna` looks for good ones. Hydra starts them
for -m. Neither trusts what a launcher returns: a job's folder alone tells how it ended, so that a
job whose process was killed counts as well, and any process can resume a sweep.
"""

import contextlib
import copy
import functools
import itertools
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from filelock import FileLock, Timeout
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from mnist_cnn.config.compose import flat
from mnist_cnn.internals.hydra import Composer, Job, launcher, quote
from mnist_cnn.internals.launchers import ASIDE, POLL, launch_aside
from mnist_cnn.sweeps.folder import (
    ENDS,
    FAILED,
    LOCK,
    RESULTS,
    SWEEP,
    State,
    check_path,
    is_over,
    name_folder,
    run_recorded,
    state,
    write,
)

JOBS = "jobs.json"  # in the sweep's folder: the overrides of each job, by its number
RETRIED = ".retried"  # there, too: the folders of failed trials that were tried again


class Sweep(Sweeper):
    """What both ways of sweeping share. An application may override the methods up to `setup`.

    Args:
        params: values to sweep over, in Hydra's syntax, by key; the command line comes after them.
        max_batch_size: number of jobs that are handed to the launcher at once; None for all.
        max_failures: number of failed jobs after which no other one is started; None for no limit.
        metric: the objective, by its name in results.json: `value` where a job returns a number.
        mode: min or max, which way it is better.
    """

    OBJECTIVE: ClassVar = "hydra.sweeper"  # where the configuration has its metric and mode
    ALLOWED: ClassVar = ["optuna.samplers.*", "optuna.pruners.*"]  # what may be named there
    SEARCH: ClassVar = "choose hydra/sweeper=resumable_optuna"  # for values between two ends
    IGNORED: ClassVar[tuple[str, ...]] = ()  # keys that make no other job

    def __init__(
        self,
        params: Mapping[str, Any] | None = None,
        max_batch_size: int | None = None,
        max_failures: int | None = None,
        metric: str = "value",
        mode: str = "min",
    ):
        if max_failures is not None and not (isinstance(max_failures, int) and max_failures > 0):
            wrong = "hydra.sweeper.max_failures must be a whole number >= 1 or null"
            raise ValueError(f"{wrong}, got {max_failures}")
        if mode not in ("min", "max"):
            raise ValueError(f"hydra.sweeper.mode must be min or max, got {mode}")
        self.params = params or {}
        self.max_batch_size, self.max_failures = max_batch_size, max_failures
        self.objective: Any = OmegaConf.create({"metric": metric, "mode": mode})

    def wrapped(self, task: TaskFunction) -> TaskFunction:
        """The function of a job, which leaves results.json, failed.json or pruned.json."""
        return functools.partial(run_recorded, task)

    def task_of(self, config: DictConfig) -> DictConfig:
        """What sets a job apart, of its configuration."""
        task = copy.deepcopy(config)
        with open_dict(task):
            del task["hydra"]
        return task

    def check(self, task: DictConfig) -> None:
        """Raises ValueError where the configuration of a job is not allowed."""

    def progress(self, n: int) -> str:
        """How far a running job is."""
        return f"job {n}" if self.state(n) == "running" else ""

    def again(self) -> str:
        """How a sweep that was interrupted is resumed."""
        return f"the same command and hydra.sweep.dir={self.folder}"

    def missing(self, package: str) -> str:
        return f"{package} is not installed: pip install {package}"

    def report(self) -> None:
        """Prints what became of a sweep."""
        counts = Counter(self.screen.ends.values())
        self.screen.console.print(", ".join(f"{n} {end}" for end, n in counts.items()))
        self.screen.console.print(str(self.folder))

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.launcher_name = config.hydra.runtime.choices["hydra/launcher"]
        self.whole = config
        self.composer = Composer(hydra_context, config, self.task_of)
        task = self.wrapped(task_function)
        self.make_launcher = functools.partial(launcher, hydra_context, task, config)

    def sweep(self, arguments: list[str]) -> None:
        """Runs all jobs; ends the program with exit code 1 where any has failed."""
        given = self.composer.parse(arguments)
        check_path("hydra.sweep.dir", self.whole.hydra.sweep.dir)
        fixed = [str(o.input_line) for o in given if not o.is_sweep_override()]
        chosen = self.composer.compose(fixed)
        # of the overrides of one key the last counts
        last: dict[str, Any] = {}
        for o in self.composer.parse([f"{key}={value}" for key, value in self.params.items()]):
            if self.composer.is_lacking(o, chosen):
                print(f"{o.key_or_group} is not searched: this configuration has no such key")
            else:
                last[o.get_key_element()] = o
        last |= {o.get_key_element(): o for o in given}
        fixed = [str(o.input_line) for o in last.values() if not o.is_sweep_override()]
        self.search({k: o for k, o in last.items() if o.is_sweep_override()}, fixed)
        self.report()
        failed = [n for n, end in self.screen.ends.items() if end == "failed"]
        if failed:
            left = self.screen.total - len(self.screen.ends)
            limit = f" and {left} are left (hydra.sweeper.max_failures={self.max_failures})"
            sys.exit(
                f"{len(failed)} of {len(self.screen.ends)} jobs failed{limit * self.over}, see "
                f"{FAILED} in {self.folder}/{min(failed)}; run them again with {self.again()}"
            )

    def search(self, swept: Mapping[str, Any], fixed: Job) -> None:
        """Runs the jobs that these overrides stand for, inside `self.opened`.

        Args:
            swept: Hydra's overrides of several values, by key.
            fixed: those of one value, which all jobs share.
        """
        raise NotImplementedError

    def checked(self, job: Job) -> frozenset[tuple[str, Any]]:
        """The `identity` of a job. Raises ValueError where its configuration is not allowed."""
        self.check(self.composer.compose(job))
        return self.identity(job)

    def identity(self, job: Job) -> frozenset[tuple[str, Any]]:
        """What two jobs have in common if they are the same, however they are written."""
        values = flat(self.composer.compose(job)).items()
        return frozenset(
            (k, repr(v) if isinstance(v, list) else v) for k, v in values if k not in self.IGNORED
        )

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """The sweep's folder, held by this process alone; then what became of the sweep.

        All jobs are to be checked before: from here on files are written.
        """
        name_folder(self.whole, "sweep")
        self.folder = Path(self.whole.hydra.sweep.dir).absolute()
        self.check_folder()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.started = self.make_launcher()  # it may write into the folder
        try:
            lock = FileLock(self.folder / LOCK, timeout=0).acquire()
        except Timeout:
            raise ValueError(f"{self.folder}: another process is running this sweep") from None
        from mnist_cnn.sweeps.display import Screen  # every application imports this module

        self.screen = Screen(self)
        try:
            with lock, self.screen:
                new = self.folder / f"{SWEEP}.new"
                OmegaConf.save(self.whole, new)
                new.replace(self.folder / SWEEP)
                yield
        except KeyboardInterrupt:
            print(f"interrupted; resume it with {self.again()}", file=sys.stderr)
            sys.exit(130)

    def check_folder(self) -> None:
        """Raises ValueError where the folder is in use for anything but this sweep."""
        key, now = "hydra.sweep.dir", self.whole.hydra
        names = {path.name for path in self.folder.iterdir()} if self.folder.exists() else set()
        if others := sorted(names - {LOCK, f"{SWEEP}.new"}):
            if SWEEP not in names:
                wrong = f"{key} must be a new or empty folder, or a sweep's"
                raise ValueError(f"{wrong}, got {self.folder}, which has {others[0]}")
            before = OmegaConf.load(self.folder / SWEEP).hydra
            mine, theirs = (hydra.help.app_name for hydra in (now, before))
            if mine != theirs:
                wrong = f"{key} must be a sweep of {mine}"
                raise ValueError(f"{wrong}, got {self.folder}, a sweep of {theirs}")
            kind = str(before.sweeper._target_).rpartition(".")[2]
            if kind != type(self).__name__:
                wrong = f"hydra.sweeper must be {kind} in {self.folder}, got {type(self).__name__}"
                raise ValueError(f"{wrong}; set another {key}")
        for n in map(int, filter(str.isdecimal, names)):
            if n not in self.recorded():
                raise ValueError(f"{self.folder / str(n)} is no job of this sweep; move it away")

    def recorded(self) -> dict[int, Job]:
        """Each job that was ever launched, by its number."""
        try:
            jobs = json.loads((self.folder / JOBS).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return {int(n): job for n, job in jobs.items()}

    def record(self, jobs: Mapping[int, Job]) -> None:
        """Writes down what each number stands for: only such folders are this sweep's."""
        new = self.folder / f"{JOBS}.new"
        lines = (f'"{n}": {json.dumps(job)}' for n, job in {**self.recorded(), **jobs}.items())
        new.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        new.replace(self.folder / JOBS)

    def job_folder(self, n: int) -> Path:
        return self.folder / str(n)

    def state(self, n: int) -> State:
        with self.screen.asking:  # or one thread's question would look like a running job
            return state(self.job_folder(n))

    def value(self, n: int) -> float | None:
        """The objective of a finished job; None where it has none."""
        results = json.loads((self.job_folder(n) / RESULTS).read_text("utf-8"))
        value = results.get(self.objective.metric)
        return value if value is not None and math.isfinite(value) else None

    @property
    def over(self) -> bool:
        return is_over(self.folder, self.max_failures)

    def run(self, jobs: Mapping[int, Job]) -> None:
        """Runs the jobs, by number, until each has ended. Those that have are left alone."""
        self.record(jobs)
        one_by_one = self.max_failures is not None and self.launcher_name == "basic"
        size = self.max_batch_size or (1 if one_by_one else len(jobs))
        for first in range(0, len(jobs), size):
            self.run_at_once(dict(itertools.islice(jobs.items(), first, first + size)))

    def run_at_once(self, jobs: Mapping[int, Job]) -> None:
        while left := {n: job for n, job in jobs.items() if self.settled(n) not in ENDS}:
            if self.over:
                return
            try:
                self.launch(left)
            except Exception as e:  # launchers raise what they like when a worker is killed
                line = f"a worker ended early, its job is resumed alone: {in_one_line(e)}"
                self.screen.console.print(line)
            if self.over:
                return  # what had not begun has no end
            begun = [n for n in left if self.settled(n) not in ENDS and self.job_folder(n).exists()]
            if not begun and all(self.state(n) not in ENDS for n in left):
                begun = list(left)[:1]  # nothing has begun: at least this one is to have an end
            for n in begun:
                self.run_again(n, jobs[n])

    def run_again(self, n: int, job: Job) -> None:
        """Runs a job a second and last time, alone: if it ends early again, it is the cause."""
        reason = "killed or out of memory"
        try:
            self.launch({n: job})
        except Exception as e:
            reason = in_one_line(e)
            if not self.job_folder(n).exists():
                raise ValueError(f"hydra/launcher={self.launcher_name}: {reason}") from e
        if self.settled(n) not in ENDS:
            error = f"the process ended early: {reason}"
            self.job_folder(n).mkdir(exist_ok=True)
            failure = {"type": "EndedEarly", "error": error, "traceback": ""}
            write(failure, self.job_folder(n) / FAILED)

    def launch(self, jobs: Mapping[int, Job]) -> None:
        place = f"hydra.sweep.dir={quote(self.folder)}"
        numbered = [[*job, place, f"hydra.sweep.subdir={n}"] for n, job in jobs.items()]
        start = functools.partial(self.started.launch, numbered, initial_job_idx=min(jobs))
        if self.launcher_name in ASIDE:
            launch_aside(start, self.launcher_name)
        else:
            start()

    def settled(self, n: int) -> State:
        """What became of a job, when nobody is at it: workers can outlive a killed sweep."""
        while (end := self.state(n)) == "running":
            time.sleep(POLL)
        return end


class Grid(Sweep):
    """Every combination of the values given."""

    def search(self, swept: Mapping[str, Any], fixed: Job) -> None:
        for key, override in swept.items():
            if not override.is_discrete_sweep():
                raise ValueError(f"{override.input_line}: {self.SEARCH}, or list {key}")
        values = [[f"{k}={v}" for v in o.sweep_string_iterator()] for k, o in swept.items()]
        points = list(itertools.product(*values))
        # a run's name begins with what sets it apart
        asked = [[*point, *fixed] for point in points]
        identities = [self.checked(job) for job in asked]
        with self.opened():
            recorded = self.recorded()
            numbers = {self.identity(job): n for n, job in recorded.items()}
            free = itertools.count(max(recorded, default=-1) + 1)
            jobs = {}
            for point, job, own in zip(points, asked, identities, strict=True):
                n = numbers[own] if own in numbers else next(free)
                numbers[own], jobs[n], self.screen.jobs[n] = n, job, ",".join(point)
            for n in jobs:
                if self.state(n) == "failed":  # it is resumed where it has a checkpoint
                    (self.job_folder(n) / FAILED).unlink()
            self.screen.expect(len(jobs))
            self.run(jobs)


def in_one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
