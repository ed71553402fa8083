"""What a run needs of the machine that it starts on."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from omegaconf import DictConfig, OmegaConf

from mnist_cnn.config.compose import plain
from mnist_cnn.config.messages import either, must_be
from mnist_cnn.config.own import make
from mnist_cnn.internals.lightning import quiet_lightning
from mnist_cnn.model import frozen
from mnist_cnn.optim import find_class
from mnist_cnn.pretrained import build_network, read_weights
from mnist_cnn.runs.launch import plugins


def check_here(cfg: DictConfig) -> None:
    """Holds a run's configuration against this machine's devices, and what it names.

    Raises:
        ValueError: a device that is not here, or a class, a layer or a file that does not exist.
    """
    quiet_lightning()
    cuda, mps = CUDAAccelerator.is_available(), MPSAccelerator.is_available()
    names = {"auto": True, "cpu": True, "gpu": cuda or mps, "cuda": cuda, "mps": mps}
    accelerator, devices = cfg.trainer.accelerator, cfg.trainer.devices
    if not names.get(accelerator):
        here = either([name for name, available in names.items() if available])
        raise ValueError(must_be("trainer.accelerator", f"{here} on this machine", accelerator))
    if OmegaConf.is_list(devices) and (accelerator == "cpu" or not names["gpu"]):
        raise ValueError(must_be("trainer.devices", "a whole number on a CPU", devices))
    # what else Lightning refuses, it refuses here
    bare: Any = {"callbacks": [], "logger": False, "plugins": plugins(), "default_root_dir": "."}
    make(L.Trainer, cfg.trainer, **bare)
    # without memory or time, but code of the user's own may not know that device
    with torch.device("cpu" if "_target_" in cfg.model else "meta"):
        frozen(build_network(plain(cfg, "model")), cfg.freeze or ())
    if cfg.init_weights is not None and cfg.ckpt_path is None:
        try:
            read_weights(cfg.init_weights)
        except ValueError as e:
            raise ValueError(f"init_weights: {e}") from None
    if "_target_" not in cfg.optimizer:
        find_class(torch.optim, torch.optim.Optimizer, "optimizer", cfg.optimizer.name)
    if cfg.scheduler.get("name") is not None:
        schedulers = torch.optim.lr_scheduler
        find_class(schedulers, schedulers.LRScheduler, "scheduler", cfg.scheduler.name)
