"""Sweeps: numbered jobs in one folder, each recorded whatever becomes of it, gone on with later.

`Grid` runs every combination of the values given, `Optuna` looks for good ones. Hydra starts them
for -m. Neither trusts what a launcher returns: a job's folder alone tells how it ended, so that a
job whose process was killed counts as well, and a sweep can be taken up again by any process.
"""

import contextlib
import contextvars
import copy
import functools
import gc
import importlib.util
import itertools
import json
import logging
import math
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, RangeSweep, Transformer
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mnist_cnn import runs, terminal
from mnist_cnn.config import SIGNALS, TARGETS, Interrupted, install, must_be, plain

log = logging.getLogger(__name__)

ENDS = ("finished", "failed", "pruned")
EXTRAS = {"joblib": "sweep", "submitit_local": "slurm", "submitit_slurm": "slurm", "ray": "ray"}
ASIDE = ("submitit_local", "submitit_slurm", "ray")  # launchers that run in a thread of their own
JOBS = "jobs.json"  # in the sweep's folder: the overrides of each job, by its number
RETRIED = ".retried"  # there, too: the folders of failed trials that were tried again
STUDY = "sweep"  # its name in the database
POLL = 0.2  # seconds

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
            base = runs.task_of(loader.load_sweep_config(self.config, others))
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
        runs.check_run(task)
        self.objective = task.objective
        return identity(task)

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """The sweep's folder, held by this process alone; then what became of the sweep.

        All jobs are to be checked before: from here on files are written.
        """
        assert self.config is not None
        assert self.hydra_context is not None
        runs.name_folder(self.config, "sweep")
        self.folder = Path(self.config.hydra.sweep.dir).absolute()
        self.check_folder()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.launcher = Plugins.instance().instantiate_launcher(  # it may write into the folder
            hydra_context=self.hydra_context, task_function=self.task_function, config=self.config
        )
        try:
            lock = FileLock(self.folder / runs.LOCK, timeout=0).acquire()
        except Timeout:
            raise ValueError(f"{self.folder}: another process is running this sweep") from None
        self.screen = Screen(self)
        try:
            with lock, self.screen:
                new = self.folder / f"{runs.SWEEP}.new"
                OmegaConf.save(self.config, new)
                new.replace(self.folder / runs.SWEEP)
                yield
        except Interrupted as e:
            raise Interrupted(e.number, f"go on with ckpt_path={self.folder}") from None

    def check_folder(self) -> None:
        """Raises ValueError where the folder is in use for anything but this sweep."""
        assert self.config is not None
        key = "hydra.sweep.dir"
        names = {path.name for path in self.folder.iterdir()} if self.folder.exists() else set()
        if others := sorted(names - {runs.LOCK, f"{runs.SWEEP}.new"}):
            if runs.SWEEP not in names:
                new = "a new or empty folder, or a sweep's"
                raise ValueError(must_be(key, new, f"{self.folder}, which has {others[0]}"))
            before = OmegaConf.load(self.folder / runs.SWEEP).hydra
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

    def state(self, n: int) -> runs.State:
        with self.screen.asking:  # or one thread's question would look like a running job
            return runs.state(self.job_folder(n))

    def value(self, n: int) -> float | None:
        """The objective of a finished job; None where it has none."""
        results = json.loads((self.job_folder(n) / runs.RESULTS).read_text("utf-8"))
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
            runs.note(self.job_folder(n) / runs.FAILED, type="Died", error=error, traceback="")

    def launch(self, jobs: Mapping[int, Job]) -> None:
        assert self.launcher is not None
        place = f"hydra.sweep.dir={runs.quote(self.folder)}"
        numbered = [[*job, place, f"hydra.sweep.subdir={n}"] for n, job in jobs.items()]
        start = functools.partial(self.launcher.launch, numbered, initial_job_idx=min(jobs))
        if self.launcher_name in ASIDE:
            aside(start)
        else:
            start()

    def settled(self, n: int) -> runs.State:
        """What became of a job, when nobody is at it: workers can outlive a killed sweep."""
        while (state := self.state(n)) == "running":
            time.sleep(POLL)
        return state


class Grid(Sweep):
    """Every combination of the values given.

    Args:
        max_batch_size: so many jobs are handed to the launcher at once; None for all.
        params: see `Sweep`.
    """

    def __init__(self, max_batch_size: int | None, params: Mapping[str, Any] | None = None):
        super().__init__(params)
        self.max_batch_size = max_batch_size

    def search(self, swept: Mapping[str, Override], fixed: Job) -> None:
        for key, override in swept.items():
            if not override.is_discrete_sweep():
                raise ValueError(f"{override.input_line}: add hparams_search=optuna, or list {key}")
        values = [[f"{k}={v}" for v in o.sweep_string_iterator()] for k, o in swept.items()]
        points = list(itertools.product(*values))
        # a run's name begins with what sets it apart
        asked = [[*point, *fixed] for point in points]
        identities = [self.checked(job) for job in asked]
        with self.opened():
            recorded = self.recorded()
            numbers = {identity(self.composed(job)): n for n, job in recorded.items()}
            free = itertools.count(max(recorded, default=-1) + 1)
            jobs = {}
            for point, job, own in zip(points, asked, identities, strict=True):
                n = numbers[own] if own in numbers else next(free)
                numbers[own], jobs[n], self.screen.jobs[n] = n, job, ",".join(point)
            for n in jobs:
                if self.state(n) == "failed":  # it goes on where it has a checkpoint
                    (self.job_folder(n) / runs.FAILED).unlink()
            self.screen.expect(len(jobs))
            size = self.max_batch_size or len(jobs)
            for first in range(0, len(jobs), size):
                self.run(dict(list(jobs.items())[first : first + size]))


class Optuna(Sweep):
    """Looks for the values with the best objective; a trial's number is its job's.

    The study lies in the sweep's folder. A trial is drawn from (seed, its number), so a search that
    was stopped and taken up draws as one that was not.

    Args:
        n_trials: how many there are to be; those that failed are tried again when it is taken up.
        n_jobs: how many are drawn and launched at once.
        sampler: one of optuna.samplers, with its `seed`.
        params: see `Sweep`; intervals are allowed.
    """

    def __init__(
        self,
        n_trials: int,
        n_jobs: int,
        sampler: DictConfig,
        params: Mapping[str, Any] | None = None,
    ):
        super().__init__(params)
        if importlib.util.find_spec("optuna") is None:
            raise ValueError(f"hparams_search=optuna: {missing('sweep')}")
        self.n_trials, self.n_jobs, self.sampler = n_trials, n_jobs, sampler

    def search(self, swept: Mapping[str, Override], fixed: Job) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.fixed = fixed
        self.space = space = {key: distribution(override) for key, override in swept.items()}
        ends = {
            key: d.choices
            if isinstance(d, optuna.distributions.CategoricalDistribution)
            else (d.low, d.high)
            for key, d in space.items()
        }
        first = {key: values[0] for key, values in ends.items()}
        examples = [first, *({**first, k: v} for k, values in ends.items() for v in values[1:])]
        for example in examples:
            self.checked(self.job(example))
        with self.opened():
            self.study = optuna.create_study(
                study_name=STUDY,
                storage=storage(self.folder),
                direction="maximize" if self.objective.mode == "max" else "minimize",
                load_if_exists=True,
            )
            self.take_up()
            left = self.n_trials - self.count("COMPLETE", "PRUNED")
            while left > 0:
                batch = {t.number: t.params for t in self.trials("RUNNING")[:left]}
                while len(batch) < min(self.n_jobs, left):
                    number = len(self.trials()) - self.count("WAITING")
                    self.study.sampler = self.seeded(number)
                    trial = self.study.ask(space)
                    batch[trial.number] = trial.params
                left -= len(batch)
                self.screen.jobs.update({n: label(p) for n, p in batch.items()})
                self.screen.expect(len(self.screen.jobs) + left)
                self.run({n: self.job(params) for n, params in batch.items()})
                for n in batch:
                    self.tell(n)

    def job(self, params: Mapping[str, Any]) -> Job:
        return [*point(params), *self.fixed]

    def check_folder(self) -> None:
        super().check_folder()
        if not self.recorded():
            return
        import optuna

        if not (self.folder / "study.db").exists():
            raise ValueError(f"{self.folder}: study.db is missing; start a new search")
        whole = OmegaConf.load(self.folder / runs.SWEEP)
        assert isinstance(whole, DictConfig)
        for key, value in plain(whole, "objective").items():
            if value != self.objective[key]:
                wrong = must_be(
                    f"objective.{key}", f"{value} in {self.folder}", self.objective[key]
                )
                raise ValueError(f"{wrong}; start a new search")
        study = optuna.load_study(study_name=STUDY, storage=storage(self.folder))
        for trial in study.get_trials(deepcopy=False):
            for key in trial.distributions.keys() & self.space.keys():
                old, new = trial.distributions[key], self.space[key]
                try:
                    optuna.distributions.check_distribution_compatibility(old, new)
                except ValueError:
                    wrong = must_be(f"{key} in {self.folder}", f"like {old}", new)
                    raise ValueError(
                        f"{wrong}; fix it to one value, or start a new search"
                    ) from None

    def seeded(self, number: int) -> Any:
        import numpy as np

        seed = np.random.SeedSequence([self.sampler.seed, number]).generate_state(1)[0]
        return instantiate(self.sampler, seed=int(seed), _execution_whitelist_=TARGETS)

    def trials(self, *states: str) -> list[Any]:
        trials = self.study.get_trials(deepcopy=False)
        return [t for t in trials if not states or t.state.name in states]

    def count(self, *states: str) -> int:
        return len(self.trials(*states))

    def tell(self, n: int) -> None:
        """Writes into the study what became of a trial that has ended."""
        state = self.state(n)
        value = self.value(n) if state == "finished" else None
        if value is not None:
            self.study.tell(n, value)
        else:
            from optuna.trial import TrialState

            self.study.tell(n, state=TrialState.PRUNED if state == "pruned" else TrialState.FAIL)

    def take_up(self) -> None:
        """Puts the study right after an interruption; what failed waits to be tried again."""
        recorded = self.recorded()
        for trial in self.trials("RUNNING"):
            n, job = trial.number, self.job(trial.params)
            changed = trial.params.keys() != self.space.keys() or recorded.get(n, job) != job
            if changed or self.settled(n) in ENDS:
                self.tell(n)
        repeated = {trial.user_attrs.get("repeats") for trial in self.trials()}
        for trial in self.trials("FAIL"):
            n, folder = trial.number, self.job_folder(trial.number)
            if folder.exists():
                if n not in repeated and trial.params.keys() == self.space.keys():
                    self.study.enqueue_trial(trial.params, user_attrs={"repeats": n})
                (self.folder / RETRIED).mkdir(exist_ok=True)
                folder.rename(self.folder / RETRIED / folder.name)
        for trial in self.trials("COMPLETE", "PRUNED"):
            self.screen.jobs[trial.number] = label(trial.params)


def storage(sweep: Path | str) -> str:
    """The address of the study in a sweep's folder."""
    from sqlalchemy.engine import URL

    # as a URI, since SQLAlchemy and Optuna give a meaning to ?, % and { in a path
    file = Path(sweep, "study.db").absolute().as_uri()
    return URL.create("sqlite", database=file, query={"uri": "true"}).render_as_string()


def identity(task: DictConfig) -> frozenset[tuple[str, Any]]:
    """What two jobs have in common if they are the same, however their overrides are written."""
    values = runs.flat(task)
    del values["force"]
    return frozenset((k, repr(v) if isinstance(v, list) else v) for k, v in values.items())


def point(params: Mapping[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in params.items()]


def label(params: Mapping[str, Any]) -> str:
    """The same for people: shorter."""
    short = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in params.items()}
    return ",".join(point(short))


def distribution(override: Override) -> Any:
    """Optuna's distribution of a sweep in Hydra's syntax."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    sweep: Any = override.value()
    if override.is_interval_sweep():
        whole = isinstance(sweep.start, int) and isinstance(sweep.end, int)
        kind = IntDistribution if whole else FloatDistribution
        return kind(sweep.start, sweep.end, log="log" in sweep.tags)
    if isinstance(sweep, RangeSweep) and not sweep.shuffle and not sweep.transformers:
        values = sweep.range()
        if isinstance(values, range) and values:
            return IntDistribution(min(values), max(values), step=abs(values.step))
    choices: Any = override.sweep_iterator(transformer=Transformer.encode)
    return CategoricalDistribution(list(choices))


class Screen(threading.Thread):
    """Prints a line for each job as it ends, whoever runs it, and the sum of it all at the end.

    It looks at the folders from a thread of its own, since launchers return when all is over.
    """

    def __init__(self, sweep: Sweep):
        super().__init__(daemon=True)
        self.sweep, self.objective = sweep, sweep.objective
        self.jobs: dict[int, str] = {}  # what sets them apart
        self.ends: dict[int, runs.State] = {}
        self.best: tuple[float, int] | None = None
        self.asking, self.over = threading.Lock(), threading.Event()
        self.console = terminal.console()
        self.bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("jobs {task.description}"),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("", total=None)
        self.total = 0

    def __enter__(self) -> "Screen":
        self.bar.start()
        return self

    def expect(self, total: int) -> None:
        """So many jobs there are to be; those that have ended by the first call are not shown."""
        self.total = total
        self.bar.update(self.task, total=total)
        if not self.is_alive():
            if before := sum(1 for n in self.jobs if self.ended(n)):
                self.console.print(f"{before}/{total}  ended before")
            self.start()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.over.set()
        if self.is_alive():
            self.join()
            self.look()
        self.bar.stop()

    def run(self) -> None:
        while not self.over.wait(POLL):
            self.look()

    def look(self) -> None:
        for n, name in list(self.jobs.items()):
            if n not in self.ends and self.ended(n):
                cells = [f"{len(self.ends)}/{self.total}", f"job {n}", name, self.outcome(n)]
                if self.best:
                    cells.append(f"best {self.best[0]:.4f} (job {self.best[1]})")
                self.console.print("  ".join(filter(None, cells)))
        self.bar.update(self.task, completed=len(self.ends), description=self.running())

    def ended(self, n: int) -> bool:
        """Takes note of a job's end."""
        files = (runs.RESULTS, runs.FAILED, runs.PRUNED)
        folder = self.sweep.job_folder(n)
        # the lock is asked only where it is worth it
        if not any((folder / file).exists() for file in files):
            return False
        if (state := self.sweep.state(n)) not in ENDS:
            return False
        self.ends[n] = state
        if state == "finished" and (value := self.sweep.value(n)) is not None:
            sign = 1 if self.objective.mode == "min" else -1
            if self.best is None or sign * value < sign * self.best[0]:
                self.best = value, n
        return True

    def outcome(self, n: int) -> str:
        folder, state, metric = self.sweep.job_folder(n), self.ends[n], self.objective.metric
        if state == "finished":
            value = self.sweep.value(n)
            return "finished" if value is None else f"{metric} {value:.4f}"
        if state == "pruned":
            noted = json.loads((folder / runs.PRUNED).read_text("utf-8"))
            return f"pruned after epoch {noted['epoch']}: {metric} {noted['value']:.4f}"
        noted = json.loads((folder / runs.FAILED).read_text("utf-8"))
        lines = noted["error"].strip().splitlines()
        return f"failed: {lines[0] if lines else noted['type']}"

    def running(self) -> str:
        """The jobs that are under way, by the epochs that they have behind them."""
        under_way = []
        for n in self.jobs.keys() - self.ends.keys():
            with contextlib.suppress(OSError):  # not begun, or just being written
                rows = (self.sweep.job_folder(n) / "history.csv").read_text("utf-8").count("\n") - 1
                under_way.append(f"{n}: {rows} epochs")
        return f"({', '.join(under_way)})" if under_way else ""


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


def submitted(frames: Iterable[tuple[FrameType, int]]) -> list[Any]:
    """The jobs of submitit that a launcher is waiting for, which has no other way to tell them."""
    jobs = (job for frame, _ in frames for job in frame.f_locals.get("jobs", ()))
    return [job for job in jobs if type(job).__module__.startswith("submitit.")]


def cancel(jobs: Sequence[Any]) -> None:
    """Ends jobs of submitit; those on this machine save a checkpoint first."""
    local = [job for job in jobs if type(job).__name__ == "LocalJob"]
    for job in jobs:
        if job not in local:
            job.cancel(check=False)
    for seconds in itertools.count():
        running = [job for job in local if not job.done()]
        if not running:
            return
        if seconds % 10 == 0:  # again, for one that was just starting and did not hear it
            for job in running:
                os.kill(int(job.job_id), signal.SIGTERM)  # its controller hands it on
        time.sleep(1)


def missing(extra: str) -> str:
    return f"not installed: {install(extra)}"


def attempt(train: Callable[[DictConfig], Any], cfg: DictConfig) -> None:
    """Runs one job of a sweep without a word; how it ended, `runs.recorded` tells in its folder.

    Where the folder has a checkpoint, the job goes on from there.
    """
    import torch

    if "SUBMITIT_LOCAL_JOB_ID" in os.environ:  # submitit ignores it
        signal.signal(signal.SIGTERM, interrupt)
    folder = Path(cfg.run_dir)
    for part, key, value in (
        ("callbacks.progress", "quiet", True),
        ("callbacks", "summary", None),
        ("trainer", "enable_model_summary", False),
    ):
        if isinstance(node := OmegaConf.select(cfg, part), DictConfig) and key in node:
            node[key] = value
    if (folder / runs.LAST).is_file():
        cfg.ckpt_path = str(folder / runs.LAST)
    try:
        with own_gpu(cfg):
            train(cfg)
    except runs.Pruned as e:
        log.info(e)
    except Exception:
        log.exception("the job failed")
    finally:  # the next job is to find the memory free
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def interrupt(number: int, frame: Any) -> None:
    raise Interrupted(number)


@contextlib.contextmanager
def own_gpu(cfg: DictConfig) -> Iterator[None]:
    """Where there are several GPUs: waits for one that no other job of the sweep is using."""
    import torch

    count = torch.cuda.device_count()
    wanted = OmegaConf.select(cfg, "trainer.accelerator") in ("auto", "gpu", "cuda")
    if count < 2 or not wanted or OmegaConf.select(cfg, "trainer.devices") != 1:
        yield
        return
    sweep, host = Path(cfg.run_dir).parent, socket.gethostname()
    for k in itertools.cycle(range(count)):
        lock = FileLock(sweep / f".gpu-{host}-{k}.lock", timeout=0)
        try:
            held = lock.acquire()
        except Timeout:
            time.sleep(POLL / count)
            continue
        with held:
            cfg.trainer.devices = [k]
            yield
        return
