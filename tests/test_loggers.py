"""The real TensorBoard, Weights & Biases and MLflow, offline."""

import contextlib
import importlib
import json
import os
import re
import shutil
import signal
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger
from lightning_utilities.core.imports import RequirementCache
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist_cnn.callbacks.loggers import hyperparameters, make_loggers
from mnist_cnn.checks.folders import accumulated, results, scalars
from mnist_cnn.config.compose import compose
from mnist_cnn.data.datamodule import MNISTDataModule
from mnist_cnn.module import DigitClassifier
from mnist_cnn.runs.folder import LOCK, OVERRIDES, RESULTS, SWEEP
from tests.helpers.process import PATIENCE, run, start
from tests.helpers.training import FAULT, SHORT, TINY, bare_trainer, trained

# MLflow 3.17 uses what SQLAlchemy 2.1 will remove (2026-11)
pytestmark = pytest.mark.filterwarnings("ignore:.*noload.*:DeprecationWarning")

# MLflow opens a relative path only once per process: other tests need other names
DATABASE = "sqlite:///outputs/trackers.db"
BOTH = ["logger=[tensorboard,wandb,mlflow]", "logger.wandb.offline=true"]
BOTH += [f"logger.mlflow.tracking_uri={DATABASE}"]


def results_of(run: Path) -> EventAccumulator:
    """Return what TensorBoard has of a run's results, of which one file is left."""
    assert len([*run.glob("results/*")]) == 1
    return accumulated(run / "results")


def test_tensorboard_has_a_runs_results_once_and_none_of_an_earlier_state(tmp_path):
    for epochs, test in ((1, "false"), (1, "true"), (2, "true")):
        options = ["logger=tensorboard", f"test={test}", f"trainer.max_epochs={epochs}"]
        outcome = results(trained(tmp_path, *options))
        assert len(scalars(tmp_path)) == 5
        for points in scalars(tmp_path).values():  # none of a single result
            assert [step for step, _ in points] == [*range(1, epochs + 1)]
        found = results_of(tmp_path)
        (text,) = found.Tensors("results/text_summary")
        assert f"| val/loss | {outcome['val/loss']:.6g} |" in str(text.tensor_proto.string_val[0])
        drawn = ["mistakes/confusion", "mistakes/most_confident"] if test == "true" else []
        assert found.Tags()["images"] == drawn
        for tag in drawn:
            (picture,) = found.Images(tag)
            assert picture.step == outcome["best_epoch"]
            assert len(picture.encoded_image_string) < 60_000
        assert not found.Tags()["scalars"]  # it is no run of a sweep
    before = scalars(tmp_path)
    forced = ["logger=tensorboard", "optimizer=sgd", "trainer.max_epochs=3", "force=true"]
    with pytest.raises(ValueError, match="optimizer"):  # Adam's state is not SGD's
        trained(tmp_path, "test=true", *forced)
    assert scalars(tmp_path) == before
    assert results_of(tmp_path).Tags()["images"] == drawn


class Named(DigitClassifier):
    def __init__(self, name: str, batch_size: int):
        super().__init__()
        self.save_hyperparameters()


def test_a_module_s_arguments_may_have_the_names_of_those_of_the_data(tmp_path):
    options = {"limit_train_batches": 1, "limit_val_batches": 0, "log_every_n_steps": 1}
    trainer = bare_trainer(max_epochs=1, logger=CSVLogger(tmp_path), **options)
    trainer.fit(Named("resnet", 3), MNISTDataModule())
    (file,) = tmp_path.rglob("hparams.yaml")
    assert "name: resnet\n" in file.read_text()


def test_runs_that_share_a_folder_of_tensorboard_delete_no_results_but_their_own(tmp_path):
    shared = ["logger=tensorboard", f"logger.tensorboard.save_dir={tmp_path}/all"]
    trained(tmp_path / "a", *shared, "trainer.max_epochs=1")
    (first,) = tmp_path.glob("all/results/*")
    trained(tmp_path / "b", *shared, "trainer.max_epochs=1")
    (other,) = {*tmp_path.glob("all/results/*")} - {first}
    trained(tmp_path / "a", *shared, "trainer.max_epochs=2")
    assert first not in (now := {*tmp_path.glob("all/results/*")})
    assert (other in now, len(now)) == (True, 2)


def test_results_are_removed_with_the_first_newer_checkpoint(tmp_path, fault):
    options = ["logger=tensorboard", FAULT]
    fault("- 0 -")
    trained(tmp_path, *options, "trainer.max_epochs=1")
    fault("on_train_epoch_start 3 raise")
    with pytest.raises(RuntimeError, match="a fault"):
        trained(tmp_path, *options, "trainer.max_epochs=4")
    assert not [*tmp_path.glob("results/*")]


def test_each_validation_of_an_epoch_has_a_step_of_its_own_in_tensorboard(tmp_path):
    for epochs in (1, 2):
        options = [f"trainer.max_epochs={epochs}", "trainer.val_check_interval=0.5"]
        trained(tmp_path, "logger=tensorboard", *options)
    steps = {tag: [step for step, _ in points] for tag, points in scalars(tmp_path).items()}
    assert steps["val/loss"] == [5, 10, 15, 20]
    assert steps["train/loss"] == [10, 20]


@contextlib.contextmanager
def tensorboard(folder: Path) -> Iterator[Callable[..., Any]]:
    """Start a TensorBoard with its own loader, and yield a function that asks it."""
    options = ["--logdir", ".", "--host", "127.0.0.1", "--port", "0"]
    server = start(folder, "tensorboard.main", *options)
    assert server.stderr is not None
    address = next(found[0] for line in server.stderr if (found := re.search("http://.*?/", line)))

    def asked(path: str, **query: str) -> Any:
        place = f"{address}data/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(place, timeout=60) as answer:
            return json.load(answer)

    try:
        yield asked
    finally:
        os.killpg(server.pid, signal.SIGTERM)  # its loader, too
        server.communicate()


@pytest.mark.slow
def test_a_sweep_is_compared_in_tensorboard_by_its_keys_and_results(tmp_path):
    swept = [*TINY, "logger=tensorboard", "test=true", "optimizer.lr=1e-3,1e-2"]
    for epochs in (1, 2):  # the longer sweep leaves nothing of the shorter one
        options = [*swept, f"trainer.max_epochs={epochs}", "hydra.sweep.dir=sweep"]
        done = run(tmp_path, "mnist_cnn.train", "-m", *options)
        assert done.returncode == 0, done.stderr
    jobs = {f"sweep/{p.parent.name}": results(p.parent) for p in tmp_path.rglob(RESULTS)}
    assert len(jobs) == 2
    with tensorboard(tmp_path) as ask:
        tags: dict[str, Any] = {}
        deadline = time.monotonic() + PATIENCE
        while sum(map(len, tags.values())) < 2 * (4 + 3 + 2):  # until it has read the files
            assert time.monotonic() < deadline
            tags = ask("plugin/scalars/tags")
            time.sleep(0.05)
        steps = {
            f"{job}/{part}": [
                e[1] for e in ask("plugin/scalars/scalars", run=f"{job}/{part}", tag=tag)
            ]
            for job in jobs
            for part, tag in (("train", "lr"), ("val", "curves/acc"), ("results", "test/acc"))
        }
        infos = ask("plugin/hparams/experiment", request="{}")["hparamInfos"]
        request = json.dumps({"sliceSize": 9, "allowedStatuses": ["STATUS_SUCCESS"]})
        groups = ask("plugin/hparams/session_groups", request=request)["sessionGroups"]
    assert tags.keys() == steps.keys()
    for name, found in steps.items():
        last = jobs[name.rpartition("/")[0]]["best_epoch"]
        assert found == ([last] if name.endswith("results") else [1, 2])
    kinds = {info["name"]: info["type"] for info in infos}
    assert kinds == dict.fromkeys(("optimizer.lr", "seed"), "DATA_TYPE_FLOAT64")
    assert len(groups) == 2
    for group in groups:
        outcome = jobs[group["name"].removesuffix("/results")]
        rate = outcome["config"]["optimizer"]["lr"]
        assert group["hparams"] == {"optimizer.lr": rate, "seed": 0}
        values = {value["name"]["tag"]: value["value"] for value in group["metricValues"]}
        names = [f"{stage}/{metric}" for stage in ("val", "test") for metric in ("acc", "loss")]
        assert values == pytest.approx({name: outcome[name] for name in names})


def test_what_a_job_was_given_alone_is_a_hyperparameter(tmp_path):
    job = tmp_path / "job"
    own = ["seed=2", "optimizer=adam", "data.per_class=null", "+model.bits=4", "data.fold=0"]
    (job / ".hydra").mkdir(parents=True)
    OmegaConf.save(own, job / OVERRIDES)
    values = {"run_dir": str(job), "seed": 2, "optimizer": {"lr": 0.1}, "model": {"bits": 4}}
    values["data"] = {"per_class": None, "fold": 0}
    assert not hyperparameters(values)  # a run of no sweep
    fixed = {"hydra": [], "task": ["data.fold=0", "optimizer=adam,sgd"]}
    OmegaConf.save({"application": "train", "commands": [fixed]}, tmp_path / SWEEP)
    (tmp_path / LOCK).touch()
    assert hyperparameters(values) == {"seed": 2, "optimizer": "adam", "model.bits": 4}


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
