"""Sweeps on a real SLURM cluster of two nodes: no step is lost, and results are identical."""

import contextlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mnist_cnn.checks.folders import differences, last
from mnist_cnn.runs.folder import state
from tests.helpers.process import finish, run, start
from tests.helpers.training import FAULT, TINY
from tests.slurm.cluster import NODES, Cluster, cluster, missing

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]

# checkpoints at the end of epochs alone
RUN = [*TINY, FAULT, "run_name=x", "callbacks.checkpoint.every_seconds=null"]
RUN += ["hydra.callbacks.folders.report=null", "hydra.sweep.dir=sweep"]
# all processors of a node
SLURM = ["hydra/launcher=slurm", "hydra.launcher.cpus_per_task=4", "hydra.launcher.mem_gb=1"]
STOP = "on_train_batch_start 16 SIGSTOP"  # in the second of two epochs of 10 steps
COMMAND = ["mnist_cnn.train", "-m", *RUN]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Cluster]:
    with contextlib.ExitStack() as stack:
        try:
            started = stack.enter_context(cluster())
        except (OSError, TimeoutError) as e:  # a machine that forbids what its daemons need
            pytest.skip(f"no SLURM here: its daemons do not start: {e}")
        yield started


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a sweep that was not interrupted, without a cluster."""
    folder = tmp_path_factory.mktemp("whole")
    done = run(folder, *COMMAND, "seed=0,1,2", "hydra/launcher=basic")
    assert done.returncode == 0, done.stderr
    return folder / "sweep"


def sweep(
    slurm: Cluster, folder: Path, *options: str, fault: str = "- 0 -"
) -> "subprocess.Popen[str]":
    return start(folder, *COMMAND, *SLURM, *options, SLURM_CONF=slurm.conf, FAULT=fault)


def ended(process: "subprocess.Popen[str]") -> str:
    """Return what a sweep that has succeeded printed on stderr."""
    code, _, err = finish(process)
    assert code == 0, err
    return err


def job(folder: Path, seed: int) -> Path:
    return folder / "sweep" / f"seed_{seed}"


def job_of(process: psutil.Process) -> str:
    """Return the ID in the queue of the job that a process belongs to."""
    return "{SLURM_ARRAY_JOB_ID}_{SLURM_ARRAY_TASK_ID}".format_map(process.environ())


def differing(whole: Path, folder: Path, count: int) -> list[str]:
    runs = [(whole / f"seed_{seed}", job(folder, seed)) for seed in range(count)]
    return [line for one, other in runs for line in differences(one, other)]


def test_a_job_whose_time_is_up_is_saved_first_and_then_queued_again(slurm, whole, tmp_path):
    process = sweep(slurm, tmp_path, "seed=0,1", fault=STOP)
    slurm.wait_until(lambda: len(slurm.stopped()) == 2, "two jobs in their second epoch")
    jobs = slurm.queue()
    nodes = slurm.call("squeue", "--noheader", "--array", "--format=%N").split()
    assert sorted(nodes) == sorted(NODES)
    for each in jobs:  # it is told 120 s before, and goes on
        slurm.call("scontrol", "update", f"JobId={each}", "TimeLimit=2")
    slurm.wait_until(lambda: [*slurm.queue().values()] == ["PENDING"] * 2, "both jobs queued again")
    assert [last(job(tmp_path, seed))["global_step"] for seed in (0, 1)] == [16, 16]
    for each in jobs:
        slurm.call("scontrol", "update", f"JobId={each}", "TimeLimit=60")
    assert ended(process) == ""
    assert differing(whole, tmp_path, 2) == []


def test_a_job_that_is_cancelled_or_out_of_time_is_interrupted(slurm, whole, tmp_path):
    # to submitit a job of less than ten minutes is out of time whenever it is told so
    command = ["seed=0,1,2", "hydra.launcher.timeout_min=9", "hydra.launcher.max_num_timeout=0"]
    process = sweep(slurm, tmp_path, *command, fault=STOP)
    slurm.wait_until(lambda: len(slurm.stopped()) == 2, "two jobs in their second epoch")
    (pending,) = [job for job, how in slurm.queue().items() if how == "PENDING"]
    first, second = sorted(slurm.queue().keys() - {pending})
    (cancelled,) = [each for each in slurm.stopped() if job_of(each) == second]
    cancelled.terminate()  # scancel wakes a job before it ends it, and a step would be taken
    slurm.call("scancel", pending, second)
    for name in ("USR2", "CONT"):  # as before its end
        slurm.call("scancel", f"--signal={name}", first)
    code, _, err = finish(process)
    assert (code, err.count("\n")) == (1, 1), err
    assert re.match(r"error: 3 of 3 jobs .*seed=0.*seed=1.*seed=2", err)
    states = [str(state(job(tmp_path, seed))) for seed in range(3)]
    assert states == ["interrupted", "interrupted", "new"]
    assert [last(job(tmp_path, seed))["global_step"] for seed in (0, 1)] == [16, 16]
    assert ended(sweep(slurm, tmp_path, *command)) == ""
    assert differing(whole, tmp_path, 3) == []


def test_a_sweep_outlives_the_controller_a_node_and_its_parent(slurm, whole, tmp_path):
    parent = sweep(slurm, tmp_path, "seed=0,1", fault=STOP)
    slurm.wait_until(lambda: len(slurm.stopped()) == 2, "two jobs in their second epoch")
    slurm.kill("slurmctld")
    slurm.kill(NODES[0])
    (kept,) = slurm.stopped()
    slurm.control()
    slurm.node(NODES[0])
    kept.resume()
    slurm.wait_until(
        lambda: set(slurm.stopped()) - {kept}, "the lost job in its second epoch again"
    )
    assert parent.poll() is None
    parent.kill()
    finish(parent)
    for each in slurm.stopped():
        each.resume()
    slurm.wait_until(lambda: slurm.states() and not slurm.queue(), "both jobs")
    assert ended(sweep(slurm, tmp_path, "seed=0,1")) == ""
    assert differing(whole, tmp_path, 2) == []


def test_a_sweep_that_is_called_again_beside_its_own_jobs_changes_nothing(slurm, whole, tmp_path):
    room = "hydra.launcher.cpus_per_task=2"  # for the jobs of both
    parent = sweep(slurm, tmp_path, "seed=0,1", room, fault=STOP)
    slurm.wait_until(lambda: len(slurm.stopped()) == 2, "two jobs in their second epoch")
    parent.kill()
    finish(parent)
    code, _, err = finish(sweep(slurm, tmp_path, "seed=0,1", room))
    assert (code, err.count("running")) == (1, 2), err
    for each in slurm.stopped():
        each.resume()
    slurm.wait_until(lambda: not slurm.queue(), "both jobs")
    assert ended(sweep(slurm, tmp_path, "seed=0,1")) == ""
    assert differing(whole, tmp_path, 2) == []


def test_what_slurm_refuses_is_said_without_a_traceback(slurm, tmp_path):
    for option in ("hydra.launcher.partition=nonsense", "hydra.launcher.tasks_per_node=2"):
        code, _, err = finish(sweep(slurm, tmp_path, option))
        assert (code, "Traceback" in err) == (1, False), err
        line = err.splitlines()[-1]  # after those of sbatch itself
        assert line.startswith("error: ")
        assert option.partition("=")[0].rpartition(".")[2] in line
