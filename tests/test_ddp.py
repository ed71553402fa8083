"""Training in two processes: the results of a single one, and a common end."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from mnist_cnn.build import build_trainer, own_devices
from mnist_cnn.checks.folders import contents, differences, files, last, results
from mnist_cnn.config.compose import compose, resolved
from mnist_cnn.config.parse import Config, parse
from mnist_cnn.module import DigitClassifier
from mnist_cnn.runs.folder import LAST, RESULTS, RunFolder, state
from mnist_cnn.train import train
from tests.helpers.folder import column, measured
from tests.helpers.process import finish, run, start, wait_for
from tests.helpers.training import FAULT, TINY

DDP = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]


def ended(folder: Path, *args: str, launcher=(), code: int = 0, fault: str = "- 0 -") -> str:
    """Train from the command line in a folder, and return its stderr."""
    command = [*launcher, "mnist_cnn.train", *TINY, *DDP, "run_name=x", *args]
    done = run(folder, *command, FAULT=fault)
    assert done.returncode == code, done.stderr
    return done.stderr


def imports_torch(processes: list[psutil.Process]) -> bool:
    return any("libtorch" in file.path for each in processes for file in each.memory_maps())


def test_two_processes_from_python_take_the_steps_that_one_would_take(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name, value in (("SLURM_NTASKS", "4"), ("SLURM_JOB_NAME", "x")):  # no torchrun: ignored
        monkeypatch.setenv(name, value)
    # 63 images cannot be halved
    options = [*TINY, "data.batch_size=63", "test=true", "trainer.limit_test_batches=1.0"]
    found = train(compose([*options, *DDP], run_dir=tmp_path / "two"))
    train(compose(options, run_dir=tmp_path / "one"))
    one, two = (column(tmp_path / name, "train/loss") for name in ("one", "two"))
    assert two == pytest.approx(one, rel=1e-4)
    for name in ("one", "two"):  # counts the images of both processes
        rates, seconds = (column(tmp_path / name, key) for key in ("images/s", "seconds"))
        images = [rate * time for rate, time in zip(rates, seconds, strict=True)]
        assert images == pytest.approx([63 * 10] * len(images))
    loss, acc = measured(tmp_path / "two")  # on 10,000 images, each counted once
    assert {"format_version": 1, **found} == results(tmp_path / "two")
    assert found["test/acc"] == pytest.approx(acc, abs=1.5e-4)
    corrected = 9995 * found["test/acc_corrected"]  # over both processes
    assert corrected == pytest.approx(round(corrected))
    assert found["test/acc_corrected"] == pytest.approx(acc, abs=1.5e-3)
    assert found["test/loss"] == pytest.approx(loss, rel=1e-4)
    assert len((tmp_path / "two" / "train.log").read_text().splitlines()) == 2  # by one of both
    before = files(tmp_path / "two")
    assert train(compose([*options, *DDP], run_dir=tmp_path / "two")) == found
    assert files(tmp_path / "two") == before


@pytest.mark.parametrize(
    ("data", "given", "splits"),
    [
        ("mnist_cnn.data.datamodule.MNISTDataModule", "null", False),
        ("my.Numbers", "null", True),
        ("my.Numbers", "false", False),
    ],
)
def test_lightning_splits_a_users_own_data_over_the_processes_unless_told(
    data, given, splits, tmp_path
):
    given = f"trainer.use_distributed_sampler={given}"
    cfg = compose([*TINY, *DDP, given], run_dir=tmp_path)
    cfg.data._target_, cfg.targets = data, ["my.*"]
    config = parse(resolved(cfg), Config)
    trainer = build_trainer(config, RunFolder(tmp_path), None, DigitClassifier())
    assert trainer._accelerator_connector.use_distributed_sampler is splits  # noqa: SLF001


@pytest.mark.parametrize("number", [0, 1, 2, 5])
def test_a_job_of_a_sweep_trains_on_the_gpu_of_its_number(number, monkeypatch):
    hydra = {"mode": RunMode.MULTIRUN, "job": {"num": number}}
    monkeypatch.setattr(HydraConfig.instance(), "cfg", OmegaConf.create({"hydra": hydra}))
    trainer = {"accelerator": "auto", "devices": 1}
    for count, expected in ((0, 1), (1, 1), (2, [number % 2]), (4, [number % 4])):
        monkeypatch.setattr("torch.cuda.device_count", lambda n=count: n)
        assert own_devices(trainer) == expected
    assert own_devices(trainer | {"devices": 2}) == 2


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_fails_is_reported_by_its_own_error(tmp_path, rank):
    fault = f"on_train_batch_start 13 raise {rank}"
    err = ended(tmp_path, FAULT, "hydra.run.dir=run", fault=fault, code=1)
    assert err.splitlines()[-1].endswith("a fault in on_train_batch_start")
    assert "Traceback" not in err
    failed = json.loads((tmp_path / "run" / "failed.json").read_text())
    assert failed["error"].endswith("a fault in on_train_batch_start")
    assert "faults.py" in failed["traceback"]  # of the process


@pytest.mark.slow
def test_processes_end_when_one_is_killed_or_the_one_that_started_them(tmp_path):
    slow = ["trainer.max_epochs=1000", "callbacks=no_early_stopping", "callbacks.summary=null"]
    options = [*TINY, *DDP, *slow, FAULT, "hydra.run.dir=run"]
    fault = "on_train_batch_start 400 SIGKILL 1"
    process = start(tmp_path, "mnist_cnn.train", *options, FAULT=fault)
    wait_for((tmp_path / "run" / LAST).exists, process)
    launcher = psutil.Process(process.pid)
    children = launcher.children()
    launcher.suspend()  # it notices the end of process 1 a second late, after process 0 has
    wait_for(lambda: any(c.status() == psutil.STATUS_ZOMBIE for c in children), process)
    time.sleep(1)
    launcher.resume()
    code, _, err = finish(process)
    assert (code, "process 1: Signal 9 (SIGKILL)" in err.splitlines()[-1]) == (1, True)
    assert state(tmp_path / "run") == "failed"

    process = start(tmp_path, "mnist_cnn.train", *TINY, *DDP, *slow, "hydra.run.dir=slow")
    wait_for((tmp_path / "slow" / LAST).exists, process)
    process.terminate()
    code, _, err = finish(process)
    assert code == 143
    assert err.count("interrupted by") == 1
    assert err.splitlines()[-1].endswith(f"resume it with ckpt_path={tmp_path / 'slow'}")

    process = start(tmp_path, "mnist_cnn.train", *TINY, *DDP, *slow, "hydra.run.dir=slow")
    wait_for(lambda: imports_torch(psutil.Process(process.pid).children()), process)
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert (code, err.count("interrupted by SIGINT"), "Traceback" in err) == (130, 1, False)

    stopped = (tmp_path / "slow" / LAST).stat().st_mtime_ns
    process = start(tmp_path, "mnist_cnn.train", *TINY, *DDP, *slow, "hydra.run.dir=slow")
    wait_for(lambda: (tmp_path / "slow" / LAST).stat().st_mtime_ns > stopped, process)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while state(tmp_path / "slow") == "running":
        assert time.monotonic() < deadline
    finish(process)
    assert len(list((tmp_path / "slow" / ".hydra").iterdir())) == 3  # Hydra's files


@pytest.mark.slow
def test_processes_end_when_the_one_that_started_them_is_killed_before_they_have_begun(tmp_path):
    process = start(tmp_path, "mnist_cnn.train", *TINY, *DDP, "hydra.run.dir=run")
    children: list[psutil.Process] = []
    while len(children) < 2 and process.poll() is None:  # without a pause: Python has not started
        children = psutil.Process(process.pid).children()
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    finish(process)
    assert not alive


@pytest.mark.slow
def test_torchrun_starts_the_same_run_and_is_not_for_sweeps(tmp_path):
    ended(tmp_path, "hydra.run.dir=own")
    ended(tmp_path, "hydra.run.dir=its", launcher=TORCHRUN)
    own, its = contents(tmp_path / "own"), contents(tmp_path / "its")
    same = {key for key in own if key.startswith(("weights", "history"))}
    assert same
    assert {key: own[key] for key in same} == {key: its[key] for key in same}
    before = files(tmp_path)
    for args, line in ((["-m", "seed=0,1"], "-m"), ([], "hydra.run.dir")):
        assert line in ended(tmp_path, *args, launcher=TORCHRUN, code=1)
    assert files(tmp_path) == before


@pytest.fixture
def machines() -> Iterator[list[list[str]]]:
    """Yield what runs a command on each of two machines: network namespaces with a cable between.

    Their addresses are 10.99.0.1 and 10.99.0.2.
    """
    names = [f"machine-{os.getpid()}-{n}" for n in (1, 2)]
    cable = f"ip link add eth9 netns {names[0]} type veth peer name eth9 netns {names[1]}"
    commands = [f"ip netns add {name}" for name in names] + [cable]
    for n, name in enumerate(names, 1):
        commands += [f"ip -n {name} address add 10.99.0.{n}/24 dev eth9"]
        commands += [f"ip -n {name} link set {link} up" for link in ("lo", "eth9")]
    try:
        for command in commands:
            done = subprocess.run(command.split(), capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no network namespaces here: {command}: {done.stderr}")
        yield [["ip", "netns", "exec", name] for name in names]
    except FileNotFoundError:
        pytest.skip("no network namespaces here: apt-get install iproute2")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


@pytest.mark.slow
def test_a_run_on_two_machines_one_of_which_dies_is_finished_by_the_same_command(
    tmp_path, machines
):
    def on_both(where: str, fault: str = "- 0 -") -> list[int]:
        """Run torchrun on both machines, and return the exit codes."""
        torchrun = ["torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
        torchrun += ["--master-addr=10.99.0.1", "--master-port=29500"]
        train = ["mnist_cnn.train", *TINY, "trainer=ddp", "trainer.accelerator=cpu", "run_name=x"]
        train += [FAULT, "callbacks.checkpoint.every_steps=4", f"hydra.run.dir={where}"]
        agents = [
            start(
                tmp_path,
                *(*torchrun, f"--node-rank={rank}", "-m", *train),
                within=within,
                FAULT=fault,
                GLOO_SOCKET_IFNAME="eth9",
            )
            for rank, within in enumerate(machines)
        ]
        return [finish(agent)[0] for agent in agents]

    assert on_both("whole") == [0, 0]
    assert 0 not in on_both("cut", fault="on_train_batch_start 15 SIGKILL 1")
    assert last(tmp_path / "cut")["global_step"] == 14
    assert not (tmp_path / "cut" / RESULTS).exists()
    assert on_both("cut") == [0, 0]
    assert differences(tmp_path / "whole", tmp_path / "cut") == []
    assert results(tmp_path / "cut")["config"]["trainer"]["num_nodes"] == 2


@pytest.mark.slow
def test_a_sweep_starts_the_processes_of_each_job(tmp_path):
    ended(tmp_path, "seed=1", "hydra.run.dir=alone")
    for launcher in (
        ["hydra/launcher=basic"],
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    ):
        sweep = tmp_path / str(len(launcher))
        ended(tmp_path, "-m", *launcher, f"hydra.sweep.dir={sweep}", "seed=0,1")
        jobs = sorted(file.parent for file in sweep.glob(f"*/{RESULTS}"))
        assert len(jobs) == 2
        left = differences(tmp_path / "alone", jobs[1])
        assert not [line for line in left if not line.startswith(("results.json: config", "files"))]
