"""The sweeper in an application that has nothing to do with digits."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest

from mnist_cnn.sweeps.folder import FAILED, RESULTS, state
from mnist_cnn.sweeps.optuna import STUDY, storage
from tests.helpers.process import environment, wait_for

TOY = """
import time
import hydra

@hydra.main(config_name="toy", config_path=".")
def main(cfg):
    time.sleep(cfg.seconds)
    if cfg.x == 3:
        raise ValueError("not three")
    return {"loss": (cfg.x - 1.5) ** 2, "x": cfg.x}

main()
"""


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """An application of its own, outside of this repository."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "toy.py").write_text(TOY)
    (tmp_path / "app" / "toy.yaml").write_text("x: 0.0\nseconds: 0.0\nhydra: {sweep: {dir: out}}\n")
    return tmp_path / "app"


def start(app: Path, *args: str, sweeper: str = "resumable") -> "subprocess.Popen[str]":
    chosen = [f"hydra/sweeper={sweeper}", "hydra.sweeper.metric=loss", "hydra.sweep.dir=out"]
    return subprocess.Popen(
        [sys.executable, "toy.py", "-m", *chosen, *args],
        cwd=app,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(app: Path, *args: str, **options: str) -> "subprocess.CompletedProcess[str]":
    process = start(app, *args, **options)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(args, process.returncode, out, err)


def states(folder: Path) -> list[str]:
    return [
        state(folder / str(n)) for n in range(sum(p.name.isdecimal() for p in folder.iterdir()))
    ]


def written(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob(f"*/{RESULTS}")}


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / RESULTS).read_text())


def test_a_killed_sweep_of_any_application_is_resumed_and_nothing_runs_twice(toy):
    args = ["x=1,3,2,4", "seconds=0.5"]
    process = start(toy, *args)
    wait_for((toy / "out" / "2" / ".lock").exists, process)
    process.kill()
    process.communicate()
    assert states(toy / "out") == ["finished", "failed", "interrupted"]
    assert json.loads((toy / "out" / "1" / FAILED).read_text())["error"] == "not three"
    before = written(toy / "out")

    done = finish(toy, *args)
    assert done.returncode == 1
    assert done.stderr.startswith("1 of 4 jobs failed, see failed.json in ")
    assert "hydra.sweep.dir=" in done.stderr
    assert "1/4  ended before" in done.stdout
    assert "job 3  x=4  loss 6.2500  best 0.2500 (job 0)" in done.stdout
    assert states(toy / "out") == ["finished", "failed", "finished", "finished"]
    assert result(toy / "out" / "3") == {"loss": 6.25, "x": 4}
    assert before.items() <= written(toy / "out").items()

    done = finish(toy, "x=1,2,4,5")  # another number of seconds makes another job
    assert done.returncode == 0, done.stderr
    assert len(states(toy / "out")) == 8


def test_ctrl_c_says_how_any_sweep_is_resumed(toy):
    process = start(toy, "x=1,2", "seconds=5")
    wait_for((toy / "out" / "0" / ".lock").exists, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    line = f"interrupted; resume it with the same command and hydra.sweep.dir={toy / 'out'}"
    assert err.splitlines()[-1] == line
    assert states(toy / "out") == ["interrupted"]


def test_a_sweep_that_keeps_failing_ends(toy):
    done = finish(toy, "x=3,1,2", "hydra.sweeper.max_failures=1")
    assert done.returncode == 1
    assert "1 of 1 jobs failed and 2 are left (hydra.sweeper.max_failures=1)" in done.stderr
    assert states(toy / "out") == ["failed"]
    done = finish(toy, "x=3,1,2", "hydra.sweeper.max_failures=2")
    assert states(toy / "out") == ["failed", "finished", "finished"]
    done = finish(toy, "x=3,1,2", "hydra.sweeper.max_failures=0")
    assert "hydra.sweeper.max_failures must be a whole number >= 1 or null, got 0" in done.stderr


@pytest.mark.slow
def test_jobs_in_parallel_are_not_started_after_the_last_failure(toy):
    joblib = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seconds=0.5"]
    done = finish(toy, "x=3,1,3.0,2,4,5,6,7,8,9", "hydra.sweeper.max_failures=1", *joblib)
    assert done.returncode == 1
    ended = [end for end in states(toy / "out") if end in ("finished", "failed")]
    assert "failed" in ended
    assert len(ended) <= 4  # those that were at work


@pytest.mark.slow
def test_a_search_of_any_application_is_resumed_and_ends_where_it_fails(toy):
    args = ["x=interval(-5,2)", "hydra.sweeper.n_trials=6", "seconds=0.3"]
    process = start(toy, *args, sweeper="resumable_optuna")
    wait_for((toy / "out" / "3" / ".lock").exists, process)
    process.kill()
    process.communicate()
    before = written(toy / "out")
    done = finish(toy, *args, sweeper="resumable_optuna")
    assert done.returncode == 0, done.stderr
    assert states(toy / "out") == ["finished"] * 6
    assert before.items() <= written(toy / "out").items()
    study = optuna.load_study(study_name=STUDY, storage=storage(toy / "out"))
    assert [trial.value for trial in study.trials] == [
        result(toy / "out" / str(n))["loss"] for n in range(6)
    ]

    more = ["x=3", "seconds=choice(0.1,0.2)", "hydra.sweep.dir=out2"]
    limit = ["hydra.sweeper.max_failures=2", "hydra.sweeper.n_trials=9"]
    done = finish(toy, *more, *limit, sweeper="resumable_optuna")
    assert "2 of 2 jobs failed and 7 are left (hydra.sweeper.max_failures=2)" in done.stderr


@pytest.mark.slow
def test_a_machine_of_a_ray_cluster_is_lost_and_its_job_runs_on_another(toy, monkeypatch):
    utils = pytest.importorskip("ray.cluster_utils")
    for key, value in environment().items():
        monkeypatch.setenv(key, value)  # the workers inherit it
    cluster = utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        lost = cluster.add_node(num_cpus=1)
        ray = ["hydra/launcher=ray", "+hydra.launcher.ray.remote.max_retries=0"]  # Ray's own
        ray += [f"hydra.launcher.ray.init.address={cluster.address}"]
        process = start(toy, "x=1,2,4,5", "seconds=8", *ray)

        def running() -> list[Path]:
            return [p for p in (toy / "out").glob("[0-9]") if state(p) == "running"]

        wait_for(lambda: len(running()) == 2, process)  # a job on each of the two machines
        cluster.remove_node(lost, allow_graceful=False)
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        assert "a worker ended early, its job is resumed alone" in out
        assert states(toy / "out") == ["finished"] * 4
        assert [result(toy / "out" / str(n))["x"] for n in range(4)] == [1, 2, 4, 5]
    finally:
        cluster.shutdown()


def test_the_sweeper_knows_nothing_of_digits():
    code = "import sys, mnist_cnn.sweeps.optuna, mnist_cnn.sweeps.display; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True)
    loaded = [name for name in done.stdout.decode().split() if name.startswith("mnist_cnn.")]
    own = ("mnist_cnn.sweeps", "mnist_cnn.internals.hydra", "mnist_cnn.internals.launchers")
    others = {name for name in loaded if not name.startswith(own)}
    assert others == {"mnist_cnn.internals", "mnist_cnn.terminal"}
    assert not {"torch", "lightning", "pydantic"} & set(done.stdout.decode().split())
