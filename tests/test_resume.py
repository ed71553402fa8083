"""Expansion of `ckpt_path=` to the command line recorded in a folder."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from omegaconf import OmegaConf

from mnist_cnn.runs.folder import CONFIG, LAST, LOCK, OVERRIDES, RESULTS, SWEEP
from mnist_cnn.runs.resume import expand
from mnist_cnn.sweeps.callback import with_command


def save(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(OmegaConf.create(content), path)


def made(folder: Path, *overrides: str) -> Path:
    """Make a run's folder with the files that a command line would record, and a checkpoint."""
    save(folder / OVERRIDES, list(overrides))
    save(folder / CONFIG, {})
    (folder / LAST).parent.mkdir()
    (folder / LAST).touch()
    (folder / LOCK).touch()
    return folder


def swept(folder: Path, *commands: dict) -> Path:
    content = [{"hydra": [], **command} for command in commands]
    save(folder / SWEEP, {"application": "train", "commands": content})
    (folder / LOCK).touch()
    return folder


def test_without_a_checkpoint_a_command_line_stays_as_it_is_but_for_m_which_comes_first():
    assert expand(["seed=1", "--cfg", "job"]) == [["seed=1", "--cfg", "job"]]
    assert expand(["ckpt_path=null", "a=1"]) == [["a=1"]]
    assert expand(["a=1,2", "--config-dir", "x", "-m"]) == [["-m", "a=1,2", "--config-dir", "x"]]


def test_a_run_is_resumed_in_its_folder_with_what_was_given_then_and_is_given_now(tmp_path):
    run = made(tmp_path / "run", "model=vgg", "+optimizer.lr=1", "callbacks.a.b=1", "seed=2")
    now = ["optimizer.lr=3", "~callbacks.a"]
    (line,) = expand([f"ckpt_path={run}", *now])
    assert line == ["model=vgg", "seed=2", f"hydra.run.dir='{run}'", *now]
    # in its place: argparse takes no override after an option that follows others
    options = ["--config-dir", "mine"]
    assert expand([*options, f"ckpt_path={run}", "seed=3"])[0][:3] == [*options, "model=vgg"]


def test_a_file_that_a_command_names_is_found_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ["init_weights='a b.ckpt'", "+data.path=x.npz", "data.root=~/data", "init_weights=null"]
    (line,) = expand([*given, "init_weights=${oc.env:HOME}/a", "data.root=/data", "model.path=x"])
    found = [f"init_weights='{tmp_path}/a b.ckpt'", f"+data.path='{tmp_path}/x.npz'", *given[2:]]
    assert line == [*found, "init_weights=${oc.env:HOME}/a", "data.root=/data", "model.path=x"]
    swept = f"init_weights='{tmp_path}/a','{tmp_path}/b'"
    assert expand(["-m", "init_weights=a,b"]) == [["-m", swept]]
    broken = "init_weights=[a"  # for Hydra to refuse
    assert expand([broken]) == [[broken]]


def test_a_file_that_a_file_of_the_configuration_named_is_that_of_then(tmp_path):
    run = made(tmp_path / "run", "experiment=mine")
    save(run / CONFIG, {"init_weights": "/then", "data": {"path": "/x.npz"}})
    (line,) = expand([f"ckpt_path={run}"])
    assert line[1:-1] == ["init_weights='/then'", "data.path='/x.npz'"]
    (line,) = expand([f"ckpt_path={run}", "data=mnist", "init_weights=/now"])
    assert line[1:] == [
        f"hydra.run.dir='{run}'",
        "data=mnist",
        "init_weights=/now",
    ]


def test_a_relative_path_and_quotes_name_the_same_run(tmp_path, monkeypatch):
    run = made(tmp_path / "a run")
    monkeypatch.chdir(tmp_path)
    expected = [[f"hydra.run.dir='{run}'"]]
    assert expand(["ckpt_path=a run"]) == expand(["ckpt_path='a run'"]) == expected


@pytest.mark.parametrize(
    "override",
    [
        *("targets=[evil.*]", "++targets=[evil.*]", "targets.0=evil.*", "force=true"),
        *("hparams_search=optuna", "callbacks.prune.trial=3"),
        *("hydra.callbacks.x._target_=os.system", "+hydra.searchpath=[/evil]", "hydra/output=x"),
        *("--config-dir=/evil", "-m", "hydra.launcher.setup=[evil]"),
        *("run_dir=/etc", "targets[0]=evil.*", "+model@_global_.hydra.callbacks=x"),
    ],
)
def test_what_a_stranger_s_folder_may_not_decide_is_not_repeated(tmp_path, override):
    run = made(tmp_path / "run", override, "seed=1")
    assert expand([f"ckpt_path={run}"])[0][:-1] == ["seed=1"]
    assert expand([f"ckpt_path={run / LAST}"])[0][:-1] == ["seed=1"]
    sweep = swept(tmp_path / "sweep", {"task": [override, "seed=1,2"]})
    (line,) = expand([f"ckpt_path={sweep}"])
    kept = [override] if override.startswith(("hparams_search", "callbacks.prune")) else []
    assert line[1:-1] == [*kept, "seed=1,2"]


@pytest.mark.parametrize("choice", ["experiment=/../../evil", "+a@b.c=[x,../y]", "logger=${a}x"])
def test_a_folder_names_no_file_outside_the_configuration(tmp_path, choice):
    kept = ["init_weights=/a/../b", "model.path=../x", "model.x=${seed}"]
    run = made(tmp_path / "run", choice, *kept)
    sweep = swept(tmp_path / "sweep", {"task": [choice, *kept]})
    key = choice.partition("=")[0]
    for place in (run, run / LAST, sweep):
        with pytest.raises(ValueError, match=re.escape(choice)):
            expand([f"ckpt_path={place}"])
        (line,) = expand([f"ckpt_path={place}", f"{key}=mine"])
        assert f"{key}=mine" in line
        assert set(kept) < set(line)


@pytest.mark.parametrize("value", ["${oc.env:HOME}", "x${oc.decode:'a'}", "${${a}}", "$HOME"])
@pytest.mark.parametrize("key", ["logger.mlflow.tracking_uri", "+a.b", "data.root"])
def test_a_folder_reads_no_variable_of_the_environment(tmp_path, key, value):
    run = made(tmp_path / "run", f"{key}={value}")
    sweep = swept(tmp_path / "sweep", {"task": [f"{key}={value}"]})
    for place in (run, run / LAST, sweep):
        with pytest.raises(ValueError, match=re.escape(f"{key}={value}")):
            expand([f"ckpt_path={place}"])
    save(run / OVERRIDES, [])
    save(run / CONFIG, {"init_weights": value, "data": {"path": value}})
    assert expand([f"ckpt_path={run}"]) == [[f"hydra.run.dir='{run}'"]]


def test_an_empty_path_is_not_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(made(tmp_path / "run"))
    empty = ["data.root=", "init_weights=''", "+data.path="]
    assert expand(empty) == [empty]
    for given in ("ckpt_path=", "ckpt_path=''"):
        with pytest.raises(ValueError, match=r"^ckpt_path must be .*, got ''"):
            expand([given])


def test_a_checkpoint_starts_a_new_run_with_that_run_s_overrides(tmp_path):
    run = made(tmp_path / "run", "model=vgg", "seed=1")
    start = f"ckpt_path='{run / LAST}'"
    expected = [["model=vgg", start, "seed=2"]]
    assert expand([f"ckpt_path={run / LAST}", "seed=2"]) == expected
    elsewhere = "hydra.run.dir=new"  # likewise for a run's folder and another one
    assert expand([f"ckpt_path={run}", elsewhere]) == [["model=vgg", "seed=1", start, elsewhere]]
    assert expand([f"ckpt_path={run / LAST}", "-m", "seed=1,2"]) == [
        ["-m", "model=vgg", start, "seed=1,2"]
    ]
    # where that run lies is recorded by its absolute path, which may have `..`
    above = made(tmp_path / "new", f"ckpt_path='{tmp_path}/x/../run/{LAST}'")
    assert expand([f"ckpt_path={above}"])[0][0] == f"ckpt_path='{tmp_path}/x/../run/{LAST}'"
    copy = tmp_path / "copy.ckpt"
    copy.touch()
    assert expand([f"ckpt_path={copy}", "seed=2"]) == [[f"ckpt_path='{copy}'", "seed=2"]]


def test_a_sweep_is_resumed_by_each_of_its_commands(tmp_path):
    first = {"hydra": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], "task": ["seed=0,1"]}
    second = {"task": ["seed=2", "targets=[my.*]"]}
    sweep = swept(tmp_path, first, second)
    folder = f"hydra.sweep.dir='{sweep}'"
    assert expand([f"ckpt_path={sweep}", "-m"]) == [
        ["-m", *first["hydra"], "seed=0,1", folder],
        ["-m", "seed=2", folder],
    ]
    more = "seed=2,3"
    assert expand([f"ckpt_path={sweep}", more])[1] == ["-m", folder, more]
    # another launcher has other keys
    basic = "hydra/launcher=basic"
    assert expand([f"ckpt_path={sweep}", basic])[0] == ["-m", "seed=0,1", folder, basic]


OF_SEARCH = [
    *("+hydra/sweeper=resumable_optuna", "hydra/launcher=slurm", "hydra.sweeper.mode=maximize"),
    *("hydra.sweeper.metric=val/loss", "+hydra.sweeper.sampler.n_startup_trials=2"),
    *("hydra.sweeper.sampler._target_=optuna.samplers.RandomSampler", "~hydra.sweeper.params.x"),
    "+hydra.sweeper.params.lr='tag(log, interval(1e-4, 1e-2))'",
    *("hydra.sweeper.params={a.b: 'choice(1,2)', c: 3}", "~hydra.sweeper.params"),
    *("+hydra.launcher.n_jobs=2", "hydra.launcher.partition=gpu", "~hydra.launcher.qos"),
    *("hydra.launcher.gres=gpu:a100:2", "hydra.launcher.ray.init.address=auto"),
    *(
        "hydra.sweeper.pruner.p_threshold=0.2",
        "hydra.sweeper.pruner=null",
        "hydra.sweeper.n_jobs=2",
    ),
    "hydra.sweeper.pruner._target_=optuna.pruners.NopPruner",
]


def test_a_search_is_resumed_with_all_that_its_command_said_of_it(tmp_path):
    others = ["hydra.job.chdir=true", "hydra.run.dir=x"]
    overrides = {"hydra": [*OF_SEARCH, *others], "task": ["seed=1"]}
    config = OmegaConf.create({"hydra": {"overrides": overrides}})
    swept(tmp_path, *with_command([], config))
    (line,) = expand([f"ckpt_path={tmp_path}"])
    assert line == ["-m", *OF_SEARCH, "seed=1", f"hydra.sweep.dir='{tmp_path}'"]
    now = "hydra.sweeper.params.x=3"
    assert "~hydra.sweeper.params.x" not in expand([f"ckpt_path={tmp_path}", now])[0]


@pytest.mark.parametrize(
    "override",
    [
        *("hydra.launcher.setup=[touch evil]", "+hydra.launcher.setup=[touch evil]"),
        *("hydra.launcher={setup: [touch evil]}", "++hydra={launcher: {setup: [x]}}"),
        *("hydra.launcher.additional_parameters={wrap: evil}", "hydra[launcher].setup=[evil]"),
        *("hydra.launcher.partition='gpu\ntouch evil'", "hydra.launcher.partition=gpu\n"),
        *("hydra.launcher.name=${oc.env:HOME}", "hydra.launcher.pre_dispatch=exit()"),
        *("hydra.launcher.submitit_folder=/evil", "hydra.launcher.temp_folder=/evil"),
        *("hydra.launcher.ray.init.address=evil:6379", "hydra.launcher._target_=os.system"),
        *("hydra/launcher=../../evil", "hydra/launcher@hydra.sweeper=joblib"),
        *("hydra.sweeper._target_=os.system", "+hydra.sweeper._recursive_=true"),
        *(
            "hydra.sweeper.storage=postgresql://evil",
            "hydra.sweeper.sampler.x={_target_: os.system}",
        ),
        *(
            "hydra.sweeper.sampler._target_=os.system",
            "hydra.sweeper.pruner._target_=optuna.samplers.TPESampler",
            "hydra.sweeper.params.x={_target_: os.system}",
        ),
        *(
            "hydra.sweeper.params.x._target_=os.system",
            "hydra.sweeper.params={_target_: os.system}",
        ),
        *("hydra.sweeper.params={x: [{_target_: os.system}]}", "hydra.sweeper.params={x: ${a}}"),
        *("+hydra.sweeper.params.targets='[evil.*]'", "hydra.sweeper.params={targets[0]: evil.x}"),
        *("hydra.sweeper.params={+targets: '[evil.*]'}", "hydra.sweeper.params={x@hydra.y: z}"),
        *("hydra.sweeper.params={hydra.launcher.setup: '[evil]'}", "hydra.sweeper.params=x"),
        *("hydra.sweeper.params.experiment=../evil", "hydra.sweeper.params={\\ hydra.a: 1}"),
        *("hydra.callbacks.x._target_=os.system", "--config-dir=/evil", "hydra.searchpath=[/evil]"),
    ],
)
def test_a_sweep_s_folder_cannot_say_what_is_run(tmp_path, override):
    sweep = swept(tmp_path, {"hydra": ["hydra/launcher=slurm", override], "task": ["seed=1,2"]})
    with pytest.raises(ValueError, match=re.escape(repr(override))) as refused:
        expand([f"ckpt_path={sweep}"])
    assert "\n" not in str(refused.value)
    if re.match(r"hydra\.launcher\.|hydra\.sweeper\.[ps]", override):
        given = f"{override.partition('=')[0]}=mine"
        assert expand([f"ckpt_path={sweep}", given])[0][1:-2] == [
            "hydra/launcher=slurm",
            "seed=1,2",
        ]


def test_latest_is_the_newest_run_that_has_not_ended_else_the_newest_that_has(tmp_path):
    def run(name: str, age: int, *files: str) -> Path:
        folder = made(tmp_path / name)
        for file in files:
            (folder / file).write_text("{}")
        os.utime(folder / OVERRIDES, (age, age))
        return folder

    def latest() -> str:
        return expand(["ckpt_path=latest"], tmp_path)[0][-1].split("=")[1].strip("'")

    with pytest.raises(ValueError, match=f"ckpt_path=latest.*{tmp_path}"):
        latest()
    for sweep in ("sweeps/2026-01-01", "mine"):
        run(f"{sweep}/job", 98)
        for file in (LOCK, SWEEP):
            (tmp_path / sweep / file).touch()
    with pytest.raises(ValueError, match="there is no run"):
        latest()
    older = run("2026-01-01/older", 1, RESULTS)
    assert latest() == str(older)
    newer = run("a/b/c/newer", 2, RESULTS)
    assert latest() == str(newer)
    cut = run("cut", 0)
    assert latest() == str(cut)
    with FileLock(cut / LOCK):
        assert latest() == str(newer)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("nowhere", "got nowhere"),
        ("", "ckpt_path must be"),
        ("empty", "empty"),
        ("/nowhere.ckpt", "got /nowhere.ckpt"),
        ("half", "half"),
    ],
)
def test_what_cannot_be_resumed_is_named(tmp_path, monkeypatch, place, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (made(tmp_path / "half") / CONFIG).unlink()  # killed before everything was recorded
    with pytest.raises(ValueError, match=words):
        expand([f"ckpt_path={place}"])


def test_a_run_is_no_sweep(tmp_path):
    with pytest.raises(ValueError, match="ckpt_path must be a sweep's folder"):
        expand(["-m", f"ckpt_path={made(tmp_path / 'run')}", "seed=1,2"])
