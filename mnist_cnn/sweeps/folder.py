"""What became of a job, by the files in its folder, and the folders themselves.

`run_recorded` leaves these files for an application that knows nothing of sweeps.
"""

import contextlib
import itertools
import json
import logging
import numbers
import os
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

log = logging.getLogger(__name__)

SWEEP = "multirun.yaml"  # Hydra's name for the configuration in a sweep's folder
LOCK = ".lock"  # held by the process that is at work in the folder; released by the system, too

State = Literal["running", "finished", "failed", "pruned", "interrupted", "new"]
RESULTS, FAILED, PRUNED = "results.json", "failed.json", "pruned.json"
ENDS = ("finished", "failed", "pruned")


def state(folder: Path) -> State:
    """What became of the job in a folder; `new` where none has begun."""
    if (folder / LOCK).exists():
        try:
            with FileLock(folder / LOCK, timeout=0):
                pass
        except Timeout:
            return "running"
        except OSError:  # a folder that only others may write
            pass
    return end_of(folder) or ("interrupted" if (folder / LOCK).exists() else "new")


def end_of(folder: Path) -> State | None:
    """How the job in a folder has ended; None where it has not."""
    ends: dict[str, State] = {RESULTS: "finished", FAILED: "failed", PRUNED: "pruned"}
    return next((end for file, end in ends.items() if (folder / file).exists()), None)


def note_failure(folder: Path, error: Exception) -> None:
    trace = "".join(traceback.format_exception(error))
    failure = {"type": type(error).__name__, "error": str(error), "traceback": trace}
    with contextlib.suppress(OSError):  # the disk may be what failed
        write(failure, folder / FAILED)


def write(content: Mapping[str, Any], path: Path) -> None:
    new = path.with_suffix(".new")
    new.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    replace(new, path)


def replace(new: Path, old: Path) -> None:
    """Puts a finished file in another's place; after a power cut one of the two is there whole."""
    with new.open("rb") as file:
        os.fsync(file.fileno())
    new.replace(old)


def is_over(sweep: Path, max_failures: int | None) -> bool:
    """Whether as many jobs of a sweep have failed as it may have; a resumed one counts anew."""
    return max_failures is not None and sum(1 for _ in sweep.glob(f"*/{FAILED}")) >= max_failures


def failure_of(folder: Path) -> str:
    """The first line of what failed.json says."""
    noted = json.loads((folder / FAILED).read_text("utf-8"))
    return next(iter(noted["error"].strip().splitlines()), str(noted["type"]))


def run_recorded(function: Callable[[DictConfig], Any], cfg: DictConfig) -> None:
    """Calls an application's function, and leaves in the job's folder how that ended.

    Args:
        function: returns a number, numbers by name, or nothing.
        cfg: the job's configuration.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    if is_over(folder.parent, hydra.sweeper.get("max_failures")):
        return
    with contextlib.suppress(Timeout), FileLock(folder / LOCK, timeout=1):  # another may be at it
        if end_of(folder) is None:  # else it was queued twice, as Ray may do
            try:
                write(plain_outcome(function(cfg)), folder / RESULTS)
            except Exception as e:
                log.exception("the job failed")
                note_failure(folder, e)


def plain_outcome(outcome: Any) -> dict[str, Any]:
    """What an application's function has returned, as results.json holds it.

    Raises:
        TypeError: neither a number, numbers by name, nor nothing.
    """
    if isinstance(outcome, Mapping):
        return {str(key): number(value) for key, value in outcome.items()}
    return {} if outcome is None else {"value": number(outcome)}


def number(value: Any) -> Any:
    if isinstance(value, (str, numbers.Integral, type(None))):
        return int(value) if isinstance(value, numbers.Integral) else value
    return float(value)  # of NumPy or PyTorch, too


def check_path(key: str, path: Path | str) -> None:
    """Raises ValueError for a folder that Hydra cannot use: it resolves ${ in it once more."""
    if "${" in str(place := Path(path).absolute()):
        raise ValueError(f"{key} must be a path without ${{ (Hydra fails), got {place}")


def name_folder(config: DictConfig, kind: str) -> None:
    """Makes the folder hydra.<kind>.dir, under another name where it exists already.

    A folder that was asked for by name, as in resuming a run, keeps its name.
    """
    if any(o.startswith(f"hydra.{kind}.dir=") for o in config.hydra.overrides.hydra):
        return
    wanted = Path(OmegaConf.select(config, f"hydra.{kind}.dir"))
    for n in itertools.count(1):
        folder = wanted if n == 1 else wanted.with_name(f"{wanted.name}-{n}")
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            continue
    with read_write(config.hydra), open_dict(config):
        config.hydra[kind].dir = str(folder)
