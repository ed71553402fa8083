"""What became of a run, by the files in its folder."""

from pathlib import Path

from mnist_cnn.sweeps.folder import FAILED as FAILED
from mnist_cnn.sweeps.folder import LOCK as LOCK
from mnist_cnn.sweeps.folder import PRUNED as PRUNED
from mnist_cnn.sweeps.folder import RESULTS as RESULTS
from mnist_cnn.sweeps.folder import SWEEP as SWEEP
from mnist_cnn.sweeps.folder import State as State
from mnist_cnn.sweeps.folder import note_failure as note_failure
from mnist_cnn.sweeps.folder import replace as replace
from mnist_cnn.sweeps.folder import state as state
from mnist_cnn.sweeps.folder import write as write

# Hydra writes them into each run's folder
OVERRIDES, CONFIG, HYDRA = (Path(".hydra", f"{s}.yaml") for s in ("overrides", "config", "hydra"))
LAST, BEST = Path("checkpoints", "last.ckpt"), Path("checkpoints", "best.ckpt")
WEIGHTS, PICTURE = "weights.safetensors", "history.png"
TRACKED = "trackers.json"  # the ids of the runs of W&B and MLflow that are this run


class Pruned(Exception):  # noqa: N818, it is no error
    """A search pruned a run: `epoch` (from 1), `metric` and `value` say when and why."""

    def __init__(self, epoch: int, metric: str, value: float):
        super().__init__(f"pruned after epoch {epoch}: {metric}={value:.4f}")
        self.epoch, self.metric, self.value = epoch, metric, value


def is_sweep(folder: Path | str) -> bool:
    return (Path(folder).expanduser() / SWEEP).is_file()
