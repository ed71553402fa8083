"""The loggers of a run."""

from typing import Any

from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from mnist_cnn.config.own import make
from mnist_cnn.runs.checks import content


def make_loggers(cfg: DictConfig) -> list[Logger]:
    """The loggers that a configuration names.

    One whose `purge_step` is null drops what was logged after the checkpoint that a run starts
    from, since it is logged anew.
    """
    nodes = [node for node in (cfg.get("logger") or {}).values() if node is not None]
    return [make(Logger, node, **purged(node, cfg.ckpt_path)) for node in nodes]


def purged(logger: DictConfig, ckpt_path: str | None) -> dict[str, Any]:
    if ckpt_path is None or logger.get("purge_step", 0) is not None:
        return {}
    return {"purge_step": content(ckpt_path).epochs + 1}
