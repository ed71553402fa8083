"""One run, or one job of a sweep, as Hydra starts it."""

import contextlib
import gc
import logging
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from mnist_cnn.internals.hydra import multirun
from mnist_cnn.internals.launchers import IN_SUBMITIT, POLL
from mnist_cnn.runs import ranks, state
from mnist_cnn.runs.launch import rank, starts_ranks
from mnist_cnn.runs.signals import interrupt
from mnist_cnn.sweeps.folder import is_over

log = logging.getLogger(__name__)


def start(train: Callable[[DictConfig], dict[str, Any]], cfg: DictConfig) -> None:
    """What Hydra calls: trains one run and prints its table, or runs a job of a sweep."""
    run = ranks.train_in_ranks if starts_ranks(cfg.trainer) else train
    if multirun():
        return attempt(run, cfg)
    folder = Path(cfg.run_dir)
    last = folder / state.LAST
    before = last.stat().st_mtime_ns if last.is_file() else None
    outcome = run(cfg)
    if rank() == 0:
        from mnist_cnn.runs.results import print_results

        print_results(outcome, folder)
        if last.is_file() and last.stat().st_mtime_ns == before:
            print(f"nothing was left to train: set trainer.max_epochs above {outcome['epochs']}")


def attempt(train: Callable[[DictConfig], Any], cfg: DictConfig) -> None:
    """Runs one job of a sweep silently; how it ended, its folder tells, see `runs.claim.recorded`.

    Where the folder has a checkpoint, the job is resumed from it.
    """
    import torch

    if IN_SUBMITIT in os.environ:
        signal.signal(signal.SIGTERM, interrupt)
    folder = Path(cfg.run_dir)
    if is_over(folder.parent, HydraConfig.get().sweeper.max_failures):
        return
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
        with own_gpus(cfg):
            train(cfg)
    except state.Pruned as e:
        log.info(e)
    except Exception:
        log.exception("the job failed")
    finally:  # the next job needs the memory
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


@contextlib.contextmanager
def own_gpus(cfg: DictConfig) -> Iterator[None]:
    """Where there are several GPUs: waits for as many as the job needs and no other job uses."""
    import torch

    count, wanted = torch.cuda.device_count(), OmegaConf.select(cfg, "trainer.devices")
    gpus = OmegaConf.select(cfg, "trainer.accelerator") in ("auto", "gpu", "cuda")
    if count < 2 or not gpus or not isinstance(wanted, int) or wanted > count:
        yield
        return
    sweep, host = Path(cfg.run_dir).parent, socket.gethostname()
    locks = [FileLock(sweep / f".gpu-{host}-{k}.lock", timeout=0) for k in range(count)]
    with contextlib.ExitStack() as held:
        while len(own := acquire(locks, wanted, held)) < wanted:
            held.close()  # all or none: else two jobs may wait for each other
            time.sleep(POLL * random.uniform(0.5, 1))
        if wanted == 1:
            cfg.trainer.devices = own
        else:
            seen = os.environ.get("CUDA_VISIBLE_DEVICES")
            names = seen.split(",") if seen else list(map(str, range(count)))
            chosen = ",".join(names[k] for k in own)
            held.enter_context(mock.patch.dict(os.environ, {"CUDA_VISIBLE_DEVICES": chosen}))
        yield


def acquire(locks: list[FileLock], wanted: int, held: contextlib.ExitStack) -> list[int]:
    """Takes as many of the locks as are wanted and free; their numbers."""
    own: list[int] = []
    for k, lock in enumerate(locks):
        with contextlib.suppress(Timeout):
            if len(own) < wanted:
                held.enter_context(lock.acquire())
                own.append(k)
    return own
