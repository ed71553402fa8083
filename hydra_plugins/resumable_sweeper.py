"""hydra/sweeper=resumable and resumable_optuna, for every Hydra application in this environment.

Hydra looks for plugins in the modules of this namespace; Hydra 1.3 takes only classes that are
defined here. See mnist_cnn/sweeps/README.md.
"""

from hydra.core.config_store import ConfigStore

from mnist_cnn.sweeps import grid, optuna


class Grid(grid.Grid):
    """Every combination of the values given."""


class Optuna(optuna.Optuna):
    """A search by Optuna."""


COMMON = {
    "params": None,
    "max_batch_size": None,
    "max_failures": None,
    "metric": "value",
    "mode": "min",
}
SAMPLER = {"_target_": "optuna.samplers.TPESampler", "seed": 0, "n_startup_trials": 10}
SEARCH = {"n_trials": 30, "n_jobs": 1, "sampler": SAMPLER}

for name, sweeper, own in (("resumable", Grid, {}), ("resumable_optuna", Optuna, SEARCH)):
    node = {"_target_": f"{__name__}.{sweeper.__name__}", **COMMON, **own}
    ConfigStore.instance().store(name, node, group="hydra/sweeper", provider="resumable_sweeper")
