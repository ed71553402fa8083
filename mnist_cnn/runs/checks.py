"""Whether a checkpoint is sound, and belongs to a configuration."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from mnist_cnn.config.check import check, check_here
from mnist_cnn.config.messages import shown
from mnist_cnn.runs.configuration import flat
from mnist_cnn.runs.launch import rank

# beginnings of keys that may differ when a run goes on: they change nothing of what it learns
UNRELATED = [
    "ckpt_path",
    "force",
    "run_",
    "test",
    "logger",
    "hparams_search",
    "data.root",
    "data.source",
    "data.mirror",
    "data.eval_batch_size",
    "trainer.max_epochs",
    "trainer.max_time",
    "trainer.devices",
    "trainer.enable",
    "trainer.profiler",
    "trainer.detect_anomaly",
    "callbacks.progress",
    "callbacks.prune",
    "callbacks.summary",
    "callbacks.histograms",
    "callbacks.finite",
    "callbacks.checkpoint.every",
]


def check_checkpoint(path: Path) -> None:
    """Raises ValueError where training cannot go on from this file. It runs none of its code."""
    if fault := damage(path):
        others = (file for file in sorted(path.parent.glob("*.ckpt")) if file != path)
        whole = next((file for file in others if not damage(file)), None)
        hint = f"; allowed: ckpt_path={whole}, an older one that is whole" if whole else ""
        raise ValueError(f"ckpt_path={path}: {fault}{hint}")


def damage(path: Path) -> str:
    """What is wrong with a checkpoint, empty where nothing is."""
    from mnist_cnn import pretrained

    try:
        content = pretrained.read_checkpoint(path)
    except ValueError as e:
        return f"not a checkpoint that training can resume: {e}"
    wanted = {
        **{"state_dict": dict, "loops": dict, "callbacks": dict},
        **{"optimizer_states": list, "processes": list},
    }
    sound = isinstance(content, dict) and all(
        isinstance(content.get(key), kind) and content[key] for key, kind in wanted.items()
    )
    if not sound or not any(str(key).startswith("net.") for key in content["state_dict"]):
        return "not a checkpoint of this project"
    return ""


def check_run(config: DictConfig) -> None:
    """Raises ValueError where a configuration is not allowed, or does not belong to its checkpoint.

    A run that is made another one by force is told of on stderr.
    """
    if config.ckpt_path is not None:
        check_checkpoint(Path(config.ckpt_path))  # first: the logger reads it too
    check(config)
    check_here(config)
    if config.ckpt_path is None:
        return
    from mnist_cnn import pretrained

    checkpoint = pretrained.read_checkpoint(config.ckpt_path)
    done = checkpoint["epoch"]
    if (wanted := config.trainer.max_epochs) < done:
        raise ValueError(
            f"trainer.max_epochs={wanted}: {done} epochs are done; allowed: {done} or more"
        )
    try:
        if before := checkpoint.get("config"):  # those of earlier versions have none
            check_same(before, config)
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
        config: the one that is to go on from it.
    """
    now = flat(config)
    free = UNRELATED
    laid_out = config.scheduler.name in ("OneCycleLR", "CosineAnnealingLR")
    # a run that ended with averaged weights has no others left to go on from
    averaged = config.callbacks.get("averaging")
    if laid_out or config.data.clean_epochs or averaged:  # for a number of epochs
        free = [key for key in free if key != "trainer.max_epochs"]
    if str(config.trainer.limit_val_batches) != "1.0":  # so many batches: it chooses the images
        free = [key for key in free if key != "data.eval_batch_size"]
    changed = [
        key
        for key in {**now, **before}
        if now.get(key) != before.get(key) and not key.startswith(tuple(free))
    ]
    if changed:
        faults = [
            f"{key}={shown(now.get(key))}: trained with {shown(before.get(key))} so far"
            for key in changed[:3]
        ]
        more = [f"and {len(changed) - 3} keys more"] if len(changed) > 3 else []
        raise ValueError(
            f"{'; '.join(faults + more)}; allowed with force=true, as a run that is not exact"
        )
