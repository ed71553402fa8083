"""Jobs of a sweep that are resumed."""

import functools
import logging
import math
import numbers
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from mnist_cnn.runs.folder import FolderInUseError, Pruned, RunFolder, error_of, state
from mnist_cnn.runs.signals import Interrupted
from mnist_cnn.sweeps.names import in_sweep

log = logging.getLogger(__name__)


def resumable(function: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """Make the jobs of a Hydra application's sweep resumable: see docs/usage.md.

    What the function returns, a number, numbers by name or nothing, is kept as results.json in the
    job's folder; a job that has it is not run again. A job that fails leaves failed.json, and the
    sweep goes on.
    """

    def recorded(cfg: DictConfig) -> Mapping[str, Any]:
        folder = RunFolder(HydraConfig.get().runtime.output_dir)
        with folder.opened(cfg) as run:
            if run.results is None:
                run.results = run.finish(by_name(function(cfg)))
            return run.results

    @functools.wraps(function)
    def job(cfg: DictConfig) -> Any:
        return attempt(recorded, cfg, "value") if in_sweep() else function(cfg)

    return job


def attempt(
    function: Callable[[DictConfig], Mapping[str, Any]], cfg: DictConfig, metric: str
) -> float:
    """The metric of a job of a sweep, or NaN: it has none, failed, was pruned, or runs elsewhere.

    Its folder has what happened, for who resumes or reports the sweep.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    if state(folder) == "pruned":  # it stays so within its search
        return math.nan
    try:
        value = function(cfg).get(metric)
        return math.nan if value is None else float(value)
    except Interrupted as e:
        sweep = Path(HydraConfig.get().sweep.dir).absolute()
        raise Interrupted(e.number, f"resume it with ckpt_path={sweep}") from None
    except (Pruned, FolderInUseError) as e:
        print(f"{folder.name}: {e}")
    except Exception as e:
        RunFolder(folder).fail(e)
        if state(folder) != "failed":  # it has finished, with another configuration, or is no run's
            raise
        log.debug("the job failed", exc_info=True)
        print(f"{folder.name}: failed: {error_of(folder)}")
    return math.nan


def by_name(outcome: Any) -> dict[str, Any]:
    """What an application's function has returned, as results.json has it.

    Raises:
        TypeError: neither a number, numbers by name, nor nothing.
    """
    if outcome is None:
        return {}
    if isinstance(outcome, Mapping):
        return {str(key): plain(value) for key, value in outcome.items()}
    return {"value": plain(outcome)}


def plain(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value)
