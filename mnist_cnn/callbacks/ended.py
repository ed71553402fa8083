"""Whether a checkpoint leaves anything to train."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mnist_cnn.config.instantiate import class_name
from mnist_cnn.config.messages import must_be
from mnist_cnn.config.parse import Config


def why_ended(config: Config, file: Path) -> str:
    """Return why a run with this last checkpoint does not train further; empty if it does.

    Raises:
        ValueError: the file is damaged, has no state of a training, or has more epochs or steps
            than the configuration allows.
    """
    # torch takes seconds to import, which other commands avoid
    from mnist_cnn.weights.files import no_start, read_start

    content = read_start(file)
    try:
        states = content["callbacks"]
        progress = content["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]
        steps, epochs = content["global_step"], content["epoch"] + (progress["ready"] > 0)
    except (KeyError, TypeError):  # as of save_weights_only
        raise ValueError(no_start(file)) from None
    trainer = config.trainer
    for key, done in {"max_epochs": epochs, "max_steps": steps}.items():
        limit = trainer[key]
        if limit not in (None, -1) and done > limit:
            allowed = f"at least {done}, which {file} has"
            raise ValueError(must_be(f"trainer.{key}", allowed, limit))
    if content["epoch"] == trainer["max_epochs"]:
        return f"its {epochs} epochs are trained"
    if steps == trainer["max_steps"]:
        return f"its {steps} steps are trained"
    least = trainer.get("min_epochs") or 0, trainer.get("min_steps") or 0
    if epochs >= least[0] and steps >= least[1]:
        for name in stopped(states, config.callbacks):
            return f"callbacks.{name} ended it after epoch {epochs}"
    return ""


def stopped(states: Mapping[str, Any], callbacks: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the callbacks that ended a training, from their states in a checkpoint."""
    for name, node in callbacks.items():
        # the state_key of EarlyStopping, and its default
        of = {"monitor": node.get("monitor"), "mode": node.get("mode", "min")} if node else {}
        if states.get(f"{class_name(node or {})}{of!r}", {}).get("stopping_reason"):
            yield name
