"""One job of a sweep."""

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

from mnist_cnn.runs import state
from mnist_cnn.runs.signals import Interrupted

log = logging.getLogger(__name__)

ENDS = ("finished", "failed", "pruned")
POLL = 0.2  # seconds


def attempt(train: Callable[[DictConfig], Any], cfg: DictConfig) -> None:
    """Runs one job of a sweep without a word; how it ended, `runs.recorded` tells in its folder.

    Where the folder has a checkpoint, the job goes on from there.
    """
    import torch

    if "SUBMITIT_LOCAL_JOB_ID" in os.environ:  # submitit ignores it
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
    finally:  # the next job is to find the memory free
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
