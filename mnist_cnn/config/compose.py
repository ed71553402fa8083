"""Where the configuration lies, what its values may be, and how an entry starts from it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_cnn.config.files import CONF, check_choices
from mnist_cnn.config.messages import better
from mnist_cnn.internals.hydra import composed


def plain(cfg: DictConfig, key: str = "") -> Any:
    """The value of a key, or all of cfg, as plain Python values with every interpolation resolved.

    Raises:
        ValueError: a value refers to something that does not exist, or to itself.
    """
    try:
        value = OmegaConf.select(cfg, key) if key else cfg
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    except (OmegaConfBaseException, RecursionError) as e:
        endless = isinstance(e, RecursionError) or "Recursive" in str(e)
        reason = "it refers to itself" if endless else " ".join(str(e).split())
        raise ValueError(f"{key}: {reason}" if key else reason) from None


def run_name(overrides: Sequence[str] | None = None) -> str:
    """What a command line overrode (by default that of this run), fit for a folder's name."""
    if overrides is None:
        overrides = HydraConfig.get().overrides.task
    left = ("ckpt_path=", "targets=")
    parts = [o.removeprefix("experiment=") for o in overrides if not o.startswith(left)]
    return re.sub(r"[^\w.=,+-]+", "_", ",".join(parts))[:120] or "default"


OmegaConf.register_resolver("run_name", run_name, replace=True)
OmegaConf.register_resolver("better", better, replace=True)


def compose(
    overrides: Sequence[str] = (), *, run_dir: str | Path, run_name: str = "", entry: str = "train"
) -> DictConfig:
    """The configuration of `python -m mnist_cnn.<entry> OVERRIDES`, for use from Python.

    Args:
        overrides: as on the command line: ["trainer.max_epochs=2"].
        run_dir: the folder that the run is to fill.
        run_name: its name in TensorBoard, where it is to have one.
        entry: train or evaluate.
    """
    check_choices(overrides)
    cfg = composed(CONF, entry, overrides)
    cfg.run_dir = re.sub(r"(\\*)\$\{", r"\1\1\\${", str(run_dir))  # no interpolation
    if entry == "train":
        cfg.run_name = run_name
    return cfg
