"""What became of a run, by the files in its folder."""

import contextlib
import traceback
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

# Hydra writes them into each run's folder
OVERRIDES, CONFIG, HYDRA = (Path(".hydra", f"{s}.yaml") for s in ("overrides", "config", "hydra"))
LAST, BEST = Path("checkpoints", "last.ckpt"), Path("checkpoints", "best.ckpt")
SWEEP = "multirun.yaml"  # Hydra's name for the configuration in a sweep's folder
LOCK = ".lock"  # held by the process that trains in the folder; the system releases it at its end

State = Literal["running", "finished", "failed", "pruned", "interrupted", "new"]
RESULTS, FAILED, PRUNED = "results.json", "failed.json", "pruned.json"
WEIGHTS, PICTURE = "weights.safetensors", "history.png"


class Pruned(Exception):  # noqa: N818, it is no error
    """A search pruned a run: `epoch` (from 1), `metric` and `value` say when and why."""

    def __init__(self, epoch: int, metric: str, value: float):
        super().__init__(f"pruned after epoch {epoch}: {metric}={value:.4f}")
        self.epoch, self.metric, self.value = epoch, metric, value


def state(folder: Path) -> State:
    """What became of the run in a folder; `new` where none has begun."""
    if (folder / LOCK).exists():
        try:
            with FileLock(folder / LOCK, timeout=0):
                pass
        except Timeout:
            return "running"
        except OSError:  # a folder that only others may write
            pass
    ends: dict[str, State] = {RESULTS: "finished", FAILED: "failed", PRUNED: "pruned"}
    for file, end in ends.items():
        if (folder / file).exists():
            return end
    return "interrupted" if (folder / LOCK).exists() else "new"


def note_failure(folder: Path, error: Exception) -> None:
    trace = "".join(traceback.format_exception(error))
    with contextlib.suppress(OSError):  # the disk may be what failed
        note(folder / FAILED, type=type(error).__name__, error=str(error), traceback=trace)


def note(path: Path, **content: Any) -> None:
    from mnist_cnn.runs import results

    results.write(content, path)


def is_sweep(folder: Path | str) -> bool:
    return (Path(folder).expanduser() / SWEEP).is_file()
