"""Hyperparameter search by Optuna in a sweep's folder, resumed by the same call.

Workers, each a process, share the study. Each draws a trial, runs it to its end, and draws the
next: none waits for another, and the study has no batches.
"""

import contextlib
import math
import sqlite3
import statistics
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import numpy as np
import optuna
from filelock import FileLock
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PositiveInt,
    ValidationError,
)

from mnist_cnn.config.messages import must_be, sentences
from mnist_cnn.internals.hydra import Override
from mnist_cnn.runs.folder import differences, state
from mnist_cnn.runs.resume import NOT_REPEATED
from mnist_cnn.sweeps import stopped_by

STUDY, NAME = "study.db", "search"  # the database, and the study in it
DRAWING = ".study.lock"  # held by the worker that draws a trial
WORKER = "worker"  # attribute of a trial: the number of the worker that drew it

optuna.logging.set_verbosity(optuna.logging.WARNING)


def storage(folder: Path) -> optuna.storages.BaseStorage:
    """Return the storage of the study in a search's folder, an SQLite database."""
    # SQLite lets one process write at a time, and the others wait 5 s by default
    file, options = folder.absolute() / STUDY, {"timeout": 60, "check_same_thread": False}
    connect = partial(sqlite3.connect, file, **options)
    # the path is not in the URL, where ?, % and braces mean something else
    made = optuna.storages.RDBStorage(f"sqlite:///{STUDY}", engine_kwargs={"creator": connect})
    return optuna.storages.get_storage(made)


def report(
    storage: optuna.storages.BaseStorage,
    number: int,
    step: int,
    value: float,
    pruner: optuna.pruners.BasePruner,
) -> bool:
    """Add an intermediate value to a running trial; return whether the pruner prunes the trial."""
    study = storage.get_study_id_from_name(NAME)
    trial = storage.get_trial_id_from_study_id_trial_number(study, number)
    storage.set_trial_intermediate_value(trial, step, value)
    return pruner.prune(
        optuna.load_study(study_name=NAME, storage=storage), storage.get_trial(trial)
    )


def short(mode: Any) -> Any:
    """Shorten Optuna's minimize and maximize to min and max."""
    return mode.removesuffix("imize") if isinstance(mode, str) else mode


def seeded(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a sampler; ValueError if their seed is no number that NumPy takes."""
    seed = options.get("seed", 0)
    if type(seed) is not int or seed < 0:
        raise ValueError(must_be("hydra.sweeper.sampler.seed", "an integer of at least 0", seed))
    return options


class Options(BaseModel):
    """The options of hydra/sweeper=resumable_optuna."""

    model_config = ConfigDict(strict=True, extra="ignore")

    n_trials: PositiveInt
    n_jobs: PositiveInt
    seeds: PositiveInt
    metric: str | None
    mode: Annotated[Literal["min", "max"], BeforeValidator(short)]
    sampler: Annotated[dict[str, Any], AfterValidator(seeded)]
    pruner: dict[str, Any] | None
    params: dict[str, Any] | None = None

    @classmethod
    def of(cls, config: DictConfig) -> "Options":
        """Validate the options in a configuration; ValueError names those that are wrong."""
        try:
            return cls.model_validate(OmegaConf.to_container(config, resolve=True))
        except ValidationError as e:
            raise ValueError("; ".join(sentences(e, "hydra.sweeper"))) from None


class Search:
    """The study of a search, and the jobs of its trials, in folders named by the trial's number.

    Args:
        folder: the folder of the search, with the study's database.
        options: the options of the sweeper.
        overrides: the search space and fixed overrides, by key.

    Raises:
        ValueError: the folder has another search.
    """

    def __init__(self, folder: Path, options: Options, overrides: Mapping[str, Override]):
        self.folder, self.options = folder, options
        self.space = search_space(overrides)
        fixed = {key: o for key, o in overrides.items() if key not in self.space}
        self.fixed = {key: str(override.input_line) for key, override in fixed.items()}
        # check these before creating a file
        sampler(options.sampler, 0)
        self.pruner = pruner(options.pruner)
        self.storage = storage(folder)
        self.study = optuna.create_study(
            study_name=NAME,
            storage=self.storage,
            direction="maximize" if options.mode == "max" else "minimize",
            load_if_exists=True,
        )
        search = {key: self.fixed[key] for key in self.fixed.keys() - NOT_REPEATED}
        search |= {key: repr(values) for key, values in self.space.items()}
        kept = options.model_dump(include={"metric", "mode", "seeds"})
        search |= {f"hydra.sweeper.{key}": value for key, value in kept.items()}
        before = self.study.user_attrs.get(NAME, search)
        if not self.trials(TrialState.COMPLETE, TrialState.PRUNED):  # no job had the metric
            before = before | {"hydra.sweeper.metric": options.metric}
        for key, (old, new) in differences(before, search).items():
            raise ValueError(f"{key} must be {old} as in {folder}, got {new}; start another search")
        self.check_trials()
        self.study.set_user_attr(NAME, search)

    def check_trials(self) -> None:
        """Raise ValueError if another program has put a trial into the study.

        Its parameters become overrides of a job, which may name code to import.
        """
        for trial in self.trials():
            is_ours = trial.distributions == self.space and trial.params.keys() == self.space.keys()
            if not is_ours or trial.state is TrialState.WAITING:  # `ask` would take its parameters
                place = self.folder / STUDY
                raise ValueError(f"{place}: trial {trial.number} is not of this search")

    def run(self, launch: Callable[..., Any], worker: int = 0) -> None:
        """Run one trial after the other until there are n_trials.

        The first are those that this worker began earlier and that were interrupted or failed.

        Args:
            launch: runs jobs in this process, as the launch of Hydra's BasicLauncher.
            worker: the number of this worker, from 0 to n_jobs - 1.
        """
        if len(self.trials(TrialState.COMPLETE, TrialState.PRUNED)) >= self.options.n_trials:
            return
        running = self.trials(TrialState.RUNNING)
        left = [t for t in running if t.user_attrs[WORKER] % self.options.n_jobs == worker]
        while not stopped_by(self.folder):
            trial = left.pop(0) if left else self.draw(worker)
            if trial is None:
                return
            self.finish(trial, lambda job: launch([job], initial_job_idx=worker))

    def draw(self, worker: int) -> FrozenTrial | None:
        """Add the next trial to the study; return None if there are n_trials.

        Optuna adds the values of a new trial one by one. The trial is drawn in a copy of the study,
        and added at once: a kill leaves no trial that lacks values.
        """
        with FileLock(self.folder / DRAWING):
            number = len(self.trials())
            if number >= self.options.n_trials:
                return None
            copy = optuna.storages.InMemoryStorage()
            optuna.copy_study(from_study_name=NAME, from_storage=self.storage, to_storage=copy)
            drawn = sampler(self.options.sampler, number)
            study = optuna.load_study(study_name=NAME, storage=copy, sampler=drawn)
            study.ask(self.space).set_user_attr(WORKER, worker)
            here, there = (s.get_study_id_from_name(NAME) for s in (copy, self.storage))
            for key, value in copy.get_study_system_attrs(here).items():  # QMCSampler counts there
                self.storage.set_study_system_attr(there, key, value)
            self.study.add_trial(study.trials[-1])
            return study.trials[-1]

    def finish(self, trial: FrozenTrial, launch: Callable[[list[str]], Any]) -> None:
        """Run the jobs of a trial, and tell the study how it ended.

        A trial with a job that fails, or that runs in another process, is left as it is: a resumed
        search runs it again. One with a job that finishes without a finite value has failed for
        good.
        """
        values: list[float] = []
        for name, job in self.jobs(trial).items():
            try:
                (returned,) = launch(job)
            except SystemExit:  # without the metric
                self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                raise
            values.append(float(returned.return_value))
            ended = state(self.folder / name)
            pruned = ended == "pruned"
            if not pruned and not math.isfinite(values[-1]):
                if ended == "finished":
                    self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                return
            if pruned or self.hopeless(trial.number, values):
                self.study.tell(trial.number, state=TrialState.PRUNED, skip_if_finished=True)
                return
        self.study.tell(trial.number, statistics.mean(values), skip_if_finished=True)

    def hopeless(self, number: int, values: list[float]) -> bool:
        """Report the last value of a trial; return whether its other seeds are not worth running.

        Args:
            values: those of the seeds 0, 1, ...
        """
        if self.options.seeds == 1 or self.pruner is None:
            return False  # the steps of its trials are epochs, which the jobs report
        pruned = report(self.storage, number, len(values) - 1, values[-1], self.pruner)
        return pruned and len(values) < self.options.seeds

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states or None)

    def jobs(self, trial: FrozenTrial) -> dict[str, list[str]]:
        """Return the overrides of a trial's jobs, by the names of their folders."""
        names: dict[str, list[str]] = {str(trial.number): []}
        if self.options.seeds > 1:
            seeds = range(self.options.seeds)
            names = {f"{trial.number}-{n}": [f"seed={n}"] for n in seeds}
        point = [*self.fixed.values(), *(f"{key}={value}" for key, value in trial.params.items())]
        return {name: [*point, *seed, f"hydra.sweep.subdir={name}"] for name, seed in names.items()}


def check(
    config: DictConfig, overrides: Mapping[str, Override], objective: Mapping[str, str]
) -> None:
    """Raise ValueError for options of a search, or a search space by key, that are wrong.

    Args:
        objective: the `metric` and `mode` that the options must have, if they have a metric.
    """
    options = Options.of(config)
    of_objective = {key: objective[key] for key in ("metric", "mode") if key in objective}
    for key, value in of_objective.items():
        if (given := getattr(options, key)) not in (None, short(value)):
            raise ValueError(must_be(f"hydra.sweeper.{key}", f"objective.{key}, {value}", given))
    sampler(options.sampler, 0)
    pruner(options.pruner)
    search_space(overrides)


@contextlib.contextmanager
def blamed_on(key: str) -> Iterator[None]:
    """Turn what a value's own constructor raises into a ValueError that names the value's key."""
    try:
        yield
    except Exception as e:
        raise ValueError(f"{key}: {e}") from e


def search_space(
    overrides: Mapping[str, Override],
) -> dict[str, optuna.distributions.BaseDistribution]:
    """Return the distribution of each key that is swept."""
    space = {}
    for key, override in overrides.items():
        if override.is_sweep_override():
            with blamed_on(key):
                space[key] = distribution(override)
    return space


def distribution(override: Override) -> optuna.distributions.BaseDistribution:
    """Return the Optuna distribution for a sweep in Hydra's syntax."""
    sweep: Any = override.value()
    if getattr(sweep, "shuffle", False):  # anew at each start: a resumed search would differ
        raise ValueError("must be without shuffle, as a search draws at random")
    if not override.is_interval_sweep():
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    whole = isinstance(sweep.start, int) and isinstance(sweep.end, int)
    kind = IntDistribution if whole else FloatDistribution
    return kind(sweep.start, sweep.end, log="log" in sweep.tags)


def sampler(options: Mapping[str, Any], number: int) -> optuna.samplers.BaseSampler:
    """Return an Optuna sampler seeded by (seed, number): a resumed search draws the same values."""
    kind, arguments = named("sampler", options, optuna.samplers)
    seed = np.random.SeedSequence([arguments.pop("seed", 0), number]).generate_state(1)[0]
    with blamed_on("hydra.sweeper.sampler"):
        return kind(**arguments, seed=int(seed))


def pruner(options: Mapping[str, Any] | None) -> optuna.pruners.BasePruner | None:
    """Return a pruner of Optuna, or None for None."""
    if options is None:
        return None
    kind, arguments = named("pruner", options, optuna.pruners)
    with blamed_on("hydra.sweeper.pruner"), warnings.catch_warnings():  # of WilcoxonPruner
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return kind(**arguments)


def named(key: str, options: Mapping[str, Any], package: ModuleType) -> tuple[Any, dict[str, Any]]:
    """Return the class of a package that an option names by `_target_`, and its arguments."""
    name = str(options.get("_target_"))
    kind = getattr(package, name.removeprefix(f"{package.__name__}."), None)
    if kind is None:
        allowed = f"a class of {package.__name__}"
        raise ValueError(f"hydra.sweeper.{key}._target_ must be {allowed}, got {name}")
    return kind, {name: value for name, value in options.items() if not name.startswith("_")}
