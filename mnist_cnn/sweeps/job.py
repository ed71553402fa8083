"""A job of an application that knows nothing of sweeps."""

import logging
import numbers
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from mnist_cnn.sweeps.folder import LOCK, RESULTS, end_of, is_over, note_failure, write

log = logging.getLogger(__name__)


class Recorded:
    """Calls an application's function, and leaves in the job's folder how that ended.

    Args:
        function: returns a number, numbers by name, or nothing.
    """

    def __init__(self, function: Any):
        self.function = function

    def __call__(self, cfg: DictConfig) -> None:
        hydra = HydraConfig.get()
        folder = Path(hydra.runtime.output_dir)
        if is_over(folder.parent, hydra.sweeper.get("max_failures")):
            return
        try:
            with FileLock(folder / LOCK, timeout=1):
                if end_of(folder) is None:  # else it was queued twice, as Ray may do
                    self.run(cfg, folder)
        except Timeout:  # another process is at it
            return

    def run(self, cfg: DictConfig, folder: Path) -> None:
        try:
            write(plain_outcome(self.function(cfg)), folder / RESULTS)
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
