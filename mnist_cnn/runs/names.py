"""Names of runs and of a sweep's jobs, made from their overrides."""

import hashlib
import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from mnist_cnn.internals.hydra import parse_override
from mnist_cnn.runs.folder import CONFIG, OVERRIDES, is_sweep
from mnist_cnn.runs.resume import commands, key_of

LONGEST = 120  # bytes
NOT_NAMED = ("ckpt_path", "force", "targets", "run_name")


def name_of(overrides: Sequence[str]) -> str:
    """Return a folder name for overrides, valid unquoted in Hydra's grammar; empty for none."""
    return file_name("-".join(o.lstrip("+~").replace("=", "_", 1) for o in overrides))


def file_name(text: str, also: str = "") -> str:
    """Return a text as a file name: of letters, digits, `_.+-` and the characters of `also`."""
    name = re.sub(rf"[^\w.+{also}-]+", "_", text, flags=re.ASCII).lstrip(".-")
    if name == text and len(name) <= LONGEST:
        return name
    # where characters were replaced or cut, a hash keeps names distinct
    return f"{name[: LONGEST - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def job_name(*shared: object) -> str:
    """Return the name of this process's job: its overrides without keys that all jobs share."""
    own = [o for o in HydraConfig.get().overrides.task if key_of(o) not in map(str, shared)]
    return name_of(sorted(own)) or "job"


def renamed(sweep: Path, keys: Sequence[str]) -> Iterator[str]:
    """Yield a warning for each key that is swept for the first time in a sweep that has jobs.

    Their names lack the key: a job with the same value gets another name, and is run again.
    """
    jobs = [OmegaConf.load(file) for file in sorted(sweep.glob(f"*/{CONFIG}"))]
    for key in keys if jobs else ():
        had = ", ".join(sorted({str(OmegaConf.select(job, key)) for job in jobs}))
        yield (
            f"{key} was {had} in the {len(jobs)} jobs of {sweep}, whose names lack it: a job with "
            "the same value is run again under another name"
        )


def run_name() -> str:
    """Return the name of a run for loggers: the recorded one, or one made from its overrides."""
    if not HydraConfig.initialized():
        return "default"
    hydra: Any = HydraConfig.get()
    recorded = Path(OmegaConf.select(hydra, "runtime.output_dir") or "", CONFIG)
    # an extended run keeps its name
    config: Any = OmegaConf.to_container(OmegaConf.load(recorded)) if recorded.is_file() else {}
    known = config.get("run_name")
    own = [o for o in hydra.overrides.task if key_of(o) not in NOT_NAMED]
    # a folder may be a stranger's: what it interpolates could send a variable of the environment
    return known if known and "$" not in str(known) else name_of(own) or "default"


def run_id(folder: str) -> str:
    """Return an ID of a run's folder, for loggers that can resume the run with an ID."""
    return hashlib.sha256(str(Path(folder).resolve()).encode()).hexdigest()[:16]


def sweep_name(folder: str) -> str:
    """Return the name of a run's sweep, such as 2026-01-31/12-00-00; empty without a sweep."""
    above = Path(folder).absolute().parent
    return "/".join(above.parts[-2:]) if is_sweep(above) else ""


def swept_keys(known: Sequence[dict[str, Any]]) -> set[str]:
    """Return the keys that at least one of a sweep's commands sweeps."""
    return {key_of(o) for c in known for o in c["task"] if parse_override(o).is_sweep_override()}


def varied(folder: Path | str) -> dict[str, str]:
    """Return a job's overrides that not all jobs of its sweep share, by key; {} outside a sweep.

    They include those that the sweeper adds, such as a trial's.
    """
    sweep, own = Path(folder).absolute().parent, Path(folder, OVERRIDES)
    if not is_sweep(sweep) or not own.is_file():
        return {}
    known = commands(sweep)
    shared = {key_of(o) for c in known for o in c["task"]} - swept_keys(known)
    overrides = {key_of(str(o)): str(o).partition("=")[2] for o in OmegaConf.load(own)}
    return {k: text for k, text in overrides.items() if k not in shared and k not in NOT_NAMED}


def in_sweep() -> bool:
    """Return whether Hydra started this process as a job of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN


def choose(alone: object, swept: object) -> object:
    """Return the first value in a single run, the second in a job of a sweep."""
    return swept if in_sweep() else alone


register: Any = OmegaConf.register_resolver
if "replace" not in inspect.signature(register).parameters:  # OmegaConf 2.3
    register = OmegaConf.register_new_resolver
register("job_name", job_name, replace=True)
register("run_name", run_name, replace=True)
register("run_id", run_id, replace=True)
register("sweep_name", sweep_name, replace=True)
register("in_sweep", choose, replace=True)
