"""What a run needs of the machine that it starts on."""

import lightning as L
import torch
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from omegaconf import DictConfig, OmegaConf

from mnist_cnn.config.compose import plain
from mnist_cnn.config.messages import either, must_be
from mnist_cnn.config.own import make
from mnist_cnn.internals.lightning import quiet_lightning
from mnist_cnn.module import find_class
from mnist_cnn.pretrained import build_network
from mnist_cnn.runs.launch import plugins


def check_here(cfg: DictConfig) -> None:
    """Holds a run's configuration against this machine's devices and the classes that it names.

    Raises:
        ValueError: a device that is not here, a class that does not exist.
    """
    quiet_lightning()
    names = {
        **{"auto": True, "cpu": True, "gpu": False},
        **{"cuda": CUDAAccelerator.is_available(), "mps": MPSAccelerator.is_available()},
    }
    names["gpu"] = names["cuda"] or names["mps"]
    accelerator, devices = cfg.trainer.accelerator, cfg.trainer.devices
    if not names.get(accelerator):
        here = either([name for name, available in names.items() if available])
        raise ValueError(must_be("trainer.accelerator", f"{here} on this machine", accelerator))
    if OmegaConf.is_list(devices) and (accelerator == "cpu" or not names["gpu"]):
        raise ValueError(must_be("trainer.devices", "a whole number on a CPU", devices))
    # what else Lightning refuses, it refuses here
    options = {"callbacks": [], "logger": False, "plugins": plugins(), "default_root_dir": "."}
    make(L.Trainer, cfg.trainer, **options)
    # without memory or time, but code of the user's own may not know that device
    with torch.device("cpu" if "_target_" in cfg.model else "meta"):
        build_network(plain(cfg, "model"))
    if "_target_" not in cfg.optimizer:
        find_class(torch.optim, torch.optim.Optimizer, "optimizer", cfg.optimizer.name)
    if cfg.scheduler.get("name") is not None:
        schedulers = torch.optim.lr_scheduler
        find_class(schedulers, schedulers.LRScheduler, "scheduler", cfg.scheduler.name)
