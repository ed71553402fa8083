"""A run in several processes, started from one by torchrun's own launcher, on this machine.

The processes get the configuration that Hydra has composed, so that a job of a sweep trains as one
that torchrun itself starts: python -m mnist_cnn.runs.ranks JOB
"""

import json
import logging
import os
import pickle
import pkgutil
import signal
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any
from unittest import mock

from omegaconf import DictConfig

from mnist_cnn.internals.entry import interruptible
from mnist_cnn.internals.hydra import started_job, take_part
from mnist_cnn.runs.claim import claimed, release
from mnist_cnn.runs.launch import connect, rank
from mnist_cnn.runs.signals import SIGNALS, Interrupted
from mnist_cnn.runs.state import FAILED, PRUNED, RESULTS, Pruned, state, write
from mnist_cnn.sweeps.folder import failure_of

TRAIN = "mnist_cnn.train:train"


def train_in_ranks(cfg: DictConfig) -> dict[str, Any]:
    """Trains in trainer.devices processes; what they leave in the run's folder is as torchrun's.

    Raises:
        ValueError: a process has failed or was killed; failed.json says so too.
        Interrupted: a signal to stop came, and they have stopped.
        Pruned: as in one process.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in ("multiprocessing.api", "agent.server.api"):  # what they say is in the error
        logging.getLogger(f"torch.distributed.elastic.{name}").setLevel(logging.CRITICAL)
    folder = Path(cfg.run_dir)
    if folder.absolute() in claimed:
        release(folder)  # the first of them claims it
    # torchrun's rule, without which they would disturb each other
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    with tempfile.TemporaryDirectory() as place, mock.patch.dict(os.environ, threads):
        job = Path(place, "job")
        job.write_bytes(pickle.dumps((cfg, started_job())))
        launch = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=cfg.trainer.devices,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",  # a free port
            local_addr="localhost",
            max_restarts=0,
            signals_to_handle=",".join(number.name for number in SIGNALS),
        )
        try:
            elastic_launch(launch, sys.executable)("-m", __name__, str(job))
        except SignalException as e:
            raise Interrupted(e.sigval, f"resume it with ckpt_path={folder}") from None
        except ChildFailedError as e:
            raise ValueError(failure(folder, e.failures, cfg.trainer.devices)) from None
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    if (folder / PRUNED).exists():
        noted = json.loads((folder / PRUNED).read_text("utf-8"))
        raise Pruned(noted["epoch"], noted["metric"], noted["value"])
    outcome: dict[str, Any] = json.loads((folder / RESULTS).read_text("utf-8"))
    return outcome


def failure(folder: Path, failures: dict[int, Any], count: int) -> str:
    """Why some of `count` processes have failed, in one line, and in failed.json if it has nothing.

    Args:
        failures: of torchrun's launcher, by rank.
    """
    killed = {n: f for n, f in failures.items() if f.exitcode < 0}
    n, first = min((killed or failures).items(), key=lambda item: item[1].timestamp)
    if not killed and n == 0 and (folder / FAILED).exists():
        return failure_of(folder)
    told = first.message if isinstance(first.message, dict) else {}
    what = told.get("message", f"ended with exit code {first.exitcode}")
    what = f"was killed by {first.signal_name()}" if killed else what
    line = f"process {n} (of 0 to {count - 1}) {what}"
    if not (folder / RESULTS).exists() and state(folder) != "running":  # by somebody else
        trace = told.get("extraInfo", {}).get("py_callstack", "")
        write({"type": "EndedEarly", "error": line, "traceback": trace}, folder / FAILED)
    return line


def main() -> None:
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    cfg, hydra = pickle.loads(Path(sys.argv[1]).read_bytes())
    take_part(hydra, log=rank() == 0)
    try:
        with interruptible():
            connect()
            pkgutil.resolve_name(TRAIN)(cfg)
    except Pruned:
        pass
    except Interrupted as e:
        sys.exit(128 + e.number)
    except Exception as e:
        get_error_handler().record_exception(e)  # for `failure`
        sys.exit(1)


if __name__ == "__main__":
    main()
