"""Two processes that train together: the run that one alone would make, and an end in common."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from mnist_cnn.config.compose import compose
from mnist_cnn.runs.state import LAST
from mnist_cnn.train import train
from tests.helpers.folder import end, measured
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
        ("logger=none", "error: torchrun started 2 processes; allowed: with trainer=ddp"),
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


def test_without_torchrun_it_is_said_what_to_type(command, tmp_path):
    done = command(*SHORT, "trainer=ddp")
    assert done.returncode == 1
    assert "torchrun --nproc-per-node 2 -m mnist_cnn.train trainer=ddp" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
