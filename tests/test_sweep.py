"""Sweeps: failures are recorded, killed jobs resumed, finished and foreign folders left alone."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import filelock
import pytest
from omegaconf import OmegaConf

from hydra_plugins import resumable_submitit
from mnist_cnn.analysis.found import find_runs
from mnist_cnn.checks.folders import differences
from mnist_cnn.internals.hydra import parse_override
from mnist_cnn.runs import resume
from mnist_cnn.runs.folder import FAILED, LAST, LOCK, PENDING, RESULTS, SWEEP, RunFolder, state
from mnist_cnn.runs.names import name_of
from mnist_cnn.sweeps.callback import Folders
from tests.helpers.process import environment, finish, run, start, wait_for
from tests.helpers.toy import EXAMPLE, Toy, stamps
from tests.helpers.training import FAULT, SHORT, TINY

TRAIN = ["mnist_cnn.train", "-m", *SHORT, "logger=none", "hydra.sweep.dir=sweep"]
TRAIN += ["hydra.callbacks.folders.report=null"]
NOTES = {LOCK, PENDING, "multirun.yaml"}  # files of a command before any job has been opened
JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["optimizer.lr=1e-3", "seed=0"], "optimizer.lr_1e-3-seed_0"),
        (["+x=-1.5"], "x_-1.5"),
        ([], ""),
        (["data.root=/a b/c"], r"data.root__a_b_c-[0-9a-f]{8}"),
        (["model.channels=[4,8]"], r"model.channels_.4_8_-[0-9a-f]{8}"),
        (["x='été'"], r"x_+t_+-[0-9a-f]{8}"),
        ([f"key{n}=1.0" for n in range(99)], r"key0_1.0-.{102}-[0-9a-f]{8}"),
    ],
)
def test_a_name_is_short_and_hydras_grammar_takes_it_unquoted(overrides, name):
    found = name_of(overrides)
    assert re.fullmatch(name, found)
    assert len(found.encode()) <= 120
    parsed = parse_override(f"ckpt_path=sweep/{found}")
    assert parsed.value() == f"sweep/{found}"
    assert name_of([*overrides, "z='a b'"]) != name_of([*overrides, "z='a/b'"])


def test_the_same_command_runs_what_is_missing_and_more_values_extend_it(toy):
    (toy.folder / "broken").touch()
    done = toy.finish("x=1,3", "y=5")
    assert done.returncode == 1
    assert done.stderr == f"error: 1 of 2 jobs in {toy.sweep}: x_3 failed\n"
    assert toy.states() == {"x_1": "finished", "x_3": "failed"}
    assert json.loads((toy.sweep / "x_3" / FAILED).read_text())["error"] == "not three"
    assert json.loads((toy.sweep / "x_1" / RESULTS).read_text()) == {
        "format_version": 1,
        "loss": 0.25,
        "x": 1,
    }
    before = stamps(toy.sweep, RESULTS)

    # the job keeps its name in the sweep, and the other jobs are not forgotten
    done = toy.finish("x=1", "y=5")
    assert (done.returncode, list(toy.states())) == (1, ["x_1", "x_3"])
    (toy.folder / "broken").unlink()
    done = toy.finish("y=5", "x=3,2,1")
    assert done.returncode == 0, done.stderr
    assert toy.states() == {"x_1": "finished", "x_2": "finished", "x_3": "finished"}
    assert before.items() <= stamps(toy.sweep, RESULTS).items()


def test_a_finished_job_is_not_mixed_with_another_configuration(toy):
    assert toy.finish("x=1").returncode == 0
    before = stamps(toy.sweep, RESULTS)
    for launcher in ([], JOBLIB):
        done = toy.finish("x=1", "y=7", *launcher)
        line = "1 of 1 jobs in .*: job refused; y must be 0 as recorded, got 7; \\+force=true .*"
        assert (done.returncode, bool(re.fullmatch(f"error: {line}\n", done.stderr))) == (1, True)
        assert before == stamps(toy.sweep, RESULTS)
        assert toy.states() == {"job": "finished"}
        assert not (toy.sweep / "job" / FAILED).exists()
    done = toy.finish("x=1", "y=7", "+force=true")
    assert done.returncode == 0
    assert re.fullmatch("forced: .*: y must be 0 as recorded, got 7\n", done.stderr)
    assert toy.finish("x=1", "y=7").stderr == ""
    assert before != stamps(toy.sweep, RESULTS)


def test_a_command_is_repeated_once_a_job_of_it_has_been_opened(toy):
    def kept() -> list[list[str]]:
        return [command["task"] for command in resume.commands(toy.sweep)]

    toy.finish("x=1,2", "nonsense=1")
    assert not (toy.sweep / SWEEP).exists()
    toy.finish("x=1,2")
    toy.finish("x=1,2", "y=7")  # both have finished with other values
    assert kept() == [["x=1,2"]]
    assert not (toy.sweep / PENDING).exists()  # or the next job that is opened would add it
    done = toy.finish("x=1,2,4", "y=7")
    assert "2 of 3 jobs" in done.stderr
    assert kept() == [["x=1,2"], ["x=1,2,4", "y=7"]]


states: list[str] = []


def note_state(sweep: Path) -> None:
    states.append(state(sweep))


def test_a_sweep_is_locked_until_its_records_are_read(tmp_path):
    (tmp_path / "x_1").mkdir()
    for name in (f"x_1/{LOCK}", ".x_2.refused", ".3.refused"):
        (tmp_path / name).touch()
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    folders = Folders(report=f"{__name__}:note_state")
    Folders.held.enter_context(RunFolder(tmp_path).locked())
    with pytest.raises(SystemExit, match=r"2 of 3 jobs in .*: trial 3 refused, x_2 refused"):
        folders.on_multirun_end(config)
    note_state(tmp_path)
    assert states == ["running", "interrupted"]


def test_a_command_of_wrong_values_alone_is_not_repeated(tmp_path):
    missing = "model._target_=mnist_cnn.model.Foo"  # fails only when it is imported
    for mistake in ("optimizer.lr=-1,-2", f"seed=0,1 {missing}"):
        done = run(tmp_path, *TRAIN, *mistake.split())
        assert done.stderr.startswith("error: 2 of 2 jobs in "), done.stderr
        assert done.stderr.count("\n") == 1
        assert {path.name for path in (tmp_path / "sweep").iterdir()} == NOTES
    half = ["optimizer.lr=-1,0.1", "model.channels=[4,4]", "trainer.limit_train_batches=1"]
    run(tmp_path, *TRAIN, *half)
    (command,) = resume.commands(tmp_path / "sweep")
    assert half[0] in command["task"]


@pytest.mark.parametrize("foreign", ["multirun.yaml", "thesis.txt", LOCK + "/x", ".hydra", SWEEP])
def test_a_folder_that_is_no_sweep_of_this_application_is_left_as_it_is(toy, foreign):
    (toy.sweep / foreign).parent.mkdir(parents=True)
    (toy.sweep / foreign).write_text("application: other")
    (toy.sweep / "x_1").mkdir()
    before = stamps(toy.sweep)
    done = toy.finish("x=1,2")
    assert done.returncode == 1
    assert done.stderr.startswith("error: hydra.sweep.dir must be ")
    assert done.stderr.count("\n") == 1
    assert stamps(toy.sweep) == before


SEARCH = "hydra/sweeper=resumable_optuna hydra.sweeper.params={nonsense:'choice(1,2)'}"


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ("x=1,2 nonsense=1,2", "nonsense"),
        ("x=1,2 hydra.sweep.subdir=${hydra.job.num}", "hydra.sweep.subdir"),
        ("x=1,2 hydra.sweeper.max_batch_size=0", "hydra.sweeper.max_batch_size"),
        ("x=range(0,0)", "x must be a sweep that has values"),
        (SEARCH, "hydra.sweeper.params.nonsense"),
        ("hydra/sweeper=resumable_optuna x=interval(2,1)", "error: x: "),
        ("hydra/sweeper=resumable_optuna x=1,2 hydra.sweeper.n_trials=0", "hydra.sweeper.n_trials"),
    ],
)
def test_a_sweep_that_cannot_begin_has_no_folder(toy, options, key):
    done = toy.finish(*options.split())
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: ")
    assert key in done.stderr
    assert not toy.sweep.exists()


@pytest.mark.parametrize("content", ["", "application: app", "- x"])
def test_a_sweeps_file_without_commands_is_named(content, tmp_path):
    (tmp_path / SWEEP).write_text(content)
    with pytest.raises(ValueError, match=f"^{tmp_path / SWEEP} must have the commands"):
        resume.commands(tmp_path)


def test_a_sweep_and_a_job_of_another_process_are_left_to_it(toy):
    for job in ("x_1", "x_2"):
        (toy.sweep / job).mkdir(parents=True)
    (toy.sweep / SWEEP).write_text("application: app\ncommands: []")
    with filelock.FileLock(toy.sweep / LOCK):
        done = toy.finish("x=1,2")
        assert done.returncode == 1
        assert done.stderr == f"error: {toy.sweep}: another process is at work there\n"
        assert toy.states() == {}
    with filelock.FileLock(toy.sweep / "x_1" / LOCK):
        done = toy.finish("x=1,2")
        assert (done.returncode, toy.states()) == (1, {"x_1": "running", "x_2": "finished"})
        assert done.stderr == f"error: 1 of 2 jobs in {toy.sweep}: x_1 running\n"
    assert not (toy.sweep / "x_1" / FAILED).exists()
    assert toy.finish("x=1,2").returncode == 0


def test_a_forced_job_that_fails_is_not_called_refused_and_keeps_its_results(toy):
    assert toy.finish("x=1,3").returncode == 0
    before = stamps(toy.sweep, RESULTS)
    (toy.folder / "broken").touch()
    done = toy.finish("x=1,3", "y=7", "+force=true")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.endswith(f"error: 1 of 2 jobs in {toy.sweep}: x_3 failed; not three\n")
    assert not (toy.sweep / "x_3" / FAILED).exists()
    after = stamps(toy.sweep, RESULTS)
    assert [path for path in before if after[path] == before[path]] == [toy.sweep / "x_3" / RESULTS]
    (toy.folder / "broken").unlink()
    assert toy.finish("x=3", "y=7", "+force=true").returncode == 0
    assert stamps(toy.sweep, RESULTS).items() - after.items()


@pytest.mark.parametrize("key", ["dry_run", "stop_on_failure"])
def test_a_switch_that_is_text_is_refused(toy, key):
    done = toy.finish("x=1", f"+hydra.callbacks.folders.{key}=no")
    assert done.returncode == 1
    assert f"{key} must be true or false, got no" in done.stderr
    assert "hydra.callbacks.folders" in done.stderr
    assert not toy.sweep.exists()


def test_commands_of_the_same_second_get_folders_of_their_own(toy):
    args = ["x=1,2", "hydra.sweep.dir='by/${now:%Y}'"]
    commands = [toy.start(*args, output=subprocess.DEVNULL) for _ in range(3)]
    assert [process.wait(60) for process in commands] == [0, 0, 0]
    folders = sorted(path.name for path in (toy.folder / "by").iterdir())
    assert folders == [time.strftime(f"%Y{n}") for n in ("", "-2", "-3")]
    assert len(stamps(toy.folder, RESULTS)) == 6


@pytest.mark.parametrize("launcher", [[], JOBLIB])
def test_a_killed_sweep_is_finished_by_the_same_command(toy, launcher):
    args = ["x=1,2,4,5,6", "y=7", "seconds=0.5", *launcher]
    killed = toy.start(*args, output=subprocess.DEVNULL)
    try:
        wait_for((toy.sweep / "x_4" / LOCK).exists, killed)
        killed.kill()
        killed.wait()
        before = stamps(toy.sweep, RESULTS)
        for _ in range(9):
            done = toy.finish(*args)
            if done.returncode == 0:
                break
            assert "running" in done.stderr
        assert toy.states() == {f"x_{x}": "finished" for x in (1, 2, 4, 5, 6)}
        assert before.items() <= stamps(toy.sweep, RESULTS).items()
    finally:
        finish(killed)


def test_the_workers_of_a_killed_sweep_end_with_it(toy):
    killed = toy.start("x=1,2", "seconds=100", *JOBLIB, output=subprocess.DEVNULL)
    try:
        wait_for(lambda: [*toy.states().values()] == ["running"] * 2, killed)
        killed.kill()
        killed.wait()
        deadline = time.monotonic() + 30
        while "running" in toy.states().values() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert toy.states() == {"x_1": "interrupted", "x_2": "interrupted"}
    finally:
        finish(killed)


def test_a_key_that_jobs_lack_in_their_names_is_said_with_its_value(toy):
    assert toy.finish("x=1,2").stderr == ""
    done = toy.finish("x=1,2", "y=0,7")
    assert done.stderr.startswith("y was 0 in the 2 jobs of ")
    assert done.stderr.count("\n") == 1
    assert toy.finish("x=1,2", "y=0,7").stderr == ""


def test_ctrl_c_in_a_job_is_one_line_and_the_job_can_be_resumed(toy):
    (toy.folder / "broken").touch()
    process = toy.start("x=3,1,2", "seconds=1")
    wait_for((toy.sweep / "x_1" / "run.log").exists, process)  # the last step before the function
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130
    assert err.startswith("interrupted")
    assert err.count("\n") == 1
    assert toy.states() == {"x_1": "interrupted", "x_3": "failed"}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["submitit_local", "ray"])
def test_each_launcher_runs_the_jobs(toy, launcher):
    if launcher == "ray":
        pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    (toy.folder / "broken").touch()
    done = toy.finish("x=1,3", f"hydra/launcher={launcher}")
    assert done.returncode == 1
    assert done.stderr.endswith(f"error: 1 of 2 jobs in {toy.sweep}: x_3 failed\n")
    assert toy.states() == {"x_1": "finished", "x_3": "failed"}
    (toy.folder / "broken").unlink()
    assert toy.finish("x=1,3", f"hydra/launcher={launcher}").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("gpus", [None, "", "2,3"])
def test_a_job_of_this_machine_has_the_gpus_of_the_command(monkeypatch, gpus):
    pytest.importorskip("submitit", reason="comes with the extra slurm")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if gpus is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    launcher = pickle.loads(pickle.dumps(resumable_submitit.LocalLauncher()))
    monkeypatch.setattr(
        resumable_submitit.Base, "__call__", lambda self: os.environ.get("CUDA_VISIBLE_DEVICES")
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4,5,6,7")  # by submitit
    assert launcher() == gpus


def test_a_job_that_submitit_would_end_is_saved_first_and_then_started_again(tmp_path):
    command = ["mnist_cnn.train", "-m", *TINY, FAULT, "run_name=x"]
    command += ["callbacks.checkpoint.every_seconds=null", "hydra.callbacks.folders.report=null"]
    for launcher in ("basic", "local"):
        # in the second of two epochs of 10 steps
        fault = "on_train_batch_start 16 SIGUSR2" if launcher == "local" else "- 0 -"
        where = [f"hydra/launcher={launcher}", f"hydra.sweep.dir={launcher}"]
        done = run(tmp_path, *command, *where, FAULT=fault)
        assert done.returncode == 0, done.stderr
    (log,) = (tmp_path / "local").glob(".submitit/*/*.err")
    assert "Caught signal SIGUSR2" in log.read_text()
    assert differences(tmp_path / "basic" / "job", tmp_path / "local" / "job") == []


def test_a_dry_run_lists_the_jobs_with_their_states_and_writes_nothing(toy):
    assert toy.finish("x=1").returncode == 0
    (toy.folder / "broken").touch()
    assert toy.finish("x=3").returncode == 1
    before = stamps(toy.folder)
    done = toy.finish("x=1,2,3", "+hydra.callbacks.folders.dry_run=true")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[:-1] == [["new", "x_1"], ["new", "x_2"], ["new", "x_3"]]
    assert lines[-1][:2] == ["3", "jobs:"]
    assert stamps(toy.folder) == before


def test_a_dry_run_lists_a_job_as_refused_whose_folder_has_another_configuration(toy):
    assert toy.finish("x=1").returncode == 0
    before = stamps(toy.folder)
    for changed, code, how in (("y=0", 0, "finished"), ("y=7", 1, "refused")):
        done = toy.finish("x=1", changed, "+hydra.callbacks.folders.dry_run=true")
        assert (done.returncode, done.stdout.split()[0]) == (code, how), done.stderr
    assert "y must be 0 as recorded, got 7" in done.stdout
    after = stamps(toy.folder)
    if tuple(map(int, re.findall(r"\d+", filelock.__version__))) < (4, 3, 1):
        # it empties the file of a lock that is asked for: the time of an empty one changes, too
        before, after = ({p: t for p, t in s.items() if p.name != LOCK} for s in (before, after))
    assert after == before


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [[], JOBLIB])
def test_a_sweep_can_stop_at_the_first_job_that_fails(toy, launcher):
    (toy.folder / "broken").touch()
    command = ["x=3,1,2,4,5,6", *launcher, "+hydra.callbacks.folders.stop_on_failure=true"]
    done = toy.finish(*command)
    assert done.returncode == 1
    assert "x_3 failed; stopped after x_3" in done.stderr
    states = toy.states()
    assert states["x_3"] == "failed"
    assert len(states) < 6
    (toy.folder / "broken").unlink()
    assert toy.finish(*command).returncode == 0
    assert [*toy.states().values()] == ["finished"] * 6


@pytest.mark.slow
def test_a_search_can_stop_at_the_first_trial_that_fails(toy):
    (toy.folder / "broken").touch()
    search = ["x=3,4", "hydra/sweeper=resumable_optuna", "hydra.sweeper.n_trials=3"]
    search += ["hydra.sweeper.sampler._target_=optuna.samplers.BruteForceSampler"]
    search += ["hydra.sweeper.metric=loss", "+hydra.callbacks.folders.stop_on_failure=true"]
    done = toy.finish(*search)
    assert done.returncode == 1, done.stderr
    assert "failed; stopped after " in done.stderr
    assert [*toy.states().values()].count("failed") == 1
    assert len(toy.states()) < 3


def test_the_example_in_the_docs_is_resumed_after_a_kill(tmp_path):
    toy = Toy(tmp_path)
    (tmp_path / "app.py").write_text(EXAMPLE["python"])
    (tmp_path / "app.yaml").write_text(EXAMPLE["yaml"])
    process = toy.start("x=1,2,3", "hydra.sweep.dir=out")
    wait_for((toy.sweep / "x_2" / LOCK).exists, process)
    process.kill()
    process.communicate()
    assert toy.states() == {"x_1": "finished", "x_2": "interrupted"}
    before = stamps(toy.sweep, RESULTS)
    assert toy.finish("x=1,2,3", "hydra.sweep.dir=out").returncode == 0
    assert toy.states() == {"x_1": "finished", "x_2": "finished", "x_3": "finished"}
    assert before.items() <= stamps(toy.sweep, RESULTS).items()


def test_the_decorator_and_the_plugin_import_nothing_heavy_and_nothing_of_digits():
    code = "import sys, hydra_plugins.resumable_optuna; from mnist_cnn.sweeps import resumable"
    code += ", callback; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True)
    loaded = done.stdout.decode().split()
    own = {name for name in loaded if name.startswith("mnist_cnn.")}
    assert {name.split(".")[1] for name in own} == {"internals", "sweeps", "runs"}
    assert not {"torch", "lightning", "pydantic", "optuna"} & set(loaded)


def test_a_command_of_a_sweep_that_fails_keeps_no_other_back(tmp_path, monkeypatch, capsys):
    commands = [{"hydra": [], "task": [f"seed={n}"]} for n in range(3)]
    OmegaConf.save({"application": "train", "commands": commands}, tmp_path / SWEEP)
    (tmp_path / LOCK).touch()
    monkeypatch.setattr(sys, "argv", ["train"])
    ends = iter([SystemExit("error: one"), SystemExit(2), None])
    seen = []

    def job():
        seen.append(sys.argv[2])
        if end := next(ends):
            raise end

    with pytest.raises(SystemExit) as end:
        resume.run(job, [f"ckpt_path={tmp_path}"])
    assert seen == ["seed=0", "seed=1", "seed=2"]
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: one\n"


def test_a_dry_run_of_a_single_run_writes_nothing(toy):
    done = run(toy.folder, "app.py", "x=1", "+hydra.callbacks.folders.dry_run=true")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "1 jobs: 1 new; nothing was written"
    assert {path.name for path in toy.folder.iterdir()} == {"app.py", "app.yaml"}


def test_a_dry_run_of_trainings_says_which_would_be_refused(tmp_path):
    done = run(tmp_path, *TRAIN, "optimizer.lr=1e-3,-1", "hydra.callbacks.folders.dry_run=true")
    assert done.returncode == 1
    first, second, last = done.stdout.splitlines()
    assert first.split() == ["new", "optimizer.lr_0.001"]
    assert second.startswith("refused")
    assert "optimizer.lr" in second.partition(":")[2]
    assert last == "2 jobs: 1 new, 1 refused; nothing was written"
    assert not (tmp_path / "sweep").exists()


def test_a_sweep_over_what_a_group_has_can_begin(tmp_path):
    done = run(tmp_path, *TRAIN, "model=glob(f*_cnn)", "hydra.callbacks.folders.dry_run=true")
    assert (done.returncode, done.stdout.split()[:2]) == (0, ["new", "model_fast_cnn"]), done.stderr


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("model=cnn,vgg_tinny", "error: In 'train': Could not find 'model/vgg_tinny' Available"),
        (
            "hparams_search=optuna hydra.sweeper.metric=val/acc hydra.sweeper.mode=max",
            "error: hydra.sweeper.metric must be objective.metric, val/loss, got val/acc\n",
        ),
        (
            "hydra/sweeper=resumable_optuna objective.metric=val/acc seed=1,2",
            "error: hydra.sweeper.mode must be objective.mode, max, got min\n",
        ),
        (
            "hparams_search=optuna +objective.note=mine hydra.sweeper.mode=max",
            "error: hydra.sweeper.mode must be objective.mode, min, got max\n",
        ),
    ],
)
def test_a_sweep_of_trainings_that_cannot_begin_has_no_folder(tmp_path, options, line):
    done = run(tmp_path, *TRAIN, *options.split())
    assert done.returncode == 1
    assert done.stderr.startswith(line)
    assert not (tmp_path / "sweep").exists()


def test_a_wrong_value_is_a_refused_job_before_torch_is_imported(tmp_path):
    (tmp_path / "torch.py").write_text("raise RuntimeError('imported')")
    fixed = ["data.batch_size=64", "model.hidden=8", "model.dropout=0.0", "seed=-1"]
    done = run(tmp_path, *TRAIN, "hparams_search=grid", *fixed, PYTHONWARNINGS="ignore")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    for lr in ("0.0003", "0.001", "0.003"):  # overrides that all jobs share are not in the names
        assert f"optimizer.lr_{lr} refused" in done.stderr
    assert "; seed must be " in done.stderr
    assert list(find_runs(tmp_path)) == []  # also not the sweep, which nothing resumes


@pytest.mark.slow
def test_a_signal_ends_a_sweep_with_a_failed_job_in_one_line(tmp_path):
    losses = "loss={_target_:torch.nn.MSELoss},null"  # the first takes no labels
    longer = ["seed=0,1", losses, "trainer.max_epochs=999", "callbacks=no_early_stopping"]
    process = start(tmp_path, *TRAIN, *longer, PYTHONWARNINGS="ignore")
    wait_for((tmp_path / "sweep" / "loss_null-seed_0" / LAST).exists, process)
    process.terminate()
    code, _, err = finish(process)
    assert code == 143
    last = err.splitlines()[-1]
    assert last == f"interrupted by SIGTERM; resume it with ckpt_path={tmp_path / 'sweep'}"
    assert "Traceback" not in err
    assert not (tmp_path / "sweep" / "loss_null-seed_1").exists()
