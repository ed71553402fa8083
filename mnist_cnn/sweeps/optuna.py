"""A search by Optuna."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mnist_cnn.internals.hydra import Job, distribution, make_allowed
from mnist_cnn.sweeps.folder import ENDS, SWEEP
from mnist_cnn.sweeps.sweep import RETRIED, Sweep

STUDY = "sweep"  # its name in the database


class Optuna(Sweep):
    """Looks for the values with the best objective; a trial's number is its job's.

    The study lies in the sweep's folder. A trial is drawn from (seed, its number), so a resumed
    search draws as one that was not interrupted.

    Args:
        n_trials: number of trials; those that failed are tried again when the search is resumed.
        n_jobs: number of trials that are drawn and launched at once.
        sampler: one of optuna.samplers, with its `seed`.
        options: see `Sweep`; in its `params` intervals are allowed.
    """

    def __init__(self, n_trials: int, n_jobs: int, sampler: Mapping[str, Any], **options: Any):
        super().__init__(**options)
        if importlib.util.find_spec("optuna") is None:
            raise ValueError(self.missing("optuna"))
        self.n_trials, self.n_jobs, self.sampler = n_trials, n_jobs, sampler

    def search(self, swept: Mapping[str, Any], fixed: Job) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.fixed = fixed
        self.space = {key: distribution(override) for key, override in swept.items()}
        for example in examples(self.space):
            self.checked(self.job(example))
        with self.opened():
            self.study = optuna.create_study(
                study_name=STUDY,
                storage=storage(self.folder),
                direction="maximize" if self.objective.mode == "max" else "minimize",
                load_if_exists=True,
            )
            self.repair()
            left = self.n_trials - len(self.trials("COMPLETE", "PRUNED"))
            while left > 0 and not self.over:
                batch = {t.number: t.params for t in self.trials("RUNNING")[:left]}
                while len(batch) < min(self.n_jobs, left):
                    number = len(self.trials()) - len(self.trials("WAITING"))
                    self.study.sampler = self.seeded(number)
                    trial = self.study.ask(self.space)
                    batch[trial.number] = trial.params
                left -= len(batch)
                self.screen.jobs.update({n: label(p) for n, p in batch.items()})
                self.screen.expect(len(self.screen.jobs) + left)
                self.run({n: self.job(params) for n, params in batch.items()})
                for n in batch:
                    if self.state(n) in ENDS:
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
        before = OmegaConf.select(OmegaConf.load(self.folder / SWEEP), self.OBJECTIVE)
        for key in ("metric", "mode"):
            then, now = before.get(key), self.objective[key]
            if then is not None and then != now:
                raise ValueError(
                    f"{self.OBJECTIVE}.{key} must be {then} in {self.folder}, got {now}; "
                    "start a new search"
                )
        study = optuna.load_study(study_name=STUDY, storage=storage(self.folder))
        for trial in study.get_trials(deepcopy=False):
            for key in trial.distributions.keys() & self.space.keys():
                old, new = trial.distributions[key], self.space[key]
                try:
                    optuna.distributions.check_distribution_compatibility(old, new)
                except ValueError:
                    raise ValueError(
                        f"{key} in {self.folder} must be like {old}, got {new}; fix it to one "
                        "value, or start a new search"
                    ) from None

    def seeded(self, number: int) -> Any:
        import numpy as np

        seed = np.random.SeedSequence([self.sampler["seed"], number]).generate_state(1)[0]
        return make_allowed(self.sampler, self.ALLOWED, seed=int(seed))

    def trials(self, *states: str) -> list[Any]:
        trials = self.study.get_trials(deepcopy=False)
        return [t for t in trials if not states or t.state.name in states]

    def tell(self, n: int) -> None:
        """Writes into the study what became of a trial that has ended."""
        state = self.state(n)
        value = self.value(n) if state == "finished" else None
        if value is not None:
            self.study.tell(n, value)
        else:
            from optuna.trial import TrialState

            self.study.tell(n, state=TrialState.PRUNED if state == "pruned" else TrialState.FAIL)

    def repair(self) -> None:
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


def point(params: Mapping[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in params.items()]


def label(params: Mapping[str, Any]) -> str:
    """The same for people: shorter."""
    short = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in params.items()}
    return ",".join(point(short))


def examples(space: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Points of a space in which each end of an interval and each choice is there once."""
    ends = {
        key: values.choices if hasattr(values, "choices") else (values.low, values.high)
        for key, values in space.items()
    }
    first = {key: values[0] for key, values in ends.items()}
    return [first, *({**first, k: v} for k, values in ends.items() for v in values[1:])]
