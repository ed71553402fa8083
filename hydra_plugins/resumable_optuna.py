"""hydra/sweeper=resumable_optuna: a search by Optuna that the same command resumes.

For every Hydra application in this environment, see docs/usage.md. Hydra takes sweepers from this
namespace alone, and imports it whenever a program starts.
"""

import inspect
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class ResumableOptunaSweeper(Sweeper):
    """Looks for the values with the best objective, which the jobs return."""

    def __init__(self, **options: Any):
        """Take what `setup` gets, too."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.config_loader = hydra_context.config_loader
        self.options, self.folder = config.hydra.sweeper, Path(config.hydra.sweep.dir).absolute()
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.launch = launcher.launch

    def sweep(self, arguments: list[str]) -> None:
        from mnist_cnn.internals.hydra import parse_overrides
        from mnist_cnn.sweeps.callback import refusal

        with refusal():
            from mnist_cnn.sweeps.search import Options, Search

            options = Options.of(self.options)
            params = [f"{key}={value}" for key, value in (options.params or {}).items()]
            overrides = parse_overrides([*params, *arguments], self.config_loader)
            by_key = {o.get_key_element(): o for o in overrides}
            search = Search(self.folder, options, by_key)
        search.run(self.launch)


NODE = {
    "_target_": f"{__name__}.ResumableOptunaSweeper",
    "_recursive_": False,
    "n_trials": 30,  # those that failed are run again when the search is resumed
    "n_jobs": 1,  # trials that are drawn and launched at once
    "metric": None,  # the objective's name, where the jobs return several numbers
    "mode": "min",  # or max; minimize and maximize are the same
    "seeds": 1,  # n: a trial is the mean of n jobs with seed=0, 1, ..., and fails where one does
    "sampler": {"_target_": "optuna.samplers.TPESampler", "seed": 0},
    "params": None,  # the space, and fixed values, by key; the command line's come after
}
# Hydra imports a plugin again in each worker, and 1.4 warns of the second unless it is to replace
store = ConfigStore.instance().store
replace: Any = {"replace": True} if "replace" in inspect.signature(store).parameters else {}
store("resumable_optuna", NODE, "hydra/sweeper", provider="resumable_optuna", **replace)
