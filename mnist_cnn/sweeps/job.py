"""One run, or one job of a sweep, as Hydra starts it."""

import contextlib
import gc
import itertools
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from mnist_cnn.internals.hydra import multirun
from mnist_cnn.internals.launchers import IN_SUBMITIT
from mnist_cnn.runs import state
from mnist_cnn.runs.launch import rank
from mnist_cnn.runs.signals import Interrupted
from mnist_cnn.sweeps.launchers import POLL

log = logging.getLogger(__name__)

ENDS = ("finished", "failed", "pruned")


def start(train: Callable[[DictConfig], dict[str, Any]], cfg: DictConfig) -> None:
    """What Hydra calls: trains one run and prints its table, or runs a job of a sweep."""
    if multirun():
        return attempt(train, cfg)
    outcome = train(cfg)
    if rank() == 0:
        from mnist_cnn.runs.results import show

        show(outcome, Path(cfg.run_dir))


def attempt(train: Callable[[DictConfig], Any], cfg: DictConfig) -> None:
    """Runs one job of a sweep silently; how it ended, its folder tells, see `runs.claim.recorded`.

    Where the folder has a checkpoint, the job is resumed from it.
    """
    import torch

    if IN_SUBMITIT in os.environ:
        signal.signal(signal.SIGTERM, interrupt)
    folder = Path(cfg.run_dir)
    for part, key, value in (
        ("callbacks.progress", "quiet", True),
        ("callbacks", "summary", None),
        ("trainer", "enable_model_summary", False),
    ):
        if isinstance(node := OmegaConf.select(cfg, part), DictConfig) and key in node:
            node[key] = value
    if (folder / state.LAST).is_file():
        cfg.ckpt_path = str(folder / state.LAST)
    try:
        with own_gpu(cfg):
            train(cfg)
    except state.Pruned as e:
        log.info(e)
    except Exception:
        log.exception("the job failed")
    finally:  # the next job needs the memory
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def interrupt(number: int, frame: Any) -> None:
    raise Interrupted(number)


@contextlib.contextmanager
def own_gpu(cfg: DictConfig) -> Iterator[None]:
    """Where there are several GPUs: waits for one that no other job of the sweep is using."""
    import torch

    count = torch.cuda.device_count()
    wanted = OmegaConf.select(cfg, "trainer.accelerator") in ("auto", "gpu", "cuda")
    if count < 2 or not wanted or OmegaConf.select(cfg, "trainer.devices") != 1:
        yield
        return
    sweep, host = Path(cfg.run_dir).parent, socket.gethostname()
    for k in itertools.cycle(range(count)):
        lock = FileLock(sweep / f".gpu-{host}-{k}.lock", timeout=0)
        try:
            held = lock.acquire()
        except Timeout:
            time.sleep(POLL / count)
            continue
        with held:
            cfg.trainer.devices = [k]
            yield
        return
