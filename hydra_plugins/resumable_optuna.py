"""hydra/sweeper=resumable_optuna: a search by Optuna that the same command resumes.

For every Hydra application in this environment, see docs/usage.md. Hydra looks for plugins in the
modules of this namespace.
"""

import inspect
import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class ResumableOptunaSweeper(Sweeper):
    """Looks for the values with the best objective, which the jobs return.

    Args:
        n_trials: number of trials. Those that fail are replaced when the search is resumed.
        n_jobs: number of trials that are drawn and launched at once.
        mode: min or max.
        sampler: `_target_`, one of optuna.samplers, and its arguments with `seed`.
        params: the space, and fixed values, in Hydra's syntax by key; the command line's come after.
        seeds: each trial is the mean of this number of jobs with seeds from 0, and fails where one
            does; none is pruned then.
        seed_key: the key of a job's seed.
        number_key: a key that gets the trial's number, for who reports to the study and prunes.
        metric: the objective's name; a search is resumed with the same.
    """

    def __init__(
        self,
        n_trials: int,
        n_jobs: int,
        mode: str,
        sampler: Mapping[str, Any],
        params: Mapping[str, str] | None = None,
        seeds: int = 1,
        seed_key: str = "seed",
        number_key: str | None = None,
        metric: str | None = None,
    ):
        self.n_trials, self.n_jobs = n_trials, n_jobs
        self.mode, self.metric = mode, metric
        self.sampler: Any = OmegaConf.to_container(OmegaConf.create(dict(sampler)), resolve=True)
        self.params = dict(params or {})
        self.seeds, self.seed_key, self.number_key = seeds, seed_key, number_key

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.context, self.folder = hydra_context, Path(config.hydra.sweep.dir)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        import optuna

        from mnist_cnn.sweeps import study

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        given = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        overrides = {o.get_key_element(): o for o in parser.parse_overrides(given)}
        swept = {key: o for key, o in overrides.items() if o.is_sweep_override()}
        fixed = [str(o.input_line) for key, o in overrides.items() if key not in swept]
        space = {key: study.distribution(o) for key, o in swept.items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        self.study = optuna.create_study(
            study_name=study.NAME,
            storage=study.storage(self.folder),
            direction="maximize" if self.mode == "max" else "minimize",
            load_if_exists=True,
        )
        self.compare(space, fixed)
        left = self.n_trials - len(self.trials("COMPLETE", "PRUNED"))
        while left > 0:
            batch = {t.number: t.params for t in self.trials("RUNNING")[:left]}  # interrupted
            while len(batch) < min(self.n_jobs, left):
                self.study.sampler = study.sampler(self.sampler, len(self.trials()))
                trial = self.study.ask(space)
                batch[trial.number] = trial.params
            self.run(batch, fixed)
            left -= len(batch)

    def compare(self, space: Mapping[str, Any], fixed: list[str]) -> None:
        """Raise ValueError where the study in the folder is of another search; else note this one."""
        from optuna.distributions import distribution_to_json

        now = {
            "objective": f"{self.metric} ({self.mode})",
            "space": {key: json.loads(distribution_to_json(d)) for key, d in sorted(space.items())},
            "fixed": sorted(fixed),
            "seeds": self.seeds,
        }
        before = self.study.user_attrs
        for key, value in now.items():
            if key in before and before[key] != value:
                told = f"{key} must be {before[key]} as in {self.folder}, got {value}"
                raise ValueError(f"hparams_search: {told}; start a new search")
        for key, value in now.items():
            self.study.set_user_attr(key, value)

    def trials(self, *states: str) -> list[Any]:
        trials = self.study.get_trials(deepcopy=False)
        return [t for t in trials if not states or t.state.name in states]

    def run(self, batch: Mapping[int, Mapping[str, Any]], fixed: list[str]) -> None:
        """Launch trials, by number, and tell the study how they ended."""
        from optuna.trial import TrialState

        from mnist_cnn.runs.folder import state

        names = {number: self.names(number) for number in batch}
        jobs = []
        for number, params in batch.items():
            point = [f"{key}={value}" for key, value in params.items()]
            for name, own in names[number].items():
                jobs.append([*fixed, *point, *own, f"hydra.sweep.subdir={name}"])
        returned = iter(self.launcher.launch(jobs, initial_job_idx=min(batch)))
        for number in batch:
            values = [float(next(returned).return_value) for _ in names[number]]
            if any(state(self.folder / name) == "pruned" for name in names[number]):
                self.study.tell(number, state=TrialState.PRUNED)
            elif all(map(math.isfinite, values)):
                self.study.tell(number, statistics.mean(values))
            else:
                self.study.tell(number, state=TrialState.FAIL)

    def names(self, number: int) -> dict[str, list[str]]:
        """The folders of a trial's jobs, and what sets each job apart."""
        if self.seeds > 1:
            return {f"{number}-{seed}": [f"{self.seed_key}={seed}"] for seed in range(self.seeds)}
        return {str(number): [f"{self.number_key}={number}"] if self.number_key else []}


# Hydra imports a plugin again in each worker, and 1.4 warns of the second unless it is to replace
store = ConfigStore.instance().store
options: dict[str, Any] = {"provider": "resumable_optuna"}
if "replace" in inspect.signature(store).parameters:
    options["replace"] = True
node = {
    "_target_": f"{__name__}.ResumableOptunaSweeper",
    "_recursive_": False,
    "n_trials": 30,
    "n_jobs": 1,
    "mode": "min",
    "sampler": {"_target_": "optuna.samplers.TPESampler", "seed": 0, "n_startup_trials": 10},
    "params": None,
    "seeds": 1,
    "seed_key": "seed",
    "number_key": None,
    "metric": None,
}
store("resumable_optuna", node, group="hydra/sweeper", **options)
