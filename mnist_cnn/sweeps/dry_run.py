"""What a sweep would do: its jobs, composed and checked, without a file that is written."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig

from mnist_cnn.internals.hydra import compose_job, set_hydra_config
from mnist_cnn.runs.errors import USER_ERRORS, one_line
from mnist_cnn.runs.folder import state


class Job(NamedTuple):
    """A job of a sweep: the name and the state of its folder, and why it would be refused."""

    name: str
    state: str
    refused: str = ""


def jobs(
    config: DictConfig,
    points: Iterable[Sequence[str]],
    of_hydra: Sequence[str],
    check: Callable[[DictConfig, Path], None],
) -> Iterator[Job]:
    """Iterate over the jobs of a sweep.

    Args:
        config: of the sweep.
        points: overrides of each job.
        of_hydra: overrides of Hydra's own keys that each job gets.
        check: raises an error for a configuration that must not be run in a folder.
    """
    for point in points:
        job = compose_job(config, [*point, *of_hydra])
        set_hydra_config(job)  # for the name
        folder = Path(job.hydra.sweep.dir, job.hydra.sweep.subdir)
        refused = ""
        try:
            check(job, folder)
        except USER_ERRORS as e:
            refused = one_line(e).removeprefix("error: ")
        yield Job(folder.name, str(state(folder)), refused)


def show(jobs: Sequence[Job]) -> bool:
    """Print jobs and their number by state; return whether one would be refused."""
    states = ["refused" if job.refused else job.state for job in jobs]
    for job, how in zip(jobs, states, strict=True):
        print(f"{how:<12} {job.name}{job.refused and f': {job.refused}'}")
    numbers = ", ".join(f"{states.count(how)} {how}" for how in dict.fromkeys(states))
    print(f"{len(jobs)} jobs: {numbers}; nothing was written")
    return "refused" in states
