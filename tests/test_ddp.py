"""Two processes that train together: the run that one alone would make, and an end in common."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure, get_error_handler

from mnist_cnn.config.compose import compose
from mnist_cnn.runs.ranks import failure
from mnist_cnn.runs.state import LAST, LOCK, note_failure, state
from mnist_cnn.train import train
from tests.helpers.folder import end, measured, weights
from tests.helpers.process import environment, wait_for
from tests.helpers.training import SHORT

DDP = ["trainer=ddp", "logger=none", "run_name=x"]


def start(*args: str, cwd: Path) -> subprocess.Popen:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.Popen(
        [sys.executable, *torchrun, "-m", "mnist_cnn.train", *args],
        cwd=cwd,
        env={**environment(), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str]:
    _, stderr = process.communicate(timeout=300)
    return process.returncode, stderr


def losses(run: Path) -> list[float]:
    with (run / "history.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file)]


def test_two_processes_take_the_steps_that_one_would_take(tmp_path):
    # 100 steps, of which the history has the mean loss of each ten; 63 images have no half
    options = [
        *SHORT,
        "data.batch_size=63",
        "trainer.limit_train_batches=10",
        "trainer.max_epochs=10",
        "trainer.limit_val_batches=1",
        "trainer.limit_test_batches=1.0",
        "callbacks=no_early_stopping",
        "scheduler=none",
        "logger=none",
    ]
    code, stderr = finish(start(*options, "trainer=ddp", "trainer.accelerator=cpu", cwd=tmp_path))
    assert code == 0, stderr
    assert "Warning" not in stderr
    (together,) = tmp_path.glob("outputs/*/*/")  # one folder for both
    alone = train(compose(options, run_dir=tmp_path / "alone"))
    # rounding grows with the steps: 0.3 % by the last of them on an AMD EPYC
    assert losses(together) == pytest.approx(losses(tmp_path / "alone"), rel=1e-2)
    assert losses(together)[0] == pytest.approx(losses(tmp_path / "alone")[0], rel=1e-6)
    results = json.loads((together / "results.json").read_text())
    loss, acc = measured(together)  # of 10,000 images, each counted once
    assert results["test/acc"] == pytest.approx(acc, abs=1.5e-4)
    assert results["test/loss"] == pytest.approx(loss, rel=1e-4)
    assert results["test/acc"] == pytest.approx(alone["test/acc"], abs=2e-3)
    assert len((together / "train.log").read_text().splitlines()) == 10  # by one of them


@pytest.mark.slow
def test_processes_end_together_and_go_on_together_where_they_were(tmp_path):
    options = [*SHORT, *DDP, "augment=photo", "model.dropout=0.3", "scheduler=one_cycle"]
    options += ["trainer.accelerator=cpu", "trainer.limit_train_batches=60"]
    options += ["callbacks.checkpoint.every_steps=5"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    code, stderr = finish(start(*options, f"hydra.run.dir={whole}", cwd=tmp_path))
    assert code == 0, stderr

    process = start(*options, f"hydra.run.dir={cut}", cwd=tmp_path)
    wait_for(lambda: (cut / LAST).exists(), process)
    process.terminate()
    code, stderr = finish(process)
    assert code != 0
    assert stderr.count("interrupted by") == 1
    assert f"interrupted by SIGTERM; resume it with ckpt_path={cut}" in stderr

    stopped_at = (cut / LAST).stat().st_mtime_ns
    process = start(f"ckpt_path={cut}", cwd=tmp_path)
    wait_for(lambda: (cut / LAST).stat().st_mtime_ns > stopped_at, process)
    ranks = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True)
    os.kill(int(ranks.stdout.split()[-1]), signal.SIGKILL)
    code, stderr = finish(process)  # the other one does not wait for it
    assert code != 0
    assert "Signal 9 (SIGKILL)" in stderr

    stopped_at = (cut / LAST).stat().st_mtime_ns
    process = start(f"ckpt_path={cut}", cwd=tmp_path)
    wait_for(lambda: (cut / LAST).stat().st_mtime_ns > stopped_at, process)
    process.kill()
    code, stderr = finish(process)  # both end too
    assert f"interrupted by SIGTERM; resume it with ckpt_path={cut}" in stderr

    code, stderr = finish(start(f"ckpt_path={cut}", cwd=tmp_path))
    assert code == 0, stderr
    assert end(cut) == end(whole)


@pytest.mark.slow
def test_tensorboard_has_each_validation_image_once(tmp_path):
    options = [*SHORT, "trainer=ddp", "trainer.accelerator=cpu", "trainer.max_epochs=1"]
    options += ["run_name=x", "trainer.limit_train_batches=5", f"hydra.run.dir={tmp_path / 'run'}"]
    code, stderr = finish(start(*options, cwd=tmp_path))
    assert code == 0, stderr
    folder = tmp_path / "run" / "tensorboard" / "x"
    events = EventAccumulator(str(folder), {"tensors": 0}).Reload()
    curves = [make_ndarray(events.Tensors(f"val/{k}")[0].tensor_proto) for k in range(10)]
    # at threshold 0 each image of a class is one that was found
    assert sum(curve[0, 0] for curve in curves) == 1000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("logger=none", "error: trainer must be ddp with 2 processes of torchrun"),
        (
            "trainer=ddp data.batch_size=1",
            "error: data.batch_size must be at least 2, an image for",
        ),
        ("-m", "error: torchrun starts the processes of one run: leave out -m"),
    ],
)
def test_what_torchrun_is_not_for_is_said_once(tmp_path, override, line):
    code, stderr = finish(start(*SHORT, *override.split(), cwd=tmp_path))
    assert code != 0
    assert stderr.count("error:") == 1
    assert line in stderr
    assert not list(tmp_path.iterdir())


def sweep(folder: Path, *args: str) -> subprocess.Popen:
    """Begins a sweep of jobs of two processes each, or resumes it with ckpt_path=."""
    resumed = any("ckpt_path=" in a for a in args)
    new = [
        *SHORT,
        *DDP,
        "trainer.devices=2",
        "trainer.accelerator=cpu",
        f"hydra.sweep.dir={folder}",
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "mnist_cnn.train", *([] if resumed else ["-m", *new]), *args],
        cwd=folder.parent,
        env={**environment(), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ranks(parent: int) -> list[int]:
    """The processes of a job, which are children of the one that runs the sweep."""
    command = ["pgrep", "-P", str(parent), "-f", "mnist_cnn.runs.ranks"]
    return list(map(int, subprocess.run(command, capture_output=True, text=True).stdout.split()))


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local", "ray"])
def test_a_sweep_starts_the_processes_of_each_job(tmp_path, launcher):
    options = [f"hydra/launcher={launcher}", "trainer.max_epochs=1", "test=false"]
    options += ["hydra.launcher.n_jobs=1"] * (launcher == "joblib")
    code, stderr = finish(sweep(tmp_path / "sweep", *options, "seed=0,1"))
    assert code == 0, stderr
    assert stderr == ""
    if launcher == "basic":
        options = [*SHORT, *DDP, "trainer.accelerator=cpu", "trainer.max_epochs=1", "seed=1"]
        code, stderr = finish(start(*options, f"hydra.run.dir={tmp_path / 'x'}", cwd=tmp_path))
        assert code == 0, stderr
        mine, theirs = weights(tmp_path / "sweep" / "1"), weights(tmp_path / "x")
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert (tmp_path / "sweep" / "1" / "train.log").read_text().count("epoch  1/1") == 1


@pytest.mark.slow
def test_a_job_of_which_a_process_is_killed_has_failed_and_the_sweep_goes_on(tmp_path):
    folder = tmp_path / "sweep"
    options = ["callbacks=no_early_stopping", "trainer.max_epochs=20", "test=false", "seed=0,1"]
    process = sweep(folder, *options)
    wait_for((folder / "0" / LAST).exists, process)
    os.kill(ranks(process.pid)[1], signal.SIGKILL)
    wait_for((folder / "1" / LAST).exists, process)
    assert json.loads((folder / "0" / "failed.json").read_text())["error"] == (
        "process 1 (of 0 to 1) was killed by SIGKILL"
    )
    process.send_signal(signal.SIGINT)
    code, stderr = finish(process)
    assert code == 130
    assert stderr.splitlines()[-1] == f"interrupted by SIGINT; resume it with ckpt_path={folder}"
    assert "Traceback" not in stderr
    assert state(folder / "1") == "interrupted"

    process = sweep(folder, f"ckpt_path={folder}")
    out, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert "2 finished" in out
    for n in "01":
        log = (folder / n / "train.log").read_text()
        assert log.count("epoch  1/20") == log.count("epoch 20/20") == 1  # it was resumed


def test_the_process_that_failed_first_is_told_of(tmp_path, monkeypatch):
    def failed(rank: int, exitcode: int, error: Exception | None = None) -> ProcessFailure:
        file = tmp_path / f"{rank}.json"
        if error:
            monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
            get_error_handler().record_exception(error)
        return ProcessFailure(rank, 1, exitcode, str(file))

    def noted() -> str:
        return json.loads((tmp_path / "failed.json").read_text())["error"]

    full = OSError("no space left")
    assert failure(tmp_path, {1: failed(1, 1, full)}, 2).endswith("1) OSError: no space left")
    assert noted() == "process 1 (of 0 to 1) OSError: no space left"
    # the first one has noted its own
    note_failure(tmp_path, ValueError("train/loss=nan"))
    assert failure(tmp_path, {0: failed(0, 1, full), 1: failed(1, 1, full)}, 2) == "train/loss=nan"
    # and what came of another's end
    assert failure(tmp_path, {0: failed(0, 1, full), 1: failed(1, -9)}, 2) == noted()
    assert noted() == "process 1 (of 0 to 1) was killed by SIGKILL"
    with FileLock(tmp_path / LOCK):  # somebody else trains there
        assert failure(tmp_path, {0: failed(0, -11)}, 2).endswith("killed by SIGSEGV")
    assert "SIGKILL" in noted()


@pytest.mark.slow
def test_a_run_starts_its_own_processes_where_torchrun_has_not(command, tmp_path):
    options = [*SHORT, *DDP, "trainer.accelerator=cpu", "trainer.devices=2", "optimizer.lr=1e30"]
    done = command(*options, "hydra.run.dir=run")
    assert done.returncode == 1
    assert "train/loss" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    done = command("ckpt_path=run", "optimizer.lr=1e-3")
    assert done.returncode == 0, done.stderr
    assert "test" in done.stdout


def test_without_torchrun_it_is_said_what_to_type(command, tmp_path):
    done = command(*SHORT, "trainer=ddp")
    assert done.returncode == 1
    assert "torchrun --nproc-per-node 2 -m mnist_cnn.train trainer=ddp" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
