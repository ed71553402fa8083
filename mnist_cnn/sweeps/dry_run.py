"""What a sweep would do: its jobs, composed and checked, without a file that is written."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mnist_cnn.internals.hydra import Override, compose_job, set_hydra_config
from mnist_cnn.runs.errors import USER_ERRORS, one_line
from mnist_cnn.runs.folder import state


class Job(NamedTuple):
    """A job of a sweep: the name and the state of its folder, and why it would be refused."""

    name: str
    state: str
    refused: str = ""


def jobs(
    config: DictConfig,
    overrides: Sequence[Override],
    of_hydra: Sequence[str],
    check: Callable[[DictConfig], None],
) -> Iterator[Job]:
    """Iterate over the jobs of a sweep.

    Args:
        config: of the sweep.
        overrides: of its jobs, those that are swept with all their values.
        of_hydra: overrides of Hydra's own keys that each job gets.
        check: raises an error for a configuration that is not to be run.
    """
    for point in itertools.product(*map(values, overrides)):
        job = compose_job(config, [*point, *of_hydra])
        set_hydra_config(job)  # for the name
        folder = Path(job.hydra.sweep.dir, job.hydra.sweep.subdir)
        with read_write(job.hydra.runtime), open_dict(job.hydra.runtime):
            job.hydra.runtime.output_dir = str(folder)
        set_hydra_config(job)  # for the configuration
        try:
            check(OmegaConf.masked_copy(job, [str(key) for key in job if key != "hydra"]))
        except USER_ERRORS as e:
            yield Job(folder.name, str(state(folder)), one_line(e).removeprefix("error: "))
        else:
            yield Job(folder.name, str(state(folder)))


def values(override: Override) -> list[str]:
    """Return an override for each value that is swept, in the words of Hydra's BasicSweeper."""
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_element_as_str()}"]
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def show(jobs: Sequence[Job]) -> bool:
    """Print jobs and their number by state; return whether one would be refused."""
    states = ["refused" if job.refused else job.state for job in jobs]
    for job, how in zip(jobs, states, strict=True):
        print(f"{how:<12} {job.name}{job.refused and f': {job.refused}'}")
    numbers = ", ".join(f"{states.count(how)} {how}" for how in dict.fromkeys(states))
    print(f"{len(jobs)} jobs: {numbers}; nothing was written")
    return "refused" in states
