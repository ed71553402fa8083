"""The processes of one run."""

import atexit
import ctypes
import math
import os
import signal
import sys
import time
from typing import Any, NoReturn

from omegaconf import DictConfig, open_dict, read_write

PR_SET_PDEATHSIG = 1  # prctl(2): the signal that a process gets when its parent ends


def processes() -> int:
    """How many processes torchrun started to train together, on all machines; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def torchrun() -> bool:
    """Whether torchrun started this process."""
    return "LOCAL_WORLD_SIZE" in os.environ


def rank() -> int:
    """Which of them this one is, from 0; one of them writes the run's files: 0."""
    return int(os.environ.get("RANK", 0))


def plugins() -> list[Any]:
    """The Trainer's plugins: without torchrun, one that ignores the variables of a cluster's job.

    Lightning would take them for the start of several processes.
    """
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment

    return [] if torchrun() else [LightningEnvironment()]


def starts_ranks(trainer: DictConfig) -> bool:
    """Whether this process is to start the processes of a run: torchrun has not."""
    return not torchrun() and isinstance(trainer.devices, int) and trainer.devices > 1


def check_processes(task: DictConfig) -> None:
    """Raises ValueError where a run does not fit the number of processes that are to train it."""
    trainer = task.trainer
    ddp = str(trainer.strategy).startswith("ddp")
    if not ddp and processes() > 1:
        raise ValueError(f"trainer must be ddp with {processes()} processes of torchrun")
    if (ddp and not torchrun() and not starts_ranks(trainer)) or (
        starts_ranks(trainer) and trainer.num_nodes > 1
    ):
        raise ValueError(
            f"trainer.devices must be 2 or more with trainer=ddp, got {trainer.devices}; torchrun "
            "starts processes on several machines: torchrun --nproc-per-node 2 "
            "-m mnist_cnn.train trainer=ddp"
        )
    count = trainer.devices if starts_ranks(trainer) else processes()
    if task.data.get("batch_size", math.inf) < count:
        raise ValueError(
            f"data.batch_size must be at least {count}, an image for each process, "
            f"got {task.data.batch_size}"
        )


def leave(line: str) -> NoReturn:
    """Ends the processes of a run with the error line of rank 0."""
    if rank() > 0:  # torchrun ends all as soon as one has ended: rank 0 is the first
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(20)
    sys.exit(line if rank() == 0 else 1)


def connect() -> None:
    """Connects this process with the others that torchrun started."""
    if sys.platform == "linux":  # where torchrun is killed, its processes would train on alone
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    from torch import distributed

    distributed.init_process_group()  # Lightning takes it over
    atexit.register(distributed.destroy_process_group)


def join(config: DictConfig) -> None:
    """Makes the processes that torchrun started one run: rank 0 has the folder and the log."""
    from torch import distributed

    connect()
    folder = [config.hydra.run.dir]
    distributed.broadcast_object_list(folder)
    with read_write(config), open_dict(config):
        config.hydra.run.dir = folder[0]
        if rank() > 0:
            config.hydra.output_subdir = None
            config.hydra.job_logging = {"root": None}
