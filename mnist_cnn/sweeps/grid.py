"""A sweep over every combination of values."""

import itertools
from collections.abc import Mapping
from typing import Any

from mnist_cnn.internals.hydra import Job
from mnist_cnn.runs import state
from mnist_cnn.sweeps.sweep import Sweep, identity


class Grid(Sweep):
    """Every combination of the values given.

    Args:
        max_batch_size: number of jobs that are handed to the launcher at once; None for all.
        params: see `Sweep`.
    """

    def __init__(self, max_batch_size: int | None, params: Mapping[str, Any] | None = None):
        super().__init__(params)
        self.max_batch_size = max_batch_size

    def search(self, swept: Mapping[str, Any], fixed: Job) -> None:
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
            numbers = {identity(self.composer.compose(job)): n for n, job in recorded.items()}
            free = itertools.count(max(recorded, default=-1) + 1)
            jobs = {}
            for point, job, own in zip(points, asked, identities, strict=True):
                n = numbers[own] if own in numbers else next(free)
                numbers[own], jobs[n], self.screen.jobs[n] = n, job, ",".join(point)
            for n in jobs:
                if self.state(n) == "failed":  # it is resumed where it has a checkpoint
                    (self.job_folder(n) / state.FAILED).unlink()
            self.screen.expect(len(jobs))
            size = self.max_batch_size or len(jobs)
            for first in range(0, len(jobs), size):
                self.run(dict(list(jobs.items())[first : first + size]))
