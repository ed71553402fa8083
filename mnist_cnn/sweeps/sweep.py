"""Sweeps: numbered jobs in one folder, each recorded whatever becomes of it, gone on with later.

`Grid` runs every combination of the values given, `Optuna` looks for good ones. Hydra starts them
for -m. Neither trusts what a launcher returns: a job's folder alone tells how it ended, so that a
job whose process was killed counts as well, and a sweep can be taken up again by any process.
"""

import contextlib
import contextvars
import copy
import functools
import json
import math
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_cnn.config.messages import must_be
from mnist_cnn.internals import hydra
from mnist_cnn.runs import checks, claim, configuration
from mnist_cnn.runs import state as state_
from mnist_cnn.runs.signals import SIGNALS, Interrupted
from mnist_cnn.sweeps.display import Screen
from mnist_cnn.sweeps.job import ENDS, POLL
from mnist_cnn.sweeps.launchers import EXTRAS, cancel, missing, submitted

ASIDE = ("submitit_local", "submitit_slurm", "ray")  # launchers that run in a thread of their own
JOBS = "jobs.json"  # in the sweep's folder: the overrides of each job, by its number
RETRIED = ".retried"  # there, too: the folders of failed trials that were tried again

Job = Sequence[str]  # its overrides


class Sweep(Sweeper):
    """What both ways of sweeping share.

    Args:
        params: values to sweep over, in Hydra's syntax, by key; the command line comes after them.
    """

    def __init__(self, params: Mapping[str, Any] | None):
        self.params = params or {}
        self.bases: dict[tuple[str, ...], DictConfig] = {}  # see `composed`

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        plugins, name = Plugins.instance(), config.hydra.runtime.choices["hydra/launcher"]
        if name in EXTRAS and config.hydra.launcher._target_ not in plugins.class_name_to_class:
            raise ValueError(f"hydra/launcher={name}: {missing(EXTRAS[name])}")
        self.launcher_name = name
        self.hydra_context, self.config, self.task_function = hydra_context, config, task_function
        self.parse = functools.cache(OverridesParser.create().parse_override)

    def sweep(self, arguments: list[str]) -> None:
        """Runs all jobs; ends the program with exit code 1 where any has failed."""
        assert self.config is not None
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        given = parser.parse_overrides(arguments)
        if any(o.key_or_group == "run_dir" for o in given):
            raise ValueError("run_dir must be each job's own folder; set hydra.sweep.dir instead")
        if "${" in str(place := Path(self.config.hydra.sweep.dir).absolute()):
            raise ValueError(must_be("hydra.sweep.dir", "a path without ${ (Hydra fails)", place))
        chosen = self.composed([str(o.input_line) for o in given if not o.is_sweep_override()])
        params = parser.parse_overrides([f"{key}={value}" for key, value in self.params.items()])
        # of the overrides of one key the last counts
        last = {o.get_key_element(): o for o in params if not self.is_lacking(o, chosen)}
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

    def search(self, swept: Mapping[str, Override], fixed: Job) -> None:
        """Runs the jobs that these overrides stand for, inside `self.opened`."""
        raise NotImplementedError

    def composed(self, job: Job) -> DictConfig:
        """The configuration of a job. Hydra composes it only for what is not a single value."""
        assert self.config is not None
        assert self.hydra_context is not None
        loader = self.hydra_context.config_loader
        values: dict[str, Any] = {}
        others = []
        for override in map(self.parse, job):
            key, value = override.key_or_group, override.value()
            single = override.type is OverrideType.CHANGE and not isinstance(value, dict)
            if single and override.package is None and not self.is_group(key):
                values[key] = value
            else:
                others.append(str(override.input_line))
        if (base := self.bases.get(tuple(others))) is None:
            base = hydra.task_of(loader.load_sweep_config(self.config, others))
            self.bases[tuple(others)] = base
        task = copy.deepcopy(base)
        try:
            for key, value in values.items():
                OmegaConf.update(task, key, value)
        except OmegaConfBaseException:
            loader.load_sweep_config(self.config, list(job))  # says which key it is
            raise
        return task

    def is_group(self, key: str) -> bool:
        assert self.hydra_context is not None
        return bool(self.hydra_context.config_loader.get_group_options(key))

    def is_lacking(self, param: Override, chosen: DictConfig) -> bool:
        """Whether what was chosen has no such key, as a model without dropout."""
        key, nothing = param.key_or_group, object()
        if self.is_group(key) or param.type is not OverrideType.CHANGE:
            return False
        if OmegaConf.select(chosen, key, default=nothing) is not nothing:
            return False
        print(f"{key} is not searched: this configuration has no such key")
        return True

    def checked(self, job: Job) -> frozenset[tuple[str, Any]]:
        """The `identity` of a job. Raises ValueError where its configuration is not allowed."""
        task = self.composed(job)
        checks.check_run(task)
        self.objective = task.objective
        return identity(task)

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """The sweep's folder, held by this process alone; then what became of the sweep.

        All jobs are to be checked before: from here on files are written.
        """
        assert self.config is not None
        assert self.hydra_context is not None
        claim.name_folder(self.config, "sweep")
        self.folder = Path(self.config.hydra.sweep.dir).absolute()
        self.check_folder()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.launcher = Plugins.instance().instantiate_launcher(  # it may write into the folder
            hydra_context=self.hydra_context, task_function=self.task_function, config=self.config
        )
        try:
            lock = FileLock(self.folder / state_.LOCK, timeout=0).acquire()
        except Timeout:
            raise ValueError(f"{self.folder}: another process is running this sweep") from None
        self.screen = Screen(self)
        try:
            with lock, self.screen:
                new = self.folder / f"{state_.SWEEP}.new"
                OmegaConf.save(self.config, new)
                new.replace(self.folder / state_.SWEEP)
                yield
        except Interrupted as e:
            raise Interrupted(e.number, f"go on with ckpt_path={self.folder}") from None

    def check_folder(self) -> None:
        """Raises ValueError where the folder is in use for anything but this sweep."""
        assert self.config is not None
        key = "hydra.sweep.dir"
        names = {path.name for path in self.folder.iterdir()} if self.folder.exists() else set()
        if others := sorted(names - {state_.LOCK, f"{state_.SWEEP}.new"}):
            if state_.SWEEP not in names:
                new = "a new or empty folder, or a sweep's"
                raise ValueError(must_be(key, new, f"{self.folder}, which has {others[0]}"))
            before = OmegaConf.load(self.folder / state_.SWEEP).hydra
            if before.job.config_name != "train":
                what = f"{self.folder}, a sweep of mnist_cnn.{before.job.config_name}"
                raise ValueError(must_be(key, "a sweep of mnist_cnn.train", what))
            kind, now = before.sweeper._target_, self.config.hydra.sweeper._target_
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

    def state(self, n: int) -> state_.State:
        with self.screen.asking:  # or one thread's question would look like a running job
            return state_.state(self.job_folder(n))

    def value(self, n: int) -> float | None:
        """The objective of a finished job; None where it has none."""
        results = json.loads((self.job_folder(n) / state_.RESULTS).read_text("utf-8"))
        value = results.get(self.objective.metric)
        return value if value is not None and math.isfinite(value) else None

    def run(self, jobs: Mapping[int, Job]) -> None:
        """Runs the jobs, by number, until each has ended. Those that have are left alone."""
        self.record(jobs)
        while left := {n: job for n, job in jobs.items() if self.settled(n) not in ENDS}:
            try:
                self.launch(left)
            except Exception as e:  # launchers raise what they like when a worker dies
                reason = " ".join(str(e).split()) or type(e).__name__
                self.screen.console.print(f"a worker died, what it was at goes on alone: {reason}")
            begun = [n for n in left if self.settled(n) not in ENDS and self.job_folder(n).exists()]
            if not begun and all(self.state(n) not in ENDS for n in left):
                begun = list(left)[:1]  # nothing has begun: at least this one is to have an end
            for n in begun:
                self.run_again(n, jobs[n])

    def run_again(self, n: int, job: Job) -> None:
        """A second and last time, alone: if it dies again, the cause is its own."""
        reason = "killed or out of memory"
        try:
            self.launch({n: job})
        except Exception as e:
            reason = " ".join(str(e).split()) or type(e).__name__
            if not self.job_folder(n).exists():
                raise ValueError(f"hydra/launcher={self.launcher_name}: {reason}") from e
        if self.settled(n) not in ENDS:
            error = f"the process died: {reason}"
            self.job_folder(n).mkdir(exist_ok=True)
            state_.note(self.job_folder(n) / state_.FAILED, type="Died", error=error, traceback="")

    def launch(self, jobs: Mapping[int, Job]) -> None:
        assert self.launcher is not None
        place = f"hydra.sweep.dir={configuration.quote(self.folder)}"
        numbered = [[*job, place, f"hydra.sweep.subdir={n}"] for n, job in jobs.items()]
        start = functools.partial(self.launcher.launch, numbered, initial_job_idx=min(jobs))
        if self.launcher_name in ASIDE:
            aside(start)
        else:
            start()

    def settled(self, n: int) -> state_.State:
        """What became of a job, when nobody is at it: workers can outlive a killed sweep."""
        while (state := self.state(n)) == "running":
            time.sleep(POLL)
        return state


def identity(task: DictConfig) -> frozenset[tuple[str, Any]]:
    """What two jobs have in common if they are the same, however their overrides are written."""
    values = configuration.flat(task)
    del values["force"]
    return frozenset((k, repr(v) if isinstance(v, list) else v) for k, v in values.items())


def aside(launch: Callable[[], Any]) -> None:
    """Calls a launcher in a thread of its own, whose processes don't hear the terminal's Ctrl-C.

    Ray and submitit lose what a signal's handler raises while they wait.
    """
    outcome: Future[Any] = Future()

    def work() -> None:
        if hasattr(signal, "pthread_sigmask"):  # processes inherit it
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            outcome.set_result(launch())
        except BaseException as e:
            jobs = submitted(traceback.walk_tb(e.__traceback__))
            for job in jobs:  # one has died, the others go on
                job.wait()
            outcome.set_exception(e)

    thread = threading.Thread(target=contextvars.copy_context().run, args=[work], daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            for number in SIGNALS:  # Ray installs a handler of SIGTERM that dumps its stack
                signal.signal(number, signal.getsignal(number))
            thread.join(POLL)
        outcome.result()
    except BaseException:
        if frame := sys._current_frames().get(thread.ident or 0):  # interrupted
            cancel(submitted(traceback.walk_stack(frame)))
        if "ray" in sys.modules:  # its jobs would go on, unwatched
            sys.modules["ray"].shutdown()
        raise
