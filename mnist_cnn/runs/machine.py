"""What a run needs of the machine that it starts on."""

from typing import Any

import lightning as L
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from omegaconf import DictConfig, OmegaConf

from mnist_cnn.config.compose import plain
from mnist_cnn.config.instantiate import instantiate_as
from mnist_cnn.config.messages import either, must_be
from mnist_cnn.internals.lightning import quiet_lightning
from mnist_cnn.model import frozen
from mnist_cnn.module import make_optimizer, make_schedule
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
    instantiate_as(L.Trainer, cfg.trainer, **bare)
    net = build_network(plain(cfg, "model"))
    frozen(net, cfg.freeze or ())
    optimizer = make_optimizer(plain(cfg, "optimizer"), list(net.parameters()))
    if "_target_" in cfg.scheduler:
        make_schedule(plain(cfg, "scheduler"), optimizer, lambda: 2)
    if cfg.init_weights is not None and cfg.ckpt_path is None:
        try:
            read_weights(cfg.init_weights)
        except ValueError as e:
            raise ValueError(f"init_weights: {e}") from None
