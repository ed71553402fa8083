"""Sweeps: what fails is recorded, what is killed is resumed, what is finished is left alone."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from filelock import FileLock
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from mnist_cnn.config.compose import compose
from mnist_cnn.internals import hydra
from mnist_cnn.runs import resume, state
from mnist_cnn.runs.jobs import own_gpus
from mnist_cnn.runs.sweeps import Grid, Optuna
from mnist_cnn.sweeps.display import Screen
from mnist_cnn.sweeps.optuna import STUDY, storage
from mnist_cnn.sweeps.sweep import RETRIED
from mnist_cnn.train import train
from tests.helpers.process import environment, wait_for
from tests.helpers.training import SHORT

TINY = [*SHORT, "trainer.limit_train_batches=2", "logger=none", "test=false"]
LONG = [*TINY, "trainer.max_epochs=15", "callbacks=no_early_stopping"]


def start(folder: Path, *args: str, **env: str) -> "subprocess.Popen[str]":
    """Begins `python -m mnist_cnn.train ARGS`, with folder/sweep as the sweep's folder."""
    resumed = any("ckpt_path" in a for a in args)
    place = (
        []
        if resumed or any(a.startswith("hydra.sweep.dir") for a in args)
        else [f"hydra.sweep.dir={hydra.quote(folder / 'sweep')}"]
    )
    return subprocess.Popen(
        [sys.executable, "-m", "mnist_cnn.train", *args, *place],
        cwd=folder,
        env={**environment(), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a terminal's Ctrl-C goes to all of these processes
    )


def finish(folder: Path, *args: str, **env: str) -> "subprocess.CompletedProcess[str]":
    process = start(folder, *args, **env)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(args, process.returncode, out, err)


def kill(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def untouched(folders: Iterable[Path]) -> dict[Path, tuple[int, int, int]]:
    """What changes when a file is written, replaced or only touched; a lock may be opened."""
    files = [path for folder in folders for path in folder.rglob("*") if path.name != ".lock"]
    return {p: (s.st_mtime_ns, s.st_ino, s.st_size) for p in files for s in [p.stat()]}


def states(folder: Path) -> list[str]:
    jobs = sorted((p for p in folder.iterdir() if p.name.isdecimal()), key=lambda p: int(p.name))
    return [state.state(job) for job in jobs]


def result(job: Path) -> dict[str, Any]:
    return json.loads((job / "results.json").read_text())


def rate(job: Path) -> float:
    return result(job)["config"]["optimizer"]["lr"]


def ends_shown(screen: str) -> list[str]:
    return [line for line in screen.splitlines() if re.match(r"\d+/\d+  job ", line)]


@pytest.mark.slow
def test_a_killed_sweep_is_resumed_with_what_is_missing_and_can_be_extended(tmp_path):
    jobs = "optimizer.lr=1e-3,2e-3,1e30,4e-3,5e-3,6e-3,7e-3,8e-3,9e-3,0.01,0.011,0.012"
    process = start(tmp_path, "-m", *TINY, jobs)
    folder = tmp_path / "sweep"
    wait_for((folder / "5" / state.LAST).exists, process)
    kill(process)
    assert states(folder) == ["finished"] * 2 + ["failed"] + ["finished"] * 2 + ["interrupted"]
    assert "nan" in json.loads((folder / "2" / "failed.json").read_text())["error"]
    (folder / "2" / "notes.txt").write_text("why?")

    finished = [folder / n for n in "0134"]
    before = untouched(finished)
    done = finish(tmp_path, f"ckpt_path={folder}")
    assert done.returncode == 1
    assert done.stderr.startswith("1 of 12 jobs failed")
    assert done.stderr.count("\n") == 1
    assert "11 finished, 1 failed" in done.stdout
    assert "4/12  ended before" in done.stdout
    assert untouched(finished) == before
    assert states(folder) == ["finished"] * 2 + ["failed"] + ["finished"] * 9
    assert (folder / "2" / "notes.txt").exists()
    assert rate(folder / "3") == 4e-3
    assert rate(folder / "11") == 0.012
    assert (folder / "5" / "train.log").read_text().count("epoch  1/2") == 1  # it was resumed

    alone = train(compose([*TINY, "optimizer.lr=0.01"], run_dir=tmp_path / "alone"))
    job = result(folder / "9")
    assert {k: alone[k] for k in ("val/loss", "train/loss")} == {
        k: job[k] for k in ("val/loss", "train/loss")
    }

    finished = [folder / str(n) for n in range(12) if n != 2]
    before = untouched(finished)
    done = finish(tmp_path, "-m", f"ckpt_path={folder}", "optimizer.lr=0.001,2e-3,4e-3,5e-3,0.013")
    assert done.returncode == 0, done.stderr
    lines = ends_shown(done.stdout)
    assert len(lines) == 1
    assert lines[0].startswith("5/5  job 12  optimizer.lr=0.013  val/loss ")
    assert untouched(finished) == before
    assert rate(folder / "12") == 0.013


def test_a_job_without_validation_is_told_of_and_is_never_the_best(tmp_path):
    done = finish(tmp_path, "-m", "experiment=fast", *TINY, "seed=0,1")
    shown = ends_shown(done.stdout)
    assert [line.split("  ") for line in shown] == [
        ["1/2", "job 0", "seed=0", "finished"],
        ["2/2", "job 1", "seed=1", "finished"],
    ]


@pytest.mark.slow
def test_a_sweep_that_keeps_failing_ends_and_is_resumed(tmp_path):
    jobs = ["optimizer.lr=1e30,1e-3,2e-3", "trainer.max_epochs=1"]
    done = finish(tmp_path, "-m", *TINY, *jobs, "hydra.sweeper.max_failures=1")
    folder = tmp_path / "sweep"
    assert done.returncode == 1
    limit = "(hydra.sweeper.max_failures=1)"
    assert done.stderr.startswith(f"1 of 1 jobs failed and 2 are left {limit}, see failed.json in")
    assert states(folder) == ["failed"]
    done = finish(tmp_path, f"ckpt_path={folder}", "hydra.sweeper.max_failures=null")
    assert states(folder) == ["failed", "finished", "finished"]

    search = ["hparams_search=optuna", "hydra.sweep.dir=search", "hydra.sweeper.n_trials=3"]
    fixed = ["data.batch_size=64", "model.hidden=8", "model.dropout=0.0"]
    jobs = ["optimizer.lr=choice(1e30,1e31)", "hydra.sweeper.max_failures=2"]
    done = finish(tmp_path, "-m", *TINY, *search, *fixed, *jobs)
    assert done.stderr.startswith("2 of 2 jobs failed and 1 are left (hydra.sweeper.max_fail")


def test_a_grid_comes_from_its_file_and_the_command_line_goes_before_it(tmp_path):
    fixed = ["data.batch_size=32", "model.dropout=0.0", "model.hidden=16"]
    done = finish(tmp_path, "-m", "hparams_search=grid", *TINY, "trainer.max_epochs=1", *fixed)
    assert done.returncode == 0, done.stderr
    configs = [result(tmp_path / "sweep" / n)["config"] for n in "012"]
    assert [config["optimizer"]["lr"] for config in configs] == [3e-4, 1e-3, 3e-3]
    assert {config["data"]["batch_size"] for config in configs} == {32}
    assert len(ends_shown(done.stdout)) == 3


@pytest.mark.slow
def test_a_search_survives_failures_and_a_kill_and_prunes_the_worse(tmp_path):
    # good, bad, not a number; this seed draws good, nan, bad, good, (nan again), bad
    space = ["optimizer.lr=choice(0.01,1e-9,1e30)", "seed=3"]
    fixed = ["data.batch_size=64", "model.hidden=32", "model.dropout=interval(0.0,0.2)"]
    pruner = ["callbacks.prune.pruner.n_startup_trials=1", "hydra.sweeper.n_trials=5"]
    more = ["trainer.limit_train_batches=5", "trainer.max_epochs=3"]
    process = start(tmp_path, "-m", "hparams_search=optuna", *TINY, *more, *space, *fixed, *pruner)
    folder = tmp_path / "sweep"
    wait_for((folder / "3" / state.LAST).exists, process)
    kill(process)
    assert states(folder) == ["finished", "failed", "pruned", "interrupted"]

    def study() -> list[optuna.trial.FrozenTrial]:
        return optuna.load_study(study_name=STUDY, storage=storage(folder)).trials

    running = study()[3]
    assert running.state.name == "RUNNING"
    before = untouched(folder / n for n in "02")
    done = finish(tmp_path, f"ckpt_path={folder}")
    assert untouched(folder / n for n in "02") == before
    trials = study()
    ends = [trial.state.name for trial in trials]
    assert ends[3] in ("COMPLETE", "PRUNED")  # good, but it may be worse than the first
    assert ends == ["COMPLETE", "FAIL", "PRUNED", ends[3], "FAIL", "PRUNED"]
    assert done.returncode == 1
    assert done.stderr.startswith("1 of 5 jobs failed")
    (sums,) = (line for line in done.stdout.splitlines() if " finished" in line)
    assert f"{ends.count('COMPLETE')} finished" in sums
    assert "1 failed" in sums
    assert trials[3].params == running.params
    assert trials[4].params == trials[1].params  # tried again, under a number of its own
    assert (folder / RETRIED / "1" / "failed.json").exists()
    assert states(folder)[-2:] == ["failed", "pruned"]
    for trial in trials:
        lr, job = trial.params["optimizer.lr"], folder / str(trial.number)
        if trial.state.name == "COMPLETE":
            assert trial.value == result(job)["val/loss"]
            assert len(trial.intermediate_values) == 3
        elif trial.state.name == "PRUNED":
            assert lr == 1e-9 or trial.number == 3
            assert not (job / "results.json").exists()
        elif trial.number == 4:
            assert "train/loss=nan" in json.loads((job / "failed.json").read_text())["error"]
    best = min(trial.value for trial in trials if trial.value is not None)
    assert f"best {best:.4f}" in done.stdout

    # without the values that fail it comes to its end
    done = finish(tmp_path, f"ckpt_path={folder}", "optimizer.lr=0.01")
    assert done.returncode == 0, done.stderr
    ends = [trial.state.name for trial in study()]
    assert ends.count("COMPLETE") + ends.count("PRUNED") == 5


def test_trials_are_drawn_by_their_number_whenever_the_search_was_begun():
    sampler = OmegaConf.create({"_target_": "optuna.samplers.TPESampler", "seed": 3})
    search = Optuna(n_trials=1, n_jobs=1, sampler=sampler, params=None)
    space: dict[str, Any] = {"x": optuna.distributions.FloatDistribution(0, 1)}

    def draw(number: int) -> float:
        return optuna.create_study(sampler=search.seeded(number)).ask(space).params["x"]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    assert draw(0) == draw(0)
    assert len({draw(0), draw(1), draw(2)}) == 3


def children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True)
    lines = found.stdout.decode().splitlines()
    return [int(line.split()[0]) for line in lines if "loky" in line and "tracker" not in line]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks ps for the workers")
def test_a_killed_joblib_worker_costs_no_result_and_threads_are_divided(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = len(os.sched_getaffinity(0))
    env = environment()
    env.pop("OMP_NUM_THREADS")
    monkeypatch.setattr(sys.modules[__name__], "environment", lambda: env)
    process = start(
        tmp_path, "-m", *LONG, "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"
    )
    folder = tmp_path / "sweep"
    wait_for((folder / "0" / state.LAST).exists, process)
    for worker in children(process.pid):  # joblib itself kills the others of one that was killed
        os.kill(worker, signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "a worker ended early" in out
    assert "2 finished" in out
    for n in "01":
        assert (folder / n / "train.log").read_text().count("epoch  1/15") == 1  # it was resumed
        assert result(folder / n)["threads"] == max(cores // 2, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ["hydra/launcher=submitit_local"],
        ["hydra/launcher=ray", "hydra.launcher.ray.init.num_cpus=2"],
    ],
)
def test_each_launcher_runs_jobs_as_it_is_shipped(tmp_path, launcher):
    done = finish(tmp_path, "-m", *TINY, "optimizer.lr=1e-3,1e30", *launcher)
    assert done.returncode == 1
    assert "1 finished, 1 failed" in done.stdout
    assert "Traceback" not in done.stderr
    assert states(tmp_path / "sweep") == ["finished", "failed"]


def test_ctrl_c_stops_the_sweep_and_says_how_to_resume(tmp_path):
    process = start(tmp_path, "-m", *LONG, "seed=0,1")
    folder = tmp_path / "sweep"
    wait_for((folder / "0" / state.LAST).exists, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == f"interrupted by SIGINT; resume it with ckpt_path={folder}"
    assert "Traceback" not in err
    assert states(folder) == ["interrupted"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "number"), [("submitit_local", signal.SIGINT), ("ray", signal.SIGTERM)]
)
def test_a_signal_stops_the_jobs_of_other_processes_too(tmp_path, launcher, number):
    process = start(tmp_path, "-m", *LONG, "seed=0,1", f"hydra/launcher={launcher}")
    folder = tmp_path / "sweep"
    wait_for((folder / "0" / state.LAST).exists, process)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert err == f"interrupted by {number.name}; resume it with ckpt_path={folder}\n"
    assert process.returncode == 128 + number
    assert "interrupted" in states(folder)
    assert "running" not in states(folder)


class Stub:
    """A launcher of which some jobs end early, as often as they are told to."""

    def __init__(self, folder: Path, deaths: dict[int, int]):
        self.folder, self.deaths = folder, deaths
        self.launched: list[list[int]] = []

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> None:
        numbers = [int(job[-1].split("=")[-1]) for job in job_overrides]
        self.launched.append(numbers)
        for n in numbers:
            (self.folder / str(n)).mkdir(exist_ok=True)
            (self.folder / str(n) / state.LOCK).touch()
            if self.deaths.get(n, 0) > 0:
                self.deaths[n] -= 1
                raise RuntimeError("a worker was killed")
            (self.folder / str(n) / "results.json").write_text('{"val/loss": 1.0}')


def stubbed(folder: Path, deaths: dict[int, int]) -> tuple[Grid, Stub]:
    grid = Grid()
    grid.folder, grid.launcher_name = folder, "stub"
    grid.objective = OmegaConf.create({"metric": "val/loss", "mode": "min"})
    grid.screen = Screen(grid)
    stub = Stub(folder, deaths)
    grid.started = stub  # type: ignore[assignment]
    return grid, stub


@pytest.mark.slow
def test_a_job_that_ends_early_is_run_again_alone_and_fails_the_second_time(tmp_path):
    grid, stub = stubbed(tmp_path, {1: 1, 2: 2})
    grid.run({n: [f"seed={n}"] for n in range(5)})
    assert stub.launched == [[0, 1, 2, 3, 4], [1], [2, 3, 4], [2], [3, 4]]
    assert states(tmp_path) == ["finished", "finished", "failed", "finished", "finished"]
    assert "ended early" in json.loads((tmp_path / "2" / "failed.json").read_text())["error"]


def test_a_launcher_that_starts_nothing_ends_the_sweep_in_one_line(tmp_path):
    grid, stub = stubbed(tmp_path, {})

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no sbatch\non this machine")

    stub.launch = refuse  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="hydra/launcher=stub: no sbatch on this machine"):
        grid.run({0: ["seed=0"]})


def test_several_gpus_are_handed_out_one_to_a_job(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    taken: list[int] = []
    at_once: list[int] = []
    both = threading.Barrier(2, timeout=20)

    cfgs = [compose(["trainer=gpu"], run_dir=tmp_path / str(n)) for n in range(4)]

    def job(n: int) -> None:
        cfg = cfgs[n]
        with own_gpus(cfg):
            (device,) = cfg.trainer.devices
            assert device not in taken
            taken.append(device)
            at_once.append(len(taken))
            if n < 2:
                both.wait()
            time.sleep(0.1)
            taken.remove(device)

    threads = [threading.Thread(target=job, args=[n]) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    job(2)
    assert sorted(at_once) == [1, 1, 2]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with own_gpus(cfgs[3]):
        assert cfgs[3].trainer.devices == 1  # a single one is shared


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["hparams_search=optuna"], "error: hparams_search=optuna: a search is a sweep: add -m"),
        (["-m", "optimizer.lrr=1,2"], "error: optimizer.lrr: no such key; did you mean optimizer."),
        (["-m", "model=cnn,resnet"], "error: model must be cnn, fast_cnn, mlp or vgg, got resnet"),
        (["-m", "optimizer.lr=interval(0,1)"], "error: optimizer.lr=interval(0,1): add hparams_"),
        (
            ["-m", "seed=0,1", "run_dir=x"],
            "error: run_dir must be each job's own folder; set hydra",
        ),
        (["-m", r"hydra.sweep.dir='a\${y}'"], "error: hydra.sweep.dir must be a path without ${"),
        ([r"hydra.run.dir='a\${y}'"], "error: hydra.run.dir must be a path without ${"),
        (["-m", "hydra/sweeper=optuna"], "error: hydra/sweeper must not be set, got optuna; use h"),
    ],
)
def test_a_mistake_ends_in_one_line_before_there_is_a_folder(command, tmp_path, args, line):
    done = command(*args)
    assert done.returncode == 1
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_one_process_runs_a_sweep(tmp_path):
    (tmp_path / state.SWEEP).write_text(
        "hydra: {job: {config_name: train}, help: {app_name: mnist_cnn.train}, "
        "sweeper: {_target_: mnist_cnn.runs.sweeps.Grid}, "
        "overrides: {hydra: [], task: [seed=0]}, runtime: {config_sources: []}}"
    )
    with FileLock(tmp_path / state.LOCK):
        done = finish(tmp_path, f"ckpt_path={tmp_path}")
    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path}: another process is running this sweep\n"


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch):
    cfg = OmegaConf.create(
        {
            "hydra": {
                "runtime": {"choices": {"hydra/launcher": "ray"}},
                "launcher": {"_target_": "hydra_plugins.not_there.RayLauncher"},
            }
        }
    )
    grid = Grid()
    with pytest.raises(ValueError, match=r'launcher=ray: not installed: pip .* "\.\[ray\]"'):
        grid.setup(hydra_context=None, task_function=None, config=cfg)  # type: ignore[arg-type]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'optuna: not installed: pip .* "\.\[sweep\]"'):
        Optuna(n_trials=1, n_jobs=1, sampler=OmegaConf.create(), params=None)


def test_a_resumed_sweep_has_its_launcher_and_sweeper(tmp_path):
    hydra = {
        "job": {"config_name": "train"},
        "overrides": {
            "hydra": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.mode=MULTIRUN"],
            "task": ["seed=0,1", "optimizer.lr=1e-3,1e-2"],
        },
        "runtime": {"config_sources": []},
    }
    OmegaConf.save({"hydra": hydra}, tmp_path / state.SWEEP)
    place = f"hydra.sweep.dir='{tmp_path}'"
    assert resume.resume([f"ckpt_path={tmp_path}", "seed=2"]) == [
        *["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
        *["optimizer.lr=1e-3,1e-2", "seed=2", place],
    ]
    # the keys of another launcher are its own
    assert resume.resume(["-m", f"ckpt_path={tmp_path}", "hydra/launcher=basic"]) == [
        *["-m", "seed=0,1", "optimizer.lr=1e-3,1e-2", "hydra/launcher=basic", place]
    ]


@pytest.mark.parametrize("name", ["it's", "a\\", "a\\'b", "${y}", "a\\\\${y}", "{a}%20?[x],=#"])
def test_a_path_of_any_characters_comes_through_the_command_line(name):
    override = OverridesParser.create().parse_override(f"hydra.run.dir={hydra.quote(name)}")
    assert OmegaConf.create({"dir": override.value()}).dir == name


def test_a_mistake_in_any_job_ends_a_sweep_before_it_begins(tmp_path):
    for wrong, line in {
        "optimizer.lr=1e-3,abc": "error: optimizer.lr must be a number > 0, got abc",
        "ckpt_path=.": "error: ckpt_path must be the folder of a sweep, or a checkpoint, with -m",
    }.items():
        process = subprocess.run(
            [sys.executable, "-m", "mnist_cnn.train", "-m", *TINY, "seed=0,1", wrong],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert process.returncode == 1
        assert process.stderr.startswith(line)
        assert process.stderr.count("\n") == 1
        assert not list(tmp_path.iterdir())


def swept(folder: Path, entry: str = "train", sweeper: str = "mnist_cnn.runs.sweeps.Grid") -> Path:
    """A folder as a sweep leaves it that was killed before its first job."""
    hydra = {
        **{"job": {"config_name": entry}, "help": {"app_name": f"mnist_cnn.{entry}"}},
        **{"sweeper": {"_target_": sweeper}},
        "overrides": {"hydra": [], "task": ["seed=0,1"]},
        "runtime": {"config_sources": []},
    }
    folder.mkdir()
    OmegaConf.save({"hydra": hydra}, folder / state.SWEEP)
    return folder


@pytest.mark.slow
def test_a_folder_that_is_not_this_sweeps_is_refused_and_left_as_it_was(tmp_path):
    (tmp_path / "mine" / "0").mkdir(parents=True)
    (tmp_path / "mine" / "0" / "thesis.txt").touch()
    grid = swept(tmp_path / "grid")
    evaluation = swept(tmp_path / "evaluation", "evaluate")
    added = swept(tmp_path / "added")
    (added / "7").mkdir()
    (added / "7" / "thesis.txt").touch()
    search = "hparams_search=optuna"
    kinds = "Grid", "Optuna"
    other = f"hydra.sweeper must be {kinds[0]} in {grid}, got {kinds[1]}"
    before = untouched([tmp_path])
    for args, line in {
        ("seed=0,1", "hydra.sweep.dir=mine"): "hydra.sweep.dir must be a new or empty folder, or a "
        f"sweep's, got {tmp_path / 'mine'}, which has 0",
        ("seed=0,1", f"hydra.sweep.dir={evaluation}"): "hydra.sweep.dir must be a sweep of "
        f"mnist_cnn.train, got {evaluation}, a sweep of mnist_cnn.evaluate",
        (search, f"hydra.sweep.dir={grid}"): f"{other}; set another hydra.sweep.dir",
        (search, f"ckpt_path={grid}"): f"{other}; set another hydra.sweep.dir",
        (f"ckpt_path={added}",): f"{added / '7'} is no job of this sweep; move it away",
    }.items():
        done = subprocess.run(
            [sys.executable, "-m", "mnist_cnn.train", "-m", *TINY, *args],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert done.stderr == f"error: {line}\n"
        assert done.returncode == 1
    assert untouched([tmp_path]) == before


def test_a_finished_job_is_known_again_however_it_is_written(tmp_path):
    quick = [*TINY, "trainer.max_epochs=1"]
    folder = tmp_path / "sweep"
    done = finish(tmp_path, "-m", *quick, "optimizer.lr=1e-3,0.001")
    assert done.returncode == 0, done.stderr
    assert states(folder) == ["finished"]
    alone = finish(tmp_path, f"ckpt_path={folder / '0'}", "trainer.max_epochs=2")
    assert alone.returncode == 0, alone.stderr
    before = untouched([folder / "0"])
    done = finish(tmp_path, f"ckpt_path={folder}", "seed=0,1", "optimizer.lr=0.001")
    assert done.returncode == 0, done.stderr
    assert untouched([folder / "0"]) == before
    assert states(folder) == ["finished", "finished"]
    assert result(folder / "1")["seed"] == 1


@pytest.mark.slow
def test_a_search_fits_the_model_and_lies_in_its_folder_whatever_its_name(tmp_path):
    place = tmp_path / "a{b}%20?c\\d"
    place.mkdir()
    searched = [
        *["hparams_search=optuna", "model=fast_cnn", "model.channels=[4,4]"],
        *["~hydra.sweeper.params.data\\.batch_size", "callbacks.prune.pruner.n_warmup_steps=9"],
    ]
    done = finish(place, "-m", *TINY, *searched, "hydra.sweeper.n_trials=1")
    assert done.returncode == 0, done.stderr
    assert "model.dropout is not searched" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == [place.name]
    folder = place / "sweep"

    def study() -> list[optuna.trial.FrozenTrial]:
        return optuna.load_study(study_name=STUDY, storage=storage(folder)).trials

    assert [set(trial.params) for trial in study()] == [{"optimizer.lr", "model.hidden"}]

    before = untouched([folder])
    for args, line in {
        ("objective.metric=val/acc", "objective.mode=max"): "error: objective.metric must be val/l",
        ("model.hidden=choice(8,16)",): f"error: model.hidden in {folder} must be like IntDistrib",
    }.items():
        done = finish(place, f"ckpt_path={folder}", *args)
        assert done.stderr.startswith(line)
        assert done.stderr.count("\n") == 1
    assert untouched([folder]) == before

    done = finish(place, f"ckpt_path={folder}", "hydra.sweeper.n_trials=2")
    assert done.returncode == 0, done.stderr
    assert states(folder) == ["finished", "finished"]
    alone = finish(place, f"ckpt_path={folder / '1'}", "trainer.max_epochs=3")
    assert alone.returncode == 0, alone.stderr
    assert result(folder / "1")["epochs"] == 3


@pytest.mark.slow
def test_jobs_that_do_not_belong_to_their_checkpoint_are_refused(short_run, command, tmp_path):
    short_run("run", "trainer.max_epochs=1")
    checkpoint = tmp_path / "run" / state.LAST
    before = untouched([tmp_path])
    done = command("-m", *SHORT, f"ckpt_path={checkpoint}", "data.batch_size=64,32")
    assert done.stderr.startswith("error: data.batch_size must be 64, as trained so far, got 32")
    assert done.stderr.count("\n") == 1
    assert done.returncode == 1
    assert untouched([tmp_path]) == before
