"""hydra/sweeper=resumable_optuna: a search by Optuna that the same command resumes.

For every Hydra application in this environment, see docs/usage.md. Hydra takes sweepers from this
namespace alone, and imports it whenever a program starts.
"""

import functools
import inspect
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class ResumableOptunaSweeper(Sweeper):
    """Looks for the values with the best objective, which the jobs return."""

    def __init__(self, **options: Any):
        """Ignore the options: `setup` gets them in `config`."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.context, self.function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        from mnist_cnn.internals.hydra import BasicLauncher, without_callbacks
        from mnist_cnn.sweeps.callback import parsed, refusal, samples

        with refusal():
            from mnist_cnn.sweeps.search import Options, Search

            options = Options.of(self.config.hydra.sweeper)
            by_key = {o.get_key_element(): o for o in parsed(self.config)}
            search = Search(Path(self.config.hydra.sweep.dir).absolute(), options, by_key)
        jobs = BasicLauncher()
        jobs.setup(hydra_context=self.context, task_function=self.function, config=self.config)
        workers = Plugins.instance().instantiate_launcher(
            hydra_context=without_callbacks(self.context),
            task_function=functools.partial(work, search, jobs.launch),
            config=self.config,
        )
        worker = [*next(samples([*by_key.values()])), *OF_WORKER]
        for ended in workers.launch([worker] * options.n_jobs, initial_job_idx=0):
            ended.return_value  # noqa: B018, it raises the exception that a worker ended by


def work(search: Any, launch: Any, cfg: DictConfig) -> None:
    """Run the trials of one worker, which Hydra's launcher starts as a job."""
    from mnist_cnn.sweeps.callback import end_with_sweep

    end_with_sweep()
    search.run(launch, HydraConfig.get().job.num)


# a worker has no folder and no log file: its trials have
OF_WORKER = ("hydra.sweep.subdir=.", "hydra.output_subdir=null", "hydra/job_logging=none")
NODE = {
    "_target_": f"{__name__}.ResumableOptunaSweeper",
    "_recursive_": False,
    "n_trials": 30,  # those that failed are run again when the search is resumed
    "n_jobs": 1,  # workers that the launcher starts; each runs one trial after the other
    "metric": None,  # the objective's name, where the jobs return several numbers
    "mode": "min",  # or max; minimize and maximize are the same
    "seeds": 1,  # n: a trial is the mean of n jobs with seed=0, 1, ..., and fails where one does
    "sampler": {"_target_": "optuna.samplers.TPESampler", "seed": 0},
    # of trials of several seeds, after each seed, as conf/hparams_search/optuna.yaml says; or null
    "pruner": {"_target_": "optuna.pruners.WilcoxonPruner", "p_threshold": 0.1},
    "params": None,  # the space, and fixed values, by key; the command line's come after
}
# Hydra imports a plugin again in each worker, and 1.4 warns of the second unless it is to replace
store = ConfigStore.instance().store
replace: Any = {"replace": True} if "replace" in inspect.signature(store).parameters else {}
store("resumable_optuna", NODE, "hydra/sweeper", provider="resumable_optuna", **replace)
