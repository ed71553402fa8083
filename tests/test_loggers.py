"""The real TensorBoard, Weights & Biases and MLflow, offline."""

import importlib
import shutil
from pathlib import Path

import pytest
from lightning_utilities.core.imports import RequirementCache

from mnist_cnn.callbacks.loggers import make_loggers
from mnist_cnn.checks.folders import results, scalars
from mnist_cnn.config.compose import compose
from mnist_cnn.module import DigitClassifier
from tests.helpers.training import SHORT, trained

# MLflow 3.17 uses what SQLAlchemy 2.1 will remove (2026-11)
pytestmark = pytest.mark.filterwarnings("ignore:.*noload.*:DeprecationWarning")

# MLflow opens a relative path only once per process: other tests need other names
DATABASE = "sqlite:///outputs/trackers.db"
BOTH = ["logger=[tensorboard,wandb,mlflow]", "logger.wandb.offline=true"]
BOTH += [f"logger.mlflow.tracking_uri={DATABASE}"]


def test_tensorboard_has_a_runs_results_once_and_none_of_an_earlier_state(tmp_path):
    for epochs, test in ((1, "false"), (1, "true"), (2, "true")):
        options = ["logger=tensorboard", f"test={test}", f"trainer.max_epochs={epochs}"]
        outcome = results(trained(tmp_path, *options))
        found = scalars(tmp_path)
        assert [step for step, _ in found["val/loss"]] == [*range(1, epochs + 1)]
        for tag in {"test/acc", "results/test/acc", "results/val/acc"} & found.keys():
            value = outcome[tag.removeprefix("results/")]
            assert found[tag] == [(epochs + 1, pytest.approx(value))]
        assert ("test/acc" in found) == (test == "true")
    before = scalars(tmp_path)
    forced = ["logger=tensorboard", "optimizer=sgd", "trainer.max_epochs=3", "force=true"]
    with pytest.raises(ValueError, match="optimizer"):  # Adam's state is not SGD's
        trained(tmp_path, "test=true", *forced)
    assert scalars(tmp_path) == before


def test_each_validation_of_an_epoch_has_a_step_of_its_own_in_tensorboard(tmp_path):
    for epochs in (1, 2):
        options = [f"trainer.max_epochs={epochs}", "trainer.val_check_interval=0.5"]
        trained(tmp_path, "test=true", "logger=tensorboard", *options)
    steps = {tag: [step for step, _ in points] for tag, points in scalars(tmp_path).items()}
    assert steps["val/loss"] == [5, 10, 15, 20]
    assert steps["train/loss"] == [10, 20]
    assert steps["test/acc"] == steps["results/test/acc"] == [21]


def ids(run: Path) -> list[str]:
    return [folder.name.rpartition("-")[2] for folder in sorted(run.glob("wandb/offline-run-*"))]


@pytest.mark.slow
def test_trackers_get_a_run_which_wandb_continues_but_not_by_its_copy(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    run, copied = tmp_path / "outputs" / "run", tmp_path / "outputs" / "copied"
    trained(run, *BOTH, "seed=7", "trainer.max_epochs=1")
    shutil.copytree(run, copied)
    outcome = results(trained(run, *BOTH, "seed=7"))
    trained(copied, *BOTH, "seed=7")
    first, again = ids(run)
    assert first == again  # wandb sync merges them into one run
    assert len({first, *ids(copied)}) == 2

    client = mlflow.MlflowClient(DATABASE)
    (experiment,) = client.search_experiments(filter_string="name = 'mnist_cnn'")
    _, resumed, new = client.search_runs([experiment.experiment_id])  # the latest first
    assert (resumed.info.run_name, resumed.info.status) == ("x", "FINISHED")
    assert resumed.data.params["seed"] == "7"
    assert resumed.data.params["data/batch_size"] == "64"
    assert resumed.data.metrics["results/val/loss"] == outcome["val/loss"]
    for epoch, found in enumerate((new, resumed), 1):
        curve = client.get_metric_history(found.info.run_id, "val/loss")
        assert [point.step for point in curve] == [epoch]


@pytest.mark.parametrize(("module", "name"), [("wandb", "WANDB"), ("mlflow", "MLFLOW")])
def test_a_tracker_that_is_not_installed_is_named(module, name, tmp_path, monkeypatch):
    lightnings = importlib.import_module(f"lightning.pytorch.loggers.{module}")
    monkeypatch.setattr(lightnings, f"_{name}_AVAILABLE", RequirementCache(f"{module}>=999"))
    cfg = compose([*SHORT, f"logger=[csv,{module}]"], run_dir=tmp_path)
    with pytest.raises(ValueError, match=rf"^logger.{module}: .*{module}>=999"):
        make_loggers(cfg.logger, {}, DigitClassifier())
