"""hydra/sweeper=resumable and resumable_optuna, for every Hydra application in this environment.

Hydra looks for plugins in the modules of this namespace; Hydra 1.3 takes only classes that are
defined here. See mnist_cnn/sweeps/README.md.
"""

import inspect
from typing import Any

from hydra.core.config_store import ConfigStore

from mnist_cnn.sweeps import optuna, sweep


class Grid(sweep.Grid):
    """Every combination of the values given."""


class Optuna(optuna.Optuna):
    """A search by Optuna."""


COMMON = {key: option.default for key, option in inspect.signature(sweep.Sweep).parameters.items()}
SAMPLER = {"_target_": "optuna.samplers.TPESampler", "seed": 0, "n_startup_trials": 10}
SEARCH = {"n_trials": 30, "n_jobs": 1, "sampler": SAMPLER}

# Hydra imports a plugin again in each worker, and 1.4 warns of the second unless it is to replace
store = ConfigStore.instance().store
options: dict[str, Any] = {"provider": "resumable_sweeper"}
if "replace" in inspect.signature(store).parameters:
    options["replace"] = True
for name, sweeper, own in (("resumable", Grid, {}), ("resumable_optuna", Optuna, SEARCH)):
    node = {"_target_": f"{__name__}.{sweeper.__name__}", **COMMON, **own}
    store(name, node, group="hydra/sweeper", **options)
