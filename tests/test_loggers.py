"""Weights & Biases and MLflow, for real and without a network."""

import importlib.util
import json
from pathlib import Path

import pytest

from mnist_cnn.config.compose import compose
from mnist_cnn.runs import checks
from mnist_cnn.runs.state import LAST
from mnist_cnn.train import train
from tests.helpers.training import SHORT

# MLflow 3.17 uses what SQLAlchemy 2.1 will remove (2026-11)
pytestmark = pytest.mark.filterwarnings("ignore:.*noload.*:DeprecationWarning")

BOTH = ["logger=[tensorboard,wandb,mlflow]", "logger.wandb.offline=true"]
QUICK = [*SHORT, "trainer.limit_train_batches=5", "trainer.max_epochs=1"]


@pytest.mark.slow
def test_trackers_get_all_of_a_run_and_a_resumed_one_continues_theirs(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "outputs" / "run"
    train(compose([*QUICK, *BOTH, "seed=7"], run_dir=run, run_name="mine"))
    ids = json.loads((run / "trackers.json").read_text())
    more = ["trainer.max_epochs=2", f"ckpt_path={run / LAST}"]
    outcome = train(compose([*QUICK, *BOTH, "seed=7", *more], run_dir=run, run_name="mine"))
    assert json.loads((run / "trackers.json").read_text()) == ids

    client = mlflow.MlflowClient("sqlite:///outputs/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "mnist_cnn"]
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_id == ids["mlflow"]
    assert found.info.run_name == "mine"
    assert found.info.status == "FINISHED"
    assert found.data.params["seed"] == "7"
    assert found.data.params["model/name"] == "CNN"
    assert found.data.params["data/batch_size"] == "64"
    assert found.data.metrics["results/val/loss"] == outcome["val/loss"]
    curve = client.get_metric_history(ids["mlflow"], "val/loss")
    assert [point.step for point in curve] == [1, 2]
    assert {file.path for file in client.list_artifacts(ids["mlflow"])} >= {"history.png"}
    pictures = {file.path for file in client.list_artifacts(ids["mlflow"], "val")}
    assert pictures == {"val/confusion.png", "val/mistakes.png"}
    (best,) = client.list_artifacts(ids["mlflow"], "checkpoints")
    assert best.path == "checkpoints/best.ckpt"

    folders = list((run / "wandb").glob("offline-run-*"))
    assert len(folders) == 2  # wandb sync makes one run of them
    assert all(folder.name.endswith(ids["wandb"]) for folder in folders)
    media = {path.name.rpartition("_")[0] for path in (run / "wandb").rglob("media/**/*.png")}
    assert any("confusion" in str(path) for path in (run / "wandb").rglob("media/**/*.png"))
    assert any(name.startswith("history") for name in media)


@pytest.mark.slow
def test_a_sweep_groups_its_runs(command, tmp_path):
    pytest.importorskip("mlflow")
    options = [*BOTH, *QUICK, "test=false", "seed=0,1", "hydra.sweep.dir=a/b"]
    done = command("-m", *options)
    assert done.returncode == 0, done.stderr
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'outputs' / 'mlflow.db'}")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert [run.data.tags["sweep"] for run in runs] == ["a/b", "a/b"]
    assert {run.data.params["seed"] for run in runs} == {"0", "1"}
    assert all(
        len(list(job.glob("wandb/offline-run-*"))) == 1
        for job in Path(tmp_path, "a/b").glob("[01]")
    )


def test_nobody_logged_in_at_a_tracker_ends_in_one_line(command, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("HOME", str(tmp_path))  # no ~/.netrc of a login
    for name in ("WANDB_API_KEY", "WANDB_MODE"):  # Lightning sets the mode for good
        monkeypatch.delenv(name, raising=False)
    done = command(*QUICK, "logger=wandb")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: W&B: No API key configured")
    assert last.endswith("; logger.wandb.offline=true needs no server")


def test_a_tracker_that_is_not_installed_is_told_with_its_extra(tmp_path, monkeypatch):
    cfg = compose([*SHORT, "logger=[csv,wandb]"], run_dir=tmp_path)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "wandb" else found(name)
    )
    with pytest.raises(ValueError, match=r'logger=wandb: not installed: pip .*"\.\[wandb\]"'):
        checks.check_run(cfg)
