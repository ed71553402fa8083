"""A sweep over every combination of values."""

import itertools
from collections.abc import Mapping
from typing import Any

from mnist_cnn.internals.hydra import Job
from mnist_cnn.sweeps.folder import FAILED
from mnist_cnn.sweeps.sweep import Sweep


class Grid(Sweep):
    """Every combination of the values given."""

    def search(self, swept: Mapping[str, Any], fixed: Job) -> None:
        for key, override in swept.items():
            if not override.is_discrete_sweep():
                raise ValueError(f"{override.input_line}: {self.SEARCH}, or list {key}")
        values = [[f"{k}={v}" for v in o.sweep_string_iterator()] for k, o in swept.items()]
        points = list(itertools.product(*values))
        # a run's name begins with what sets it apart
        asked = [[*point, *fixed] for point in points]
        identities = [self.checked(job) for job in asked]
        with self.opened():
            recorded = self.recorded()
            numbers = {self.identity(job): n for n, job in recorded.items()}
            free = itertools.count(max(recorded, default=-1) + 1)
            jobs = {}
            for point, job, own in zip(points, asked, identities, strict=True):
                n = numbers[own] if own in numbers else next(free)
                numbers[own], jobs[n], self.screen.jobs[n] = n, job, ",".join(point)
            for n in jobs:
                if self.state(n) == "failed":  # it is resumed where it has a checkpoint
                    (self.job_folder(n) / FAILED).unlink()
            self.screen.expect(len(jobs))
            self.run(jobs)
