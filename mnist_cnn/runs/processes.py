"""A run in several processes of this machine, started by torchrun's own launcher.

Each is `python -m mnist_cnn.runs.processes RUN`, and reads the configuration in the run's folder:
so it trains the same from the command line, in a sweep under any launcher and from Python.
"""

import json
import logging
import os
import pkgutil
import signal
import sys
import uuid
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from mnist_cnn.runs.folder import FAILED, PRUNED, RESULTS, Pruned, RunFolder, error_of
from mnist_cnn.runs.ranks import under_torchrun, world_size
from mnist_cnn.runs.signals import SIGNALS, Interrupted, interruptible, restore

JOB = Path(".hydra", "processes.yaml")  # the resolved configuration, and Hydra's


def wanted(trainer: DictConfig) -> bool:
    """Tell whether this process is to start those of a run: torchrun has not."""
    return isinstance(trainer.devices, int) and trainer.devices > 1 and not under_torchrun()


def check(trainer: DictConfig) -> None:
    """Raise ValueError where the Trainer does not fit the processes that are to train together."""
    ddp = str(trainer.strategy).startswith("ddp")
    if not ddp and (world_size() > 1 or wanted(trainer)):
        count = max(world_size(), trainer.devices)
        raise ValueError(f"trainer.devices: several processes need trainer=ddp, got {count}")
    if wanted(trainer) and trainer.num_nodes > 1:
        raise ValueError(
            f"trainer.num_nodes must be 1 without torchrun, got {trainer.num_nodes}: "
            "torchrun --nproc-per-node 2 -m mnist_cnn.train trainer=ddp"
        )


def environment() -> list[Any]:
    """Return the Trainer's plugins; without torchrun one that ignores a cluster's variables."""
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment

    return [] if under_torchrun() else [LightningEnvironment()]


def launch(run: RunFolder, cfg: DictConfig, function: str, count: int) -> dict[str, Any]:
    """Call `package.module:function` with cfg in `count` processes; rank 0 holds the lock.

    Args:
        run: the run's folder, opened by this process.

    Returns:
        What results.json holds.

    Raises:
        ValueError: a process has failed or was killed.
        Interrupted: a signal to stop came, and they have stopped.
        Pruned: as in one process.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in ("multiprocessing.api", "agent.server.api"):  # what they say is in the error
        logging.getLogger(f"torch.distributed.elastic.{name}").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",  # a free port
        local_addr="localhost",
        max_restarts=0,
        signals_to_handle=",".join(number.name for number in SIGNALS),
    )
    job: dict[str, Any] = {"function": function, "cfg": OmegaConf.to_container(cfg, resolve=True)}
    if HydraConfig.initialized():
        job["hydra"] = HydraConfig.get()
    OmegaConf.save(job, run.path / JOB)
    handlers: dict[int, Any] = {number: signal.getsignal(number) for number in SIGNALS}
    run.lock.release()
    try:
        elastic_launch(config, sys.executable)("-m", __name__, str(run.path))
    except SignalException as e:
        raise Interrupted(e.sigval, f"resume it with ckpt_path={run.path}") from None
    except ChildFailedError as e:
        raise ValueError(failure(run.path, e.failures, count)) from None
    finally:
        run.lock.acquire(timeout=60)
        (run.path / JOB).unlink(missing_ok=True)
        restore(handlers)
    if (run.path / PRUNED).exists():
        raise Pruned(**json.loads((run.path / PRUNED).read_text("utf-8")))
    results: dict[str, Any] = json.loads((run.path / RESULTS).read_text("utf-8"))
    return results


def failure(folder: Path, failures: dict[int, Any], count: int) -> str:
    """The reason, in one line, why some of `count` processes have failed.

    Args:
        failures: of torchrun's launcher, by rank.
    """
    rank, first = min(failures.items(), key=lambda item: item[1].timestamp)
    if rank == 0 and first.exitcode > 0 and (folder / FAILED).exists():
        return error_of(folder)
    if first.exitcode < 0:
        what = f"was killed by {first.signal_name()}"
    elif isinstance(first.message, dict):
        what = first.message.get("message", "failed")
    else:
        what = f"ended with exit code {first.exitcode}"
    return f"process {rank} (of 0 to {count - 1}): {what}"


def call(path: Path) -> None:
    """Call the function of a job in this process, as a part of Hydra's job where it was one."""
    job = OmegaConf.load(path)
    assert isinstance(job, DictConfig)
    if "hydra" in job:
        whole = OmegaConf.create({"hydra": OmegaConf.structured(HydraConf)})
        with open_dict(whole.hydra):
            whole.hydra.merge_with(job.hydra)
        HydraConfig.instance().set_config(whole)
    pkgutil.resolve_name(job.function)(job.cfg)


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as under torchrun; before torch is imported
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    try:
        with interruptible():
            call(Path(sys.argv[1], JOB))
    except Pruned:
        pass
    except Interrupted as e:
        sys.exit(128 + e.number)
    except Exception as e:
        get_error_handler().record_exception(e)  # for `failure`
        sys.exit(1)


if __name__ == "__main__":
    main()
