"""Sweeps: numbered jobs in one folder, each recorded whatever becomes of it, gone on with later.

`Grid` runs every combination of the values given, `Optuna` looks for good ones. Hydra starts them
for -m. Neither trusts what a launcher returns: a job's folder alone tells how it ended, so that a
job whose process was killed counts as well, and a sweep can be taken up again by any process.
"""

import contextlib
import gc
import importlib.util
import itertools
import json
import logging
import math
import shutil
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep, Transformer
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mnist_cnn import runs, terminal
from mnist_cnn.config import TARGETS, Interrupted, check, install

log = logging.getLogger(__name__)

ENDS = ("finished", "failed", "pruned")
EXTRAS = {"joblib": "sweep", "submitit_local": "slurm", "submitit_slurm": "slurm", "ray": "ray"}
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

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        plugins, name = Plugins.instance(), config.hydra.runtime.choices["hydra/launcher"]
        if name in EXTRAS and config.hydra.launcher._target_ not in plugins.class_name_to_class:
            raise ValueError(f"hydra/launcher={name}: {missing(EXTRAS[name])}")
        self.launcher_name = name
        self.hydra_context, self.config, self.task_function = hydra_context, config, task_function

    def sweep(self, arguments: list[str]) -> None:
        """Runs all jobs; ends the program with exit code 1 where any has failed."""
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        given = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        # of the overrides of one key the last counts
        last = {o.get_key_element(): o for o in parser.parse_overrides(given)}
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

    @contextlib.contextmanager
    def opened(self, examples: Sequence[Job]) -> Iterator[None]:
        """The sweep's folder, held by this process alone; then what became of the sweep.

        Args:
            examples: jobs that must compose, and one of them be allowed, before anything is
                written.
        """
        assert self.config is not None
        assert self.hydra_context is not None
        self.validate_batch_is_legal(examples)
        faults = []
        for job in examples:
            composed = self.hydra_context.config_loader.load_sweep_config(self.config, list(job))
            try:
                check(runs.task_of(composed))
                break
            except ValueError as e:
                faults.append(e)
        else:
            raise faults[0]
        self.objective = composed.objective
        runs.claim(self.config, "sweep")
        self.folder = Path(self.config.hydra.sweep.dir).absolute()
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
            for job in submitted(e):
                job.cancel(check=False)
            raise Interrupted(e.number, f"go on with ckpt_path={self.folder}") from None

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
        while left := {n: job for n, job in jobs.items() if self.settled(n) not in ENDS}:
            try:
                self.launch(left)
            except Exception as e:  # launchers raise what they like when a worker dies
                reason = " ".join(str(e).split()) or type(e).__name__
                self.screen.console.print(f"a worker died, what it was at goes on alone: {reason}")
                for job in submitted(e):  # the others go on
                    job.wait()
                if "ray" in sys.modules:  # they would go on, unwatched
                    sys.modules["ray"].shutdown()
            begun = [n for n in left if self.settled(n) not in ENDS and self.job_folder(n).exists()]
            if not begun and all(self.state(n) not in ENDS for n in left):
                begun = list(left)[:1]  # nothing has begun: at least this one is to have an end
            for n in begun:
                self.run_again(n, jobs[n])

    def run_again(self, n: int, job: Job) -> None:
        """A second and last time, alone: if it dies again, the cause is its own."""
        try:
            self.launch({n: job})
        except Exception as e:
            if not self.job_folder(n).exists():
                reason = " ".join(str(e).split()) or type(e).__name__
                raise ValueError(f"hydra/launcher={self.launcher_name}: {reason}") from e
        if self.settled(n) not in ENDS:
            error = "the process died: killed or out of memory"
            self.job_folder(n).mkdir(exist_ok=True)
            runs.note(self.job_folder(n) / runs.FAILED, type="Died", error=error, traceback="")

    def launch(self, jobs: Mapping[int, Job]) -> None:
        assert self.launcher is not None
        for n in jobs:
            if not (self.job_folder(n) / runs.LAST).is_file():  # nothing to go on from
                shutil.rmtree(self.job_folder(n), ignore_errors=True)
        place = f"hydra.sweep.dir={runs.quote(self.folder)}"
        numbered = [[*job, place, f"hydra.sweep.subdir={n}"] for n, job in jobs.items()]
        self.launcher.launch(numbered, initial_job_idx=min(jobs))

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
        points = list(dict.fromkeys(itertools.product(*values)))
        with self.opened([[*point, *fixed] for point in points]):
            begun = self.begun()
            free = (n for n in itertools.count() if n not in begun.values())
            jobs = {}
            for point in points:
                job = [*point, *fixed]  # a run's name begins with what sets it apart
                known = begun.get(frozenset(job))
                n = next(free) if known is None else known
                jobs[n] = job
                self.screen.jobs[n] = ",".join(point)
            for n in jobs:
                if self.state(n) == "failed":
                    shutil.rmtree(self.job_folder(n))
            self.screen.expect(len(jobs))
            size = self.max_batch_size or len(jobs)
            for first in range(0, len(jobs), size):
                self.run(dict(list(jobs.items())[first : first + size]))

    def begun(self) -> dict[frozenset[str], int]:
        """The number of each job that has begun, by its overrides."""
        numbers = [int(path.name) for path in self.folder.iterdir() if path.name.isdecimal()]
        return {
            frozenset(OmegaConf.load(self.job_folder(n) / runs.OVERRIDES)): n
            for n in numbers
            # before that the file may be there in part
            if self.state(n) != "new" and (self.job_folder(n) / runs.OVERRIDES).is_file()
        }


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
        self, n_trials: int, n_jobs: int, sampler: DictConfig, params: Mapping[str, Any] | None
    ):
        super().__init__(params)
        if importlib.util.find_spec("optuna") is None:
            raise ValueError(f"hparams_search=optuna: {missing('sweep')}")
        self.n_trials, self.n_jobs, self.sampler = n_trials, n_jobs, sampler

    def search(self, swept: Mapping[str, Override], fixed: Job) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        space = {key: distribution(override) for key, override in swept.items()}
        ends = {
            key: d.choices
            if isinstance(d, optuna.distributions.CategoricalDistribution)
            else (d.low, d.high)
            for key, d in space.items()
        }
        first = {key: values[0] for key, values in ends.items()}
        examples = [first, *({**first, k: v} for k, values in ends.items() for v in values[1:])]
        with self.opened([[*point(example), *fixed] for example in examples]):
            self.study = optuna.create_study(
                study_name=STUDY,
                storage=storage(self.folder),
                direction="maximize" if self.objective.mode == "max" else "minimize",
                load_if_exists=True,
            )
            self.take_up(set(space))
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
                self.run({n: [*point(params), *fixed] for n, params in batch.items()})
                for n in batch:
                    self.tell(n)

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

    def take_up(self, keys: set[str]) -> None:
        """Puts the study right after an interruption; what failed waits to be tried again."""
        for trial in self.trials("RUNNING"):
            if self.settled(trial.number) in ENDS or set(trial.params) != keys:
                self.tell(trial.number)
        repeated = {trial.user_attrs.get("repeats") for trial in self.trials()}
        for trial in self.trials("FAIL"):
            n, folder = trial.number, self.job_folder(trial.number)
            if folder.exists():
                if n not in repeated and set(trial.params) == keys:
                    self.study.enqueue_trial(trial.params, user_attrs={"repeats": n})
                shutil.rmtree(folder)
        for trial in self.trials("COMPLETE", "PRUNED"):
            self.screen.jobs[trial.number] = label(trial.params)


def storage(sweep: Path | str) -> str:
    """The address of the study in a sweep's folder."""
    from sqlalchemy.engine import URL

    # as a URI, since SQLAlchemy and Optuna give a meaning to ?, % and { in a path
    file = Path(sweep, "study.db").absolute().as_uri()
    return URL.create("sqlite", database=file, query={"uri": "true"}).render_as_string()


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


def submitted(error: BaseException) -> Iterable[Any]:
    """The jobs of submitit that a launcher was waiting for, which has no other way to tell them."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    jobs = (job for frame in frames for job in frame.f_locals.get("jobs", ()))
    return [job for job in jobs if type(job).__module__.startswith("submitit.")]


def missing(extra: str) -> str:
    return f"not installed: {install(extra)}"


def attempt(train: Callable[[DictConfig], Any], cfg: DictConfig) -> None:
    """Runs one job of a sweep without a word; how it ended, `runs.recorded` tells in its folder.

    Where the folder has a checkpoint, the job goes on from there.
    """
    import torch

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
