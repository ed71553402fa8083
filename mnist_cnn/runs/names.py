"""The names of a sweep's jobs, and of runs: by what they override."""

import hashlib
import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from mnist_cnn.runs.folder import CONFIG, SWEEP
from mnist_cnn.runs.resume import key_of

LONGEST = 120  # bytes
NOT_NAMED = ("ckpt_path", "force", "targets", "run_name")


def name_of(overrides: Sequence[str]) -> str:
    """A folder's name for overrides, which Hydra's grammar takes unquoted; empty for none."""
    text = "-".join(o.lstrip("+~").replace("=", "_", 1) for o in overrides)
    name = re.sub(r"[^\w.+-]+", "_", text, flags=re.ASCII).lstrip(".-")
    if name == text and len(name) <= LONGEST:
        return name
    # a hash, where characters were replaced or cut, keeps two names from becoming one
    return f"{name[: LONGEST - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def job_name(*shared: object) -> str:
    """The name of this process's job: what it overrides but for the keys that all jobs share."""
    own = [o for o in HydraConfig.get().overrides.task if key_of(o) not in map(str, shared)]
    return name_of(sorted(own)) or "job"


def renamed(sweep: Path, keys: Sequence[str]) -> Iterator[str]:
    """Yield a line for each key that is swept for the first time where there are jobs already.

    Their names lack it: with the value that they had they are other jobs now.
    """
    jobs = [OmegaConf.load(file) for file in sorted(sweep.glob(f"*/{CONFIG}"))]
    for key in keys if jobs else ():
        had = ", ".join(sorted({str(OmegaConf.select(job, key)) for job in jobs}))
        yield f"{key} was {had} in the {len(jobs)} jobs of {sweep}, whose names lack it: a job with"
        " the same value is run again under another name"


def run_name() -> str:
    """The name of a run, for loggers: the recorded one, or all that its command line overrides."""
    if not HydraConfig.initialized():
        return "default"
    hydra: Any = HydraConfig.get()
    recorded = Path(OmegaConf.select(hydra, "runtime.output_dir") or "", CONFIG)
    # a run that is extended keeps its name, by which TensorBoard finds what it is to drop
    known = OmegaConf.select(OmegaConf.load(recorded), "run_name") if recorded.is_file() else None
    own = [o for o in hydra.overrides.task if key_of(o) not in NOT_NAMED]
    return known or name_of(own) or "default"


def run_id(folder: str) -> str:
    """An id of a run's folder, for loggers that continue the run of an id."""
    return hashlib.sha256(str(Path(folder).resolve()).encode()).hexdigest()[:16]


def sweep_name(folder: str) -> str:
    """The name of the sweep that a run's folder lies in, such as 2026-01-31/12-00-00, or none."""
    above = Path(folder).absolute().parent
    return "/".join(above.parts[-2:]) if (above / SWEEP).is_file() else ""


def in_sweep() -> bool:
    """Tell whether Hydra started this as one of several jobs."""
    return HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN


def choose(alone: object, swept: object) -> object:
    """The first value in a run alone, the second in a job of a sweep."""
    return swept if in_sweep() else alone


register: Any = OmegaConf.register_resolver
if "replace" not in inspect.signature(register).parameters:  # OmegaConf 2.3
    register = OmegaConf.register_new_resolver
register("job_name", job_name, replace=True)
register("run_name", run_name, replace=True)
register("run_id", run_id, replace=True)
register("sweep_name", sweep_name, replace=True)
register("in_sweep", choose, replace=True)
