"""The part of a configuration that the results of a run depend on."""

import os
import re
from collections.abc import Mapping
from typing import Any

from mnist_cnn.config.instantiate import is_custom
from mnist_cnn.runs.resume import is_of

# keys, and groups of keys, that do not affect the results; the number of processes does, by what
# each of them draws, but a run may be resumed on another: only reports tell such runs apart
NEUTRAL = (
    *("ckpt_path", "force", "init_strict", "run_dir", "run_name", "logger", "targets"),
    *("trainer.limit_predict_batches", "trainer.log_every_n_steps", "trainer.devices"),
    "trainer.num_nodes",
    *("trainer.enable_checkpointing", "trainer.enable_model_summary", "trainer.profiler"),
    *("trainer.enable_progress_bar", "trainer.detect_anomaly"),
    *("callbacks.progress", "callbacks.prune", "callbacks.summary"),
    *("callbacks.checkpoint.every_seconds", "callbacks.checkpoint.every_steps"),
    "callbacks.checkpoint.check_every_steps",
)
# keys whose values may change when a run is resumed, to train longer or to add the test
EXTENDABLE = ("trainer.max_epochs", "trainer.max_time", "trainer.max_steps", "test")
# ends of the names of callbacks whose course, or last act, is planned for a whole run
PLANNED = ("WeightAveraging", "CertifiedTraining")
# schedules over a whole run, and the argument with its length
LAID_OUT = {"OneCycleLR": "total_steps", "CosineAnnealingLR": "T_max"}


def depends_on(config: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the values of a flat configuration that do not affect the results.

    Where the images of this project's data modules lie has no effect: their name or fingerprint
    tells what they are. Neither has the size of evaluation's batches, unless their number is
    limited. Nothing tells what a custom data module makes of either. The run's own folder inside a
    value becomes `${run_dir}`, as its location has no effect either.
    """
    neutral: tuple[str, ...] = NEUTRAL
    if not is_custom({"_target_": config.get("data._target_")}):
        limits = [config.get(f"trainer.limit_{split}_batches", 1.0) for split in ("val", "test")]
        whole = all(isinstance(limit, float) and limit == 1 for limit in limits)  # 1 is a batch
        neutral += ("data.root", *["data.eval_batch_size"] * whole)
    kept = {key: value for key, value in config.items() if not is_of(key, neutral)}
    folder = str(config.get("run_dir"))
    return without(folder, kept) if os.path.isabs(folder) else kept


def without(folder: str, value: Any) -> Any:
    """Replace a folder by `${run_dir}` in a value and in all values nested in it."""
    if isinstance(value, Mapping):
        return {key: without(folder, part) for key, part in value.items()}
    if isinstance(value, list):
        return [without(folder, part) for part in value]
    if not isinstance(value, str):
        return value
    # not in /a/runs/1 for /runs/1, nor in /runs/12
    return re.sub(rf"(?<![\w.-]){re.escape(folder)}(?![^/\\])", "${run_dir}", value)


def extendable(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys that may change when a run of this flat configuration is resumed.

    A schedule, an augmentation or a callback that is planned for the whole run fixes the number of
    epochs.
    """
    schedule = str(config.get("scheduler._target_")).rpartition(".")[2]
    named = [v for k, v in config.items() if re.fullmatch(r"callbacks\..+\._target_", k)]
    planned = any(str(name).endswith(PLANNED) for name in named)
    if schedule in LAID_OUT or config.get("data.clean_epochs") or planned:
        return ("test",)
    return EXTENDABLE
