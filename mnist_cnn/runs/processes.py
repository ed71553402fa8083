"""Runs in several processes on this machine, started by torchrun's own launcher.

Each process is `python -m mnist_cnn.runs.processes`, which reads its configuration from the
environment. So it trains the same from the command line, in a sweep with any launcher and from
Python, and a killed run leaves no files of its processes behind.
"""

import logging
import os
import pkgutil
import sys
import time
import uuid
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from mnist_cnn.internals.hydra import adopt_hydra_config
from mnist_cnn.runs.folder import PRUNED, RESULTS, Pruned, RunFolder, read_json
from mnist_cnn.runs.ranks import end_with_launcher, under_torchrun
from mnist_cnn.runs.signals import Interrupted, interruptible

JOB = "MNIST_CNN_JOB"  # environment variable: the argument of `call`, as YAML


class RemoteTraceback(Exception):  # noqa: N818, it is the cause of one
    """The traceback of an error in another process, as text."""


def wanted(devices: Any) -> bool:
    """Return whether this process must start those of a run, since torchrun has not."""
    return isinstance(devices, int) and devices > 1 and not under_torchrun()


def plugins() -> list[Any]:
    """Return the Trainer's plugins; without torchrun, one that ignores a cluster's variables."""
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment

    return [] if under_torchrun() else [LightningEnvironment()]


def launch(run: RunFolder, function: str, count: int) -> dict[str, Any]:
    """Call `package.module:function` with a run's configuration in `count` processes.

    Rank 0 takes over the lock of the folder, which this process has opened.

    Returns:
        The content of the run's results.json.

    Raises:
        ValueError: a process failed or was killed.
        Interrupted: a stop signal was received, and the processes have stopped.
        Pruned: as in one process.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in ("multiprocessing.api", "agent.server.api"):  # the error has their messages
        logging.getLogger(f"torch.distributed.elastic.{name}").setLevel(logging.CRITICAL)
    # PyTorch's handlers (always installed before 2.10) forward SIGINT, on which a starting Python
    # prints a traceback; without them the processes are ended by SIGTERM
    ours: Any = {"signals_to_handle": ""} if hasattr(LaunchConfig, "signals_to_handle") else {}
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",  # a free port
        local_addr="localhost",
        max_restarts=0,
        **ours,
    )
    job: dict[str, Any] = {"function": function, "cfg": run.values, "launcher": os.getpid()}
    if HydraConfig.initialized():
        job["hydra"] = HydraConfig.get()
    os.environ[JOB] = OmegaConf.to_yaml(job)
    run.lock.release()
    try:
        with interruptible():
            elastic_launch(config, sys.executable)("-m", __name__)
    except SignalException as e:
        raise Interrupted(e.sigval) from None
    except ChildFailedError as e:
        rank, first = e.get_first_failure()
        reason: Any = first.message  # for an exception, a dict with its name and text
        if not isinstance(reason, dict):
            raise ValueError(f"process {rank}: {reason}") from None
        trace = RemoteTraceback(reason["extraInfo"]["py_callstack"])
        raise ValueError(f"process {rank}: {reason['message']}") from trace
    finally:
        del os.environ[JOB]
        run.lock.acquire(timeout=60)
    if (run.path / PRUNED).exists():
        raise Pruned(**read_json(run.path / PRUNED))
    return read_json(run.path / RESULTS)


def call(job: Any) -> None:
    """Call a job's `function` with its `cfg`, and with its configuration of Hydra if it has one."""
    if "hydra" in job:
        adopt_hydra_config(job)
    pkgutil.resolve_name(job.function)(job.cfg)


def main() -> None:
    job: Any = OmegaConf.create(os.environ.pop(JOB))
    end_with_launcher(job.launcher)  # before the imports, which take seconds
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as under torchrun; before torch is imported
    try:
        with interruptible():
            call(job)
    except Pruned:
        pass
    except Interrupted as e:
        sys.exit(128 + e.number)
    except Exception as e:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        # the error may be that another process has gone: the launcher, which polls ten times a
        # second, is to notice that one first, and to end this one before it reports an error
        time.sleep(3)
        get_error_handler().record_exception(e)  # for `launch`
        sys.exit(1)


if __name__ == "__main__":
    main()
