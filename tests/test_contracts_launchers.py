"""What `internals/launchers.py` uses of submitit and Ray without a promise."""

import inspect
import os
import signal
import time
from pathlib import Path

import pytest
import submitit

from mnist_cnn.internals.launchers import cancel, submitted


def wait_for_sigterm(ready: Path) -> str:
    heard = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    ready.touch()
    for _ in range(200):
        if heard:
            return "heard SIGTERM"
        time.sleep(0.1)
    return "heard nothing"


def test_a_job_on_this_machine_hears_sigterm_from_its_controller(tmp_path):
    executor = submitit.AutoExecutor(folder=tmp_path, cluster="local")
    executor.update_parameters(timeout_min=1)
    with submitted("submitit_local") as jobs:
        (job,) = executor.map_array(wait_for_sigterm, [tmp_path / "ready"])
        assert jobs == [job]
        assert isinstance(job, submitit.LocalJob)
        while not (tmp_path / "ready").exists():
            os.kill(int(job.job_id), 0)  # it is a process
            time.sleep(0.05)
        cancel("submitit_local", jobs)
    assert job.done()
    assert job.result() == "heard SIGTERM", "submitit's controller hands SIGTERM on no more"
    assert "noted" not in repr(submitit.AutoExecutor.map_array)


def test_the_launcher_for_submitit_submits_by_map_array():
    module = pytest.importorskip("hydra_plugins.hydra_submitit_launcher.submitit_launcher")
    source = inspect.getsource(module.BaseSubmititLauncher.launch)
    assert "submitit.AutoExecutor(" in source, "the launcher makes its executor in another way now"
    assert "executor.map_array(" in source, "the launcher submits its jobs in another way now"


def test_other_launchers_have_no_jobs_of_submitit():
    with submitted("ray") as jobs:
        assert jobs == []
