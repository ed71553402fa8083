"""The study of a search: where it lies, what it searches, how a trial is drawn."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from hydra.core.override_parser.types import Override, RangeSweep, Transformer
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from sqlalchemy.engine import URL

NAME = "search"  # in the database
SAMPLERS = "optuna.samplers."


def storage(sweep: Path | str) -> str:
    """The address of the study in a sweep's folder."""
    # as a URI, since SQLAlchemy and Optuna give a meaning to ?, % and { in a path
    file = Path(sweep, "study.db").absolute().as_uri()
    return URL.create("sqlite", database=file, query={"uri": "true"}).render_as_string()


def distribution(override: Override) -> Any:
    """Optuna's distribution of the values that a sweep in Hydra's syntax stands for."""
    sweep: Any = override.value()
    if override.is_interval_sweep():
        whole = isinstance(sweep.start, int) and isinstance(sweep.end, int)
        kind = IntDistribution if whole else FloatDistribution
        return kind(sweep.start, sweep.end, log="log" in sweep.tags)
    if isinstance(sweep, RangeSweep) and not sweep.shuffle and not sweep.transformers:
        values = sweep.range()
        if isinstance(values, range) and values:
            return IntDistribution(min(values), max(values), step=abs(values.step))
    choices: Any = override.sweep_iterator(transformer=Transformer.encode)
    return CategoricalDistribution(list(choices))


def sampler(options: Mapping[str, Any], number: int) -> optuna.samplers.BaseSampler:
    """The sampler of a trial, seeded by (seed, number): an interrupted search draws the same.

    Args:
        options: `_target_`, a class in optuna.samplers, and its arguments with `seed`.

    Raises:
        ValueError: there is no such sampler.
    """
    arguments = {key: value for key, value in options.items() if not str(key).startswith("_")}
    name = str(options.get("_target_"))
    kind = getattr(optuna.samplers, name.removeprefix(SAMPLERS), None)
    if not (isinstance(kind, type) and issubclass(kind, optuna.samplers.BaseSampler)):
        raise ValueError(f"hydra.sweeper.sampler._target_ must be of {SAMPLERS}*, got {name}")
    if kind is optuna.samplers.GridSampler:
        raise ValueError("hydra.sweeper.sampler: a sweep without hparams_search is a grid")
    seed = np.random.SeedSequence([arguments.pop("seed", 0), number]).generate_state(1)[0]
    return kind(**arguments, seed=int(seed))
