"""Module and Trainer of a run, as its configuration describes them."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import ProgressBar
from omegaconf import DictConfig
from torch import nn

from mnist_cnn.callbacks.checkpoint import Checkpoint, check_whole
from mnist_cnn.callbacks.loggers import make_loggers
from mnist_cnn.config.check import inexact_callbacks
from mnist_cnn.config.compose import plain
from mnist_cnn.config.instantiate import instantiate_as, is_custom
from mnist_cnn.internals.lightning import quiet_lightning
from mnist_cnn.model import frozen
from mnist_cnn.module import DigitClassifier, fitted
from mnist_cnn.optim import make_optimizer, make_schedule
from mnist_cnn.pretrained import build_network, read_checkpoint, read_file
from mnist_cnn.runs import processes
from mnist_cnn.runs.folder import LAST, RunFolder
from mnist_cnn.runs.ranks import rank
from mnist_cnn.sweeps.names import in_sweep


def check_machine(cfg: DictConfig) -> None:
    """Hold a run's configuration against this machine, before the run has a folder.

    Raises:
        ValueError: a device that is not here, or a class, a layer or a file that does not exist.
    """
    quiet_lightning()
    bare: dict[str, Any] = {"callbacks": [], "logger": False, "default_root_dir": "."}
    plugins = processes.environment()
    instantiate_as(L.Trainer, cfg.trainer, **bare, plugins=plugins, key="trainer")
    frozen(build_network(plain(cfg, "model")), cfg.freeze or ())
    optimizer = make_optimizer(plain(cfg, "optimizer"), [nn.Parameter(torch.zeros(1, 1))])
    if cfg.scheduler:
        make_schedule(plain(cfg, "scheduler"), optimizer, lambda: 2)
    if (Path(cfg.run_dir) / LAST).is_file():
        return  # it is resumed from there, and needs no file that it started from
    if cfg.ckpt_path is not None:
        check_whole(cfg.ckpt_path)
    elif cfg.init_weights is not None:
        try:
            read_file(cfg.init_weights)
        except ValueError as e:
            raise ValueError(f"init_weights: {e}") from None


def build_module(config: Mapping[str, Any], data: L.LightningDataModule) -> DigitClassifier:
    """The module that a run's configuration describes, for its data.

    A run that is not resumed starts from `init_weights`; a line on stderr names what is left at its
    initial values.

    Args:
        config: what conf/train.yaml composes to, as plain values.
        data: what it is trained on.

    Raises:
        ValueError: as DigitClassifier does, or the weights do not fit.
    """
    parts = ("optimizer", "label_smoothing", "loss", "metrics", "freeze")
    module = DigitClassifier(
        model=fitted(config["model"], data),
        scheduler=config["scheduler"] or {},
        **{key: config[key] for key in parts},
        monitor=config["objective"]["metric"],
    )
    path, strict = config["init_weights"], config["init_strict"]
    if path is not None and config["ckpt_path"] is None:
        try:
            left = module.load_weights(path, strict)
        except ValueError as e:
            raise ValueError(f"init_weights: {e}") from None
        if left and rank() == 0:
            print(f"init_weights={path}: loaded except {'; '.join(left)}", file=sys.stderr)
    return module


def load_best(trainer: L.Trainer, module: DigitClassifier) -> int | None:
    """Load the weights of a run's best checkpoint, and return their epoch (from 1).

    Those of the last checkpoint where no metric chose one; the epoch is then None.
    """
    kept = trainer.checkpoint_callback
    assert isinstance(kept, Checkpoint)
    content = read_checkpoint(kept.best if kept.best.exists() else kept.last)
    module.load_state_dict(content["state_dict"])
    return kept.best_epoch


def build_trainer(cfg: DictConfig, run: RunFolder, start: Any) -> L.Trainer:
    """The Trainer of a run in its folder.

    Args:
        start: the checkpoint that the run starts from, None for a new one.

    Raises:
        ValueError: values that Lightning refuses, a damaged checkpoint, or a logger that is not
            to be had.
    """
    quiet_lightning()
    if start is not None:
        check_whole(start)
    if (inexact := inexact_callbacks(cfg)) and rank() == 0:
        print(f"no exact resume is promised with {', '.join(inexact)}", file=sys.stderr)
    callbacks = [
        instantiate_as(L.Callback, node, key=f"callbacks.{name}")
        for name, node in cfg.callbacks.items()
        if node is not None
    ]
    options = {**plain(cfg, "trainer"), "devices": own_devices(cfg.trainer)}
    # our loaders hand out each process's share themselves
    options["use_distributed_sampler"] = is_custom(cfg.data)
    options["enable_progress_bar"] |= any(isinstance(c, ProgressBar) for c in callbacks)
    keeper = next(callback for callback in callbacks if isinstance(callback, Checkpoint))
    keeper.run, keeper.start = run, start
    keeper.data = plain(cfg, "data") if is_custom(cfg.data) else {}
    trainer: L.Trainer = instantiate_as(
        L.Trainer,
        options,
        callbacks=callbacks,
        logger=make_loggers(cfg, start),
        plugins=processes.environment(),
        default_root_dir=run.path,
        key="trainer",
    )
    return trainer


def own_devices(trainer: DictConfig) -> Any:
    """The Trainer's devices: of several GPUs each job of a sweep gets one, by its number."""
    devices, count = plain(trainer, "devices"), torch.cuda.device_count()
    if devices != 1 or count < 2 or trainer.accelerator not in ("auto", "gpu", "cuda"):
        return devices
    return [HydraConfig.get().job.num % count] if in_sweep() else devices
