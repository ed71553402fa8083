"""Searches: by several workers, resumed exactly, compared, pruned, and failed jobs run again."""

import json
import math
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from hydra_plugins.resumable_optuna import NODE
from mnist_cnn.internals.hydra import parse_override, parse_overrides
from mnist_cnn.runs.errors import one_line
from mnist_cnn.runs.folder import FAILED, LOCK, PRUNED, RESULTS, state
from mnist_cnn.sweeps.search import NAME, Options, Search, check, distribution, sampler, storage
from tests.helpers.process import environment, finish, run, start, wait_for
from tests.helpers.toy import Toy, stamps
from tests.helpers.training import SHORT, trained

SPACE = ("x=interval(0,9)", "y=2")


def search(folder: Path, *space: str, **options: Any) -> Search:
    config = OmegaConf.create({**NODE, "n_trials": 3, **options})
    parsed = parse_overrides(space or SPACE)
    return Search(folder, Options.of(config), {o.get_key_element(): o for o in parsed})


class Launcher:
    """A launcher whose jobs end as given by name, else with a value.

    It is the number of the trial or of its seed, plus `worse` in the trial 1.
    """

    def __init__(self, folder: Path, worse: float = 0, **ends: str):
        self.folder, self.ends, self.jobs = folder, ends, dict[str, list[str]]()
        self.worse = worse

    def __call__(self, jobs: Sequence[list[str]], initial_job_idx: int) -> list[Any]:
        return [SimpleNamespace(return_value=self.end(job)) for job in jobs]

    def end(self, overrides: list[str]) -> float:
        name = overrides[-1].removeprefix("hydra.sweep.subdir=")
        self.jobs[name] = overrides
        (self.folder / name).mkdir(exist_ok=True)
        (self.folder / name / LOCK).touch()
        file = self.ends.get(f"_{name}".replace("-", "_"), RESULTS)
        (self.folder / name / file).write_text("{}")
        value = float(name[-1]) + (self.worse if name.startswith("1-") else 0)
        return value if file == RESULTS else math.nan


def ends(found: Search) -> list[str]:
    return [trial.state.name for trial in found.study.trials]


def test_a_trial_that_finishes_without_a_value_has_failed_and_is_not_run_again(tmp_path):
    options = {"seeds": 2, "pruner": None}
    search(tmp_path, **options).run(Launcher(tmp_path, worse=math.nan))
    again = Launcher(tmp_path)
    found = search(tmp_path, **options)
    found.run(again)
    assert ends(found) == ["COMPLETE", "FAIL", "COMPLETE"]
    assert again.jobs == {}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("interval(0,0.5)", FloatDistribution(0.0, 0.5)),
        ("int(interval(1,9))", IntDistribution(1, 9)),
        ("tag(log,interval(1e-4,1e-2))", FloatDistribution(1e-4, 1e-2, log=True)),
        ("range(1,10,4)", CategoricalDistribution(["1", "5", "9"])),
        ("choice(8,true)", CategoricalDistribution(["8", "True"])),
        ("null,'b c',[1,2]", CategoricalDistribution(["null", "'b c'", "[1,2]"])),
    ],
)
def test_a_sweep_in_hydras_syntax_is_a_distribution_of_optunas(text, values):
    assert distribution(parse_override(f"key={text}")) == values


def test_a_trial_is_drawn_by_seed_and_number():
    def draw(seed: int, number: int) -> float:
        one = sampler({"_target_": "optuna.samplers.TPESampler", "seed": seed}, number)
        return optuna.create_study(sampler=one).ask({"x": FloatDistribution(0, 1)}).params["x"]

    assert draw(3, 1) == draw(3, 1)
    assert len({draw(3, 1), draw(3, 2), draw(4, 1)}) == 3


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"space": ["x=interval(0,8)", "y=2"]}, "x must be"),
        ({"space": ["x=interval(0,9)", "y=3"]}, "y must be"),
        ({"space": ["x=interval(0,9)", "y=2", "z=choice(1,2)"]}, "z must be"),
        ({"space": ["x=5", "y=2"]}, "x must be"),
        ({"metric": "val/acc"}, "hydra.sweeper.metric must be"),
        ({"mode": "max"}, "hydra.sweeper.mode must be"),
        ({"seeds": 3}, "hydra.sweeper.seeds must be"),
        ({"sampler": {"_target_": "os.system"}}, "hydra.sweeper.sampler._target_ must be"),
        ({"pruner": {"_target_": "os.system"}}, "hydra.sweeper.pruner._target_ must be"),
    ],
)
def test_a_search_is_resumed_only_as_it_was_begun(tmp_path, changed, key):
    search(tmp_path).run(Launcher(tmp_path))
    space = changed.pop("space", SPACE)
    with pytest.raises((ValueError, AttributeError), match=key):
        search(tmp_path, *space, **changed)
    # these do not affect trials
    found = search(tmp_path, *SPACE, "targets=[my.*]", "force=true", n_trials=4, n_jobs=2)
    found.run(Launcher(tmp_path))
    assert ends(found) == ["COMPLETE"] * 4


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("mode", "sideways"), ("mode", None), ("params", "x"), ("sampler", None)],
        *[("n_trials", "abc"), ("n_trials", 0), ("n_jobs", 0), ("seeds", True)],
    ],
)
def test_a_wrong_option_of_a_search_is_named_before_there_is_a_study(tmp_path, option, value):
    shown = {None: "null", True: "true"}.get(value, value)
    with pytest.raises(ValueError, match=rf"^hydra\.sweeper\.{option} must be .*, got {shown}$"):
        search(tmp_path, **{option: value})
    assert not list(tmp_path.iterdir())


SAMPLER = "optuna.samplers.TPESampler"
SEED = "hydra.sweeper.sampler.seed must be an integer of at least 0, got"


@pytest.mark.parametrize(
    ("space", "options", "line"),
    [
        ("interval(2,1)", {}, "x: .*low.*"),
        ("shuffle(1,2,3)", {}, "x: must be without shuffle, .*"),
        ("shuffle(range(1,9))", {}, "x: must be without shuffle, .*"),
        ("tag(log,interval(0,1))", {}, "x: .*log.*"),
        ("1,2", {"sampler": {"_target_": SAMPLER, "seed": -1}}, f"{SEED} -1"),
        ("1,2", {"sampler": {"_target_": SAMPLER, "seed": None}}, f"{SEED} null"),
        ("1,2", {"sampler": {"_target_": SAMPLER, "n": 5}}, "hydra.sweeper.sampler: .*'n'"),
        ("1,2", {"sampler": {"_target_": "GridSampler"}}, "hydra.sweeper.sampler: .*search_space'"),
        ("1,2", {"pruner": {"_target_": "HyperbandPruner", "n": 5}}, "hydra.sweeper.pruner: .*'n'"),
    ],
)
def test_what_optuna_itself_refuses_is_a_line_with_its_key(space, options, line):
    overrides = {"x": parse_override(f"x={space}")}
    with pytest.raises(ValueError, match=r"^") as refused:
        check(OmegaConf.create({**NODE, **options}), overrides, {})
    assert re.fullmatch(f"error: {line}", one_line(refused.value))


def test_a_search_takes_optunas_words_for_its_direction(tmp_path):
    search(tmp_path, mode="maximize")
    assert search(tmp_path, mode="max").study.direction.name == "MAXIMIZE"
    assert search(tmp_path / "..", mode="minimize").study.direction.name == "MINIMIZE"


@pytest.mark.parametrize(
    ("space", "state"),
    [
        ({"targets": CategoricalDistribution(["[posix.*]"])}, TrialState.RUNNING),
        ({"x": CategoricalDistribution(["1", "trainer.profiler"])}, TrialState.RUNNING),
        ({"x": FloatDistribution(0, 9)}, TrialState.WAITING),
    ],
)
def test_a_trial_that_another_program_put_into_the_study_is_not_run(tmp_path, space, state):
    options = {"n_trials": 9}
    search(tmp_path, **options)
    study = optuna.load_study(study_name=NAME, storage=storage(tmp_path))
    params = {key: getattr(kind, "choices", [1.0])[-1] for key, kind in space.items()}
    made = optuna.trial.create_trial(state=state, params=params, distributions=space)
    study.add_trial(made)
    with pytest.raises(ValueError, match=r"study\.db: trial 0 is not of this search$"):
        search(tmp_path, **options)


def test_failed_trials_are_run_again_and_pruned_ones_stay_pruned(tmp_path):
    search(tmp_path).run(Launcher(tmp_path, _0=FAILED, _1=PRUNED))
    (tmp_path / "0" / FAILED).unlink()
    found, launcher = search(tmp_path), Launcher(tmp_path)
    found.run(launcher)
    assert ends(found) == ["COMPLETE", "PRUNED", "COMPLETE"]
    assert list(launcher.jobs) == ["0"]


def test_a_trial_of_several_seeds_is_their_mean_and_fails_where_one_does(tmp_path):
    launcher = Launcher(tmp_path, _1_2=FAILED)
    found = search(tmp_path, seeds=3, n_trials=2)
    found.run(launcher)
    assert ends(found) == ["COMPLETE", "RUNNING"]
    assert found.study.trials[0].value == 1.0
    assert list(launcher.jobs) == ["0-0", "0-1", "0-2", "1-0", "1-1", "1-2"]
    x = f"x={found.study.trials[0].params['x']}"
    assert launcher.jobs["0-1"] == ["y=2", x, "seed=1", "hydra.sweep.subdir=0-1"]


@pytest.mark.parametrize(
    ("worse", "pruner", "jobs"),
    [
        (10, {"p_threshold": 0.1}, [5, 4, 5]),
        (10, {"p_threshold": 0.3}, [5, 2, 5]),
        (10, None, [5, 5, 5]),
        (-10, {"p_threshold": 0.1}, [5, 5, 4]),
    ],
)
def test_a_trial_that_is_worse_on_the_same_seeds_stops_before_its_last(
    tmp_path, worse, pruner, jobs
):
    if pruner:
        pruner["_target_"] = "optuna.pruners.WilcoxonPruner"
    found, launcher = search(tmp_path, seeds=5, pruner=pruner), Launcher(tmp_path, worse)
    found.run(launcher)
    assert [sum(name.startswith(f"{n}-") for name in launcher.jobs) for n in range(3)] == jobs
    assert ends(found) == ["COMPLETE" if count == 5 else "PRUNED" for count in jobs]
    search(tmp_path, seeds=5, pruner=pruner).run(again := Launcher(tmp_path))
    assert not again.jobs


def test_a_worker_resumes_its_own_trials_alone(tmp_path):
    def interrupted(jobs: Sequence[list[str]], initial_job_idx: int) -> list[Any]:
        raise KeyboardInterrupt

    for worker in (0, 1, 2):
        with pytest.raises(KeyboardInterrupt):
            search(tmp_path, n_jobs=3).run(interrupted, worker)
    found, launcher = search(tmp_path, n_jobs=3), Launcher(tmp_path)
    found.run(launcher, 1)
    assert [*launcher.jobs] == ["1"]
    search(tmp_path, n_jobs=2).run(launcher)  # with fewer workers each has those of several
    assert [*launcher.jobs] == ["1", "0", "2"]
    assert ends(found) == ["COMPLETE"] * 3


def test_a_kill_leaves_no_trial_that_lacks_a_value(tmp_path, monkeypatch):
    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(optuna.storages.RDBStorage, "set_trial_param", killed)
        try:
            search(tmp_path, "x=interval(0,9)", "y=interval(0,9)").run(Launcher(tmp_path))
        except KeyboardInterrupt:
            search(tmp_path, "x=interval(0,9)", "y=interval(0,9)").run(Launcher(tmp_path))
    assert [len(trial.params) for trial in trials(tmp_path)] == [2, 2, 2]


TWO_WORKERS = ["hydra/sweeper=resumable_optuna", "hydra.sweeper.metric=loss", "x=interval(-5,2)"]
TWO_WORKERS += ["hydra.sweeper.n_jobs=2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]


def test_a_free_worker_takes_the_next_trial_while_another_is_at_work(tmp_path):
    toy, app = Toy(tmp_path), tmp_path / "app.py"
    waiting = """
    HydraConfig = hydra.core.hydra_config.HydraConfig
    first, begun = HydraConfig.get().runtime.output_dir.endswith("/0"), time.monotonic()
    while first and not os.path.exists("out/3/results.json"):
        time.sleep(0.02)
        assert time.monotonic() < begun + 60
    """
    app.write_text(app.read_text().replace("    time.sleep(cfg.seconds)", waiting))
    done = toy.finish(*TWO_WORKERS, "hydra.sweeper.n_trials=5")
    assert done.returncode == 0, done.stderr
    assert toy.states() == {str(n): "finished" for n in range(5)}


def test_a_worker_whose_launcher_has_ended_ends_before_its_next_trial():
    code = "from mnist_cnn.runs.ranks import end_with_launcher; end_with_launcher(1, 15)"
    done = subprocess.run([sys.executable, "-c", code], env=environment())
    assert done.returncode == -signal.SIGTERM


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_two_workers_end_with_their_search_and_it_loses_nothing(tmp_path, number):
    toy = Toy(tmp_path)
    args = [*TWO_WORKERS, "hydra.sweeper.n_trials=6", "seconds=0.5"]
    process = toy.start(*args, output=subprocess.DEVNULL)
    try:
        wait_for((toy.sweep / "2" / LOCK).exists, process)
        process.send_signal(number)
        process.wait()
        deadline = time.monotonic() + 30
        while "running" in toy.states().values() and time.monotonic() < deadline:
            time.sleep(0.1)
        left, before = toy.states(), stamps(toy.sweep, RESULTS)
        assert set(left.values()) == {"finished", "interrupted"}
        drawn = [trial.params for trial in trials(toy.sweep)]
        done = toy.finish(*args)
    finally:
        finish(process)
    assert done.returncode == 0, done.stderr
    assert toy.states() == {str(n): "finished" for n in range(6)}
    assert before.items() <= stamps(toy.sweep, RESULTS).items()
    found = trials(toy.sweep)
    assert [trial.params for trial in found][: len(drawn)] == drawn
    assert [trial.state.name for trial in found] == ["COMPLETE"] * 6


@pytest.mark.slow
def test_a_killed_search_draws_the_trials_of_one_that_was_not(tmp_path):
    toy = Toy(tmp_path)
    args = ["hydra/sweeper=resumable_optuna", "hydra.sweeper.metric=loss", "seconds=0.1"]
    args += ["x=interval(-5,2)", "hydra.sweeper.n_trials=7"]
    args += ["+hydra.sweeper.sampler.n_startup_trials=2"]
    for number in (1, 4):
        process = toy.start(*args)
        wait_for((toy.sweep / str(number) / LOCK).exists, process)
        process.kill()
        process.communicate()
    before = stamps(toy.sweep, RESULTS)
    assert toy.finish(*args).returncode == 0
    assert before.items() <= stamps(toy.sweep, RESULTS).items()
    assert toy.states() == {str(n): "finished" for n in range(7)}
    whole = toy.finish(*args, "hydra.sweep.dir=whole")
    assert whole.returncode == 0, whole.stderr
    one, two = (
        [(trial.params, trial.value) for trial in trials(tmp_path / sweep)]
        for sweep in ("out", "whole")
    )
    assert one == two


def trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=NAME, storage=storage(folder)).trials


def test_a_search_of_any_application_in_a_folder_of_any_name(tmp_path):
    place = tmp_path / "a {b}?c%20"
    place.mkdir()
    toy = Toy(place)
    (place / "broken").touch()
    args = ["hydra/sweeper=resumable_optuna", "hydra.sweeper.metric=loss", "x=choice(3,1)"]
    done = toy.finish(*args, "hydra.sweeper.n_trials=4", "hydra/launcher=joblib")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    found = {trial.params["x"]: (trial.state.name, trial.value) for trial in trials(toy.sweep)}
    assert found == {"3": ("RUNNING", None), "1": ("COMPLETE", 0.25)}
    assert [path.name for path in tmp_path.iterdir()] == [place.name]


def test_a_search_ends_at_the_first_job_that_lacks_its_metric(tmp_path):
    toy = Toy(tmp_path)
    args = ["hydra/sweeper=resumable_optuna", "hydra.sweeper.n_trials=4", "x=choice(2,1)"]
    done = toy.finish(*args, "hydra.sweeper.metric=los")
    said = f"error: {toy.sweep / '0'} has loss, x, not hydra.sweeper.metric=los\n"
    assert (done.returncode, done.stderr) == (1, said)
    assert toy.states() == {"0": "finished"}
    assert toy.finish(*args, "hydra.sweeper.metric=loss").returncode == 0  # corrected
    assert [trial.state.name for trial in trials(toy.sweep)] == ["FAIL", *["COMPLETE"] * 3]


def test_a_missing_optuna_is_one_line(tmp_path):
    toy = Toy(tmp_path)
    args = ["hydra/sweeper=resumable_optuna", "hydra.sweeper.n_trials=1", "x=interval(0,1)"]
    (tmp_path / "optuna.py").write_text("raise ModuleNotFoundError('no module optuna')")
    done = toy.finish(*args, "hydra.sweeper.metric=x")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: no module optuna")


def test_an_epoch_without_validation_is_not_reported(tmp_path):
    search(tmp_path).study.ask()
    trained(
        *(tmp_path / "0", "trainer.max_epochs=4", "trainer.check_val_every_n_epoch=2"),
        "+callbacks.prune._target_=mnist_cnn.callbacks.prune.Prune",
        *("+callbacks.prune.trial=${run_dir}", "+callbacks.prune.monitor=val/loss"),
        "+callbacks.prune.pruner._target_=optuna.pruners.NopPruner",
    )
    (trial,) = trials(tmp_path)
    assert sorted(trial.intermediate_values) == [2, 4]


@pytest.mark.slow
def test_a_killed_search_of_trainings_is_resumed_and_prunes_the_worse(tmp_path):
    space = ["~hydra.sweeper.params", "optimizer.lr=choice(0.01,1e-9)", "seed=3"]
    space += ["model.hidden=8", "callbacks.prune.pruner.n_startup_trials=1"]
    space += ["callbacks.prune.pruner.n_warmup_steps=0", "hydra.sweeper.n_trials=4"]
    quick = [*SHORT, "trainer.max_epochs=4", "logger=none", "test=false", "hydra.sweep.dir=s"]
    process = start(tmp_path, "mnist_cnn.train", "-m", "hparams_search=optuna", *quick, *space)
    wait_for((tmp_path / "s" / "2" / LOCK).exists, process)
    process.kill()
    process.communicate()
    running = trials(tmp_path / "s")[2].params
    done = run(tmp_path, "mnist_cnn.train", f"ckpt_path={tmp_path / 's'}")
    assert done.returncode == 0, done.stderr
    found = trials(tmp_path / "s")
    assert found[2].params == running
    for trial in found:
        folder = tmp_path / "s" / str(trial.number)
        if trial.state.name == "COMPLETE":
            results = json.loads((folder / RESULTS).read_text())
            assert (trial.value, len(trial.intermediate_values)) == (results["val/loss"], 4)
        else:
            assert state(folder) == "pruned"
    assert {trial.state.name for trial in found} == {"COMPLETE", "PRUNED"}
