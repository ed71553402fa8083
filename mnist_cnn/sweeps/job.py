"""A job of an application that knows nothing of sweeps."""

import contextlib
import logging
import numbers
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from mnist_cnn.sweeps.folder import LOCK, RESULTS, end_of, is_over, note_failure, write

log = logging.getLogger(__name__)


def recorded(function: Callable[[DictConfig], Any], cfg: DictConfig) -> None:
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
