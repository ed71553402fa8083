"""Sweeps: numbered jobs in one folder, each recorded however it ends, resumed later.

`Grid` runs every combination of the values given, `Optuna` looks for good ones. Hydra starts them
for -m. Neither trusts what a launcher returns: a job's folder alone tells how it ended, so that a
job whose process was killed counts as well, and any process can resume a sweep.
"""

import contextlib
import functools
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from mnist_cnn.config.messages import must_be
from mnist_cnn.internals.hydra import Composer, Job, is_plugin, launcher
from mnist_cnn.runs import checks, claim, configuration
from mnist_cnn.runs.launch import check_processes
from mnist_cnn.runs.signals import Interrupted
from mnist_cnn.runs.state import FAILED, LOCK, RESULTS, SWEEP, State, note, state
from mnist_cnn.sweeps.display import Screen
from mnist_cnn.sweeps.job import ENDS
from mnist_cnn.sweeps.launchers import ASIDE, EXTRAS, POLL, launch_aside, missing

JOBS = "jobs.json"  # in the sweep's folder: the overrides of each job, by its number
RETRIED = ".retried"  # there, too: the folders of failed trials that were tried again


class Sweep(Sweeper):
    """What both ways of sweeping share.

    Args:
        params: values to sweep over, in Hydra's syntax, by key; the command line comes after them.
    """

    def __init__(self, params: Mapping[str, Any] | None):
        self.params = params or {}

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        name = config.hydra.runtime.choices["hydra/launcher"]
        if name in EXTRAS and not is_plugin(config.hydra.launcher._target_):
            raise ValueError(f"hydra/launcher={name}: {missing(EXTRAS[name])}")
        self.launcher_name, self.whole = name, config
        self.composer = Composer(hydra_context, config)
        self.make_launcher = functools.partial(launcher, hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> None:
        """Runs all jobs; ends the program with exit code 1 where any has failed."""
        given = self.composer.parse(arguments)
        if any(o.key_or_group == "run_dir" for o in given):
            raise ValueError("run_dir must be each job's own folder; set hydra.sweep.dir instead")
        claim.check_path("hydra.sweep.dir", self.whole.hydra.sweep.dir)
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

        from mnist_cnn import report

        report.report(self.folder)
        failed = [n for n, end in self.screen.ends.items() if end == "failed"]
        if failed:
            sys.exit(
                f"{len(failed)} of {len(self.screen.ends)} jobs failed, see failed.json in "
                f"{self.folder}/{min(failed)}; run them again with ckpt_path={self.folder}"
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
        task = self.composer.compose(job)
        checks.check_run(task)
        check_processes(task)
        self.objective = task.objective
        return identity(task)

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """The sweep's folder, held by this process alone; then what became of the sweep.

        All jobs are to be checked before: from here on files are written.
        """
        claim.name_folder(self.whole, "sweep")
        self.folder = Path(self.whole.hydra.sweep.dir).absolute()
        self.check_folder()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.started = self.make_launcher()  # it may write into the folder
        try:
            lock = FileLock(self.folder / LOCK, timeout=0).acquire()
        except Timeout:
            raise ValueError(f"{self.folder}: another process is running this sweep") from None
        self.screen = Screen(self)
        try:
            with lock, self.screen:
                new = self.folder / f"{SWEEP}.new"
                OmegaConf.save(self.whole, new)
                new.replace(self.folder / SWEEP)
                yield
        except Interrupted as e:
            raise Interrupted(e.number, f"resume it with ckpt_path={self.folder}") from None

    def check_folder(self) -> None:
        """Raises ValueError where the folder is in use for anything but this sweep."""
        key = "hydra.sweep.dir"
        names = {path.name for path in self.folder.iterdir()} if self.folder.exists() else set()
        if others := sorted(names - {LOCK, f"{SWEEP}.new"}):
            if SWEEP not in names:
                new = "a new or empty folder, or a sweep's"
                raise ValueError(must_be(key, new, f"{self.folder}, which has {others[0]}"))
            before = OmegaConf.load(self.folder / SWEEP).hydra
            if before.job.config_name != "train":
                what = f"{self.folder}, a sweep of mnist_cnn.{before.job.config_name}"
                raise ValueError(must_be(key, "a sweep of mnist_cnn.train", what))
            kind, now = before.sweeper._target_, self.whole.hydra.sweeper._target_
            if kind != now:
                wrong = must_be("hydra.sweeper", f"{kind} in {self.folder}", now)
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

    def run(self, jobs: Mapping[int, Job]) -> None:
        """Runs the jobs, by number, until each has ended. Those that have are left alone."""
        self.record(jobs)
        while left := {n: job for n, job in jobs.items() if self.settled(n) not in ENDS}:
            try:
                self.launch(left)
            except Exception as e:  # launchers raise what they like when a worker is killed
                line = f"a worker ended early, its job is resumed alone: {in_one_line(e)}"
                self.screen.console.print(line)
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
            note(self.job_folder(n) / FAILED, type="EndedEarly", error=error, traceback="")

    def launch(self, jobs: Mapping[int, Job]) -> None:
        place = f"hydra.sweep.dir={configuration.quote(self.folder)}"
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


def in_one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def identity(task: DictConfig) -> frozenset[tuple[str, Any]]:
    """What two jobs have in common if they are the same, however their overrides are written."""
    values = configuration.flat(task)
    del values["force"]
    return frozenset((k, repr(v) if isinstance(v, list) else v) for k, v in values.items())
