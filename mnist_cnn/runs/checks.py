"""Whether a checkpoint is sound, and belongs to a configuration."""

import functools
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mnist_cnn.config.check import check
from mnist_cnn.config.compose import flat, plain
from mnist_cnn.config.instantiate import class_name
from mnist_cnn.config.messages import install, must_be, shown
from mnist_cnn.runs.launch import rank

# beginnings of keys that may change when a run is resumed: its weights do not depend on them
UNRELATED = (
    *("ckpt_path", "force", "init_strict", "run_", "test", "logger", "hparams_search", "targets"),
    *("data.root", "data.source", "data.mirror", "data.eval_batch_size"),
    *("trainer.limit_predict_batches", "trainer.log_every_n_steps", "trainer.max_epochs"),
    *("trainer.max_time", "trainer.devices", "trainer.enable", "trainer.profiler"),
    *("trainer.detect_anomaly", "callbacks.progress", "callbacks.prune", "callbacks.summary"),
    *("callbacks.histograms", "callbacks.finite", "callbacks.checkpoint.every"),
)


@dataclass(frozen=True)
class Content:
    """What must be known of a checkpoint before a run starts from it."""

    epochs: int  # that are done
    best_epoch: int | None  # counted from 1; None where no metric chose one
    between_epochs: bool  # it was not written within an epoch
    config: Mapping[str, Any]  # of its run, flat; empty in checkpoints of earlier versions


def content(path: Path | str) -> Content:
    """The content of a checkpoint; a file that has not changed is read once. None of its code runs.

    Raises:
        ValueError: it is not a whole checkpoint of this project.
        OSError: it cannot be read.
    """
    file = Path(path).stat()
    return _content(str(path), file.st_ino, file.st_mtime_ns, file.st_size)


@functools.lru_cache(maxsize=4)
def _content(path: str, *version: int) -> Content:
    from mnist_cnn import pretrained

    checkpoint = pretrained.read_checkpoint(path)
    wanted = {
        **{"state_dict": dict, "loops": dict, "callbacks": dict},
        **{"optimizer_states": list, "processes": list},
    }
    if isinstance(checkpoint, dict):
        checkpoint.setdefault("processes", [{}])  # Lightning's own callbacks write none
    sound = isinstance(checkpoint, dict) and all(
        isinstance(checkpoint.get(key), kind) and checkpoint[key] for key, kind in wanted.items()
    )
    sound = sound and isinstance(checkpoint["callbacks"].get("Checkpoint", {}), dict)
    if not sound or not any(str(key).startswith("net.") for key in checkpoint["state_dict"]):
        raise ValueError("not a checkpoint of this project")
    return Content(
        epochs=checkpoint["epoch"],
        best_epoch=checkpoint["callbacks"].get("Checkpoint", {}).get("best_epoch"),
        between_epochs="tally" not in checkpoint["processes"][0],
        config=checkpoint.get("config") or {},
    )


def is_whole(path: Path) -> bool:
    """Whether a file is a checkpoint that a run can start from."""
    try:
        content(path)
    except (ValueError, OSError):
        return False
    return True


def content_to_resume(path: Path) -> Content:
    """As `content`, but the error names the key, and a whole checkpoint beside a damaged one."""
    try:
        return content(path)
    except (ValueError, OSError) as e:
        others = (file for file in sorted(path.parent.glob("*.ckpt")) if file != path)
        whole = next(filter(is_whole, others), None)
        hint = f"; {whole} is whole, and older" if whole else ""
        what = must_be("ckpt_path", "a checkpoint that training can resume", path)
        raise ValueError(f"{what}: {e}{hint}") from None


def check_run(config: DictConfig) -> None:
    """Raises ValueError where a configuration is not allowed, or does not belong to its checkpoint.

    With force=true a line on stderr says what makes it another run.
    """
    check(config)
    from mnist_cnn.runs.machine import check_here  # imports torch: not before the values are sound

    check_here(config)
    for name in {"wandb", "mlflow"} & set(config.get("logger") or {}):
        if importlib.util.find_spec(name) is None:
            raise ValueError(f"logger={name}: not installed: {install(name)}")
    if config.ckpt_path is None:
        return
    checkpoint = content_to_resume(Path(config.ckpt_path))
    done, wanted = checkpoint.epochs, config.trainer.max_epochs
    if wanted < done:
        allowed = f"at least {done}, the number of epochs that are done"
        raise ValueError(must_be("trainer.max_epochs", allowed, wanted))
    try:
        if checkpoint.config:
            check_same(checkpoint.config, config)
    except ValueError as e:
        if not config.force:
            raise
        if rank() == 0:
            print(f"not the run that it was, by force: {e}", file=sys.stderr)


def check_same(before: Mapping[str, Any], config: DictConfig) -> None:
    """Raises ValueError where a configuration would turn a run into another one.

    It names each key that has another value now; what changes no weight may be changed.

    Args:
        before: `flat` of the configuration that the checkpoint was trained with.
        config: the one that is to resume it.
    """
    now = flat(config)
    bound = set()
    laid_out = class_name(config.scheduler) in ("OneCycleLR", "CosineAnnealingLR")
    # a run that ended with averaged weights has no others left to train
    averaged = config.callbacks.get("averaging")
    if laid_out or config.data.get("clean_epochs") or averaged:  # for a number of epochs
        bound.add("trainer.max_epochs")
    if str(config.trainer.limit_val_batches) != "1.0":  # a number of batches: it chooses the images
        bound.add("data.eval_batch_size")
    free = tuple(key for key in UNRELATED if key not in bound)
    differ = (
        key
        for key in {**now, **before}
        if now.get(key) != before.get(key) and not key.startswith(free)
    )
    values = {key: (resolved(before, key), resolved(now, key)) for key in differ}
    faults = [
        must_be(key, f"{shown(then)}, as trained so far", new)
        for key, (then, new) in values.items()
        if then != new
    ]
    if faults:
        more = [f"and {len(faults) - 3} keys more"] if len(faults) > 3 else []
        raise ValueError(
            f"{'; '.join(faults[:3] + more)}; force=true resumes it as a run that is not exact"
        )


def resolved(flat: Mapping[str, Any], key: str) -> Any:
    """The value of a key, interpolations resolved where they can be."""
    written = flat.get(key)
    if not (isinstance(written, str) and "${" in written):
        return written
    whole = OmegaConf.create()
    for name, part in flat.items():
        OmegaConf.update(whole, name, part, force_add=True)
    try:
        return plain(whole, key)
    except ValueError:  # it refers to what only its own run had
        return written
