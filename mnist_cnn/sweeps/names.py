"""The names of a sweep's jobs, and of runs: by what they override."""

import hashlib
import inspect
import re
from collections.abc import Sequence

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

LONGEST = 120  # bytes
NOT_NAMED = ("ckpt_path", "force", "targets", "run_name")


def name_of(overrides: Sequence[str]) -> str:
    """A folder's name for overrides, of letters, digits and `_ . + -` alone.

    Hydra's grammar takes it unquoted. Where characters are replaced or cut, a hash is appended.
    """
    parts = [re.sub(r"=", "_", o.lstrip("+~"), count=1) for o in overrides]
    text = "-".join(parts)
    name = re.sub(r"[^\w.+-]+", "_", text, flags=re.ASCII).lstrip(".-")
    if name == text and len(name) <= LONGEST:
        return name or "job"
    return f"{name[: LONGEST - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def job_name() -> str:
    """The name of this process's job: what is swept, without what all jobs share."""
    hydra = HydraConfig.get()
    shared = hydra.job.config.override_dirname.exclude_keys  # see `shared_keys`
    return name_of([o for o in hydra.overrides.task if key_of(o) not in shared])


def run_name() -> str:
    """The name of a run, for loggers: all that its command line overrides."""
    overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    return name_of([o for o in overrides if key_of(o) not in NOT_NAMED]).replace("job", "default")


def in_sweep() -> bool:
    """Tell whether Hydra started this as one of several jobs."""
    return HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN


def choose(alone: object, swept: object) -> object:
    """The first value in a run alone, the second in a job of a sweep."""
    return swept if in_sweep() else alone


def shared_keys(overrides: DictConfig | Sequence[str]) -> list[str]:
    """The keys that a command line gives one value for all jobs of a sweep."""
    parsed = OverridesParser.create().parse_overrides([str(o) for o in overrides])
    return [key_of(o.input_line or "") for o in parsed if not o.is_sweep_override()]


def key_of(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


register = OmegaConf.register_resolver
if "replace" not in inspect.signature(register).parameters:  # OmegaConf 2.3
    register = OmegaConf.register_new_resolver
register("job_name", job_name, replace=True)
register("run_name", run_name, replace=True)
register("in_sweep", choose, replace=True)
