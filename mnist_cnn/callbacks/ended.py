"""Whether a checkpoint leaves anything to train."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from mnist_cnn.config.compose import plain
from mnist_cnn.config.instantiate import class_name
from mnist_cnn.config.messages import must_be


def why_ended(file: Path, cfg: DictConfig) -> str:
    """Return why a run with this last checkpoint trains no further; empty where it does.

    Raises:
        ValueError: the file is damaged, or has more epochs or steps than the configuration allows.
    """
    # torch takes seconds, which other commands save
    from mnist_cnn.callbacks.checkpoint import check_whole
    from mnist_cnn.weights.files import read_checkpoint

    check_whole(file)
    content = read_checkpoint(file)
    progress = content["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]
    steps, epochs = content["global_step"], content["epoch"] + (progress["ready"] > 0)
    for key, done in {"trainer.max_epochs": epochs, "trainer.max_steps": steps}.items():
        limit = plain(cfg, key)
        if limit not in (None, -1) and done > limit:
            raise ValueError(must_be(key, f"at least {done}, which {file} has", limit))
    if content["epoch"] == cfg.trainer.max_epochs:
        return f"its {epochs} epochs are trained"
    if steps == cfg.trainer.get("max_steps"):
        return f"its {steps} steps are trained"
    least = cfg.trainer.get("min_epochs") or 0, cfg.trainer.get("min_steps") or 0
    if epochs >= least[0] and steps >= least[1]:
        for name in stopped(content["callbacks"], plain(cfg, "callbacks")):
            return f"callbacks.{name} ended it after epoch {epochs}"
    return ""


def stopped(states: Mapping[str, Any], callbacks: Mapping[str, Any]) -> Iterator[str]:
    """The names of the callbacks that have ended a training, by what a checkpoint has of them."""
    for name, node in callbacks.items():
        # as EarlyStopping calls its state
        of = {key: node.get(key) for key in ("monitor", "mode")} if node else {}
        if states.get(f"{class_name(node or {})}{of!r}", {}).get("stopping_reason"):
            yield name
