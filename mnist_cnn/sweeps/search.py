"""Hyperparameter search by Optuna in a sweep's folder, resumed by the same call."""

import math
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import optuna
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, BeforeValidator, ConfigDict, PositiveInt, ValidationError

from mnist_cnn.config.messages import sentences
from mnist_cnn.internals.hydra import Override
from mnist_cnn.runs.folder import differences, state
from mnist_cnn.runs.resume import NOT_REPEATED
from mnist_cnn.sweeps import stopped_by

NAME = "search"  # of the study in the database


def storage(folder: Path) -> optuna.storages.BaseStorage:
    """Return the storage of the study in a search's folder, an SQLite database."""
    return optuna.storages.get_storage(f"sqlite:///{folder.absolute() / 'study.db'}")


def short(mode: Any) -> Any:
    """Shorten Optuna's minimize and maximize to min and max."""
    return mode.removesuffix("imize") if isinstance(mode, str) else mode


class Options(BaseModel):
    """The options of hydra/sweeper=resumable_optuna."""

    model_config = ConfigDict(strict=True, extra="ignore")

    n_trials: PositiveInt
    n_jobs: PositiveInt
    seeds: PositiveInt
    metric: str | None
    mode: Annotated[Literal["min", "max"], BeforeValidator(short)]
    sampler: dict[str, Any]
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
        swept = {key: o for key, o in overrides.items() if o.is_sweep_override()}
        self.space = {key: distribution(o) for key, o in swept.items()}
        self.fixed = {key: str(o.input_line) for key, o in overrides.items() if key not in swept}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler(options.sampler, 0)  # check it before creating a file
        self.study = optuna.create_study(
            study_name=NAME,
            storage=storage(folder),
            direction="maximize" if options.mode == "max" else "minimize",
            load_if_exists=True,
        )
        search = {key: self.fixed[key] for key in self.fixed.keys() - NOT_REPEATED}
        search |= {key: repr(values) for key, values in self.space.items()}
        kept = options.model_dump(include={"metric", "mode", "seeds"})
        search |= {f"hydra.sweeper.{key}": value for key, value in kept.items()}
        before = self.study.user_attrs.get(NAME, search)
        for key, (old, new) in differences(before, search).items():
            raise ValueError(f"{key} must be {old} as in {folder}, got {new}; start another search")
        self.study.set_user_attr(NAME, search)

    def run(self, launch: Callable[..., Any]) -> None:
        """Run the missing trials, starting with those that were interrupted or failed."""
        batch = self.trials(TrialState.RUNNING)
        left = self.options.n_trials - len(self.trials(TrialState.COMPLETE, TrialState.PRUNED))
        while left > 0:
            for _ in range(0 if batch else min(self.options.n_jobs, left)):
                self.study.sampler = sampler(self.options.sampler, len(self.trials()))
                batch.append(self.study.ask(self.space))
            jobs = {name: job for trial in batch for name, job in self.jobs(trial).items()}
            returned = launch(list(jobs.values()), initial_job_idx=batch[0].number)
            values = dict(zip(jobs, [float(job.return_value) for job in returned], strict=True))
            for trial in batch:
                self.tell(trial.number, {name: values[name] for name in self.jobs(trial)})
            left -= len(batch)
            batch = []
            if stopped_by(self.folder):
                break

    def trials(self, *states: TrialState) -> list[Any]:
        return self.study.get_trials(deepcopy=False, states=states or None)

    def jobs(self, trial: FrozenTrial | optuna.Trial) -> dict[str, list[str]]:
        """Return the overrides of a trial's jobs, by the names of their folders."""
        names: dict[str, list[str]] = {str(trial.number): []}
        if self.options.seeds > 1:
            seeds = range(self.options.seeds)
            names = {f"{trial.number}-{n}": [f"seed={n}"] for n in seeds}
        point = [*self.fixed.values(), *(f"{key}={value}" for key, value in trial.params.items())]
        return {name: [*point, *seed, f"hydra.sweep.subdir={name}"] for name, seed in names.items()}

    def tell(self, number: int, values: Mapping[str, float]) -> None:
        """Tell the study how a trial ended, from its jobs' values and folders."""
        states = {state(self.folder / name) for name in values}
        if "pruned" in states:
            self.study.tell(number, state=TrialState.PRUNED)
        elif all(map(math.isfinite, values.values())):
            self.study.tell(number, statistics.mean(values.values()))
        # else a job failed or runs in another process: a resumed search runs the trial again


def distribution(override: Override) -> optuna.distributions.BaseDistribution:
    """Return the Optuna distribution for a sweep in Hydra's syntax."""
    if not override.is_interval_sweep():
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    sweep: Any = override.value()
    whole = isinstance(sweep.start, int) and isinstance(sweep.end, int)
    kind = IntDistribution if whole else FloatDistribution
    return kind(sweep.start, sweep.end, log="log" in sweep.tags)


def sampler(options: Mapping[str, Any], number: int) -> optuna.samplers.BaseSampler:
    """Return an Optuna sampler seeded by (seed, number): a resumed search draws the same values."""
    name = str(options.get("_target_"))
    kind = getattr(optuna.samplers, name.removeprefix("optuna.samplers."), None)
    if kind is None:
        raise ValueError(f"hydra.sweeper.sampler._target_: optuna.samplers has no {name}")
    arguments = {key: value for key, value in options.items() if not key.startswith("_")}
    seed = np.random.SeedSequence([arguments.pop("seed", 0), number]).generate_state(1)[0]
    return kind(**arguments, seed=int(seed))
