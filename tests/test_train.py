"""The train command, from the command line to a run's folder, interrupted and resumed."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from hydra.core.utils import setup_globals
from omegaconf import OmegaConf

from mnist_cnn.checks.folders import files, last, results, rows, scalars, weights
from mnist_cnn.config.compose import compose
from mnist_cnn.data.datamodule import MNISTDataModule
from mnist_cnn.module import DigitClassifier
from mnist_cnn.runs.folder import LOCK
from mnist_cnn.sweeps.callback import take
from mnist_cnn.train import train
from tests.helpers.folder import column, measured
from tests.helpers.process import environment, run
from tests.helpers.training import FAULT, SHORT, TINY, trained

CXX = os.environ.get("CXX", "g++")  # the compiler of torch.compile


@pytest.fixture
def command(tmp_path):
    """Return a function that runs mnist_cnn.train in tmp_path, with UserWarnings as errors."""
    return partial(run, tmp_path, "mnist_cnn.train", PYTHONWARNINGS="error::UserWarning")


def test_a_run_leaves_everything_in_its_folder_and_is_resumed_there(command, tmp_path):
    options = [*TINY, "logger=tensorboard", "callbacks.summary.max_depth=1", "test=true"]
    options.remove("callbacks.summary=null")
    done = command(*options, "trainer.max_epochs=1", "optimizer.lr=0.002")
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    for shown in ("validation", "test", "parameters", "results.json"):
        assert shown in done.stdout
    (run,) = tmp_path.glob("outputs/*/*/")
    names = {name for name in files(run) if "tfevents" not in name}
    hydra = {f".hydra/{name}.yaml" for name in ("config", "hydra", "overrides")}
    ended = {"history.csv", "history.png", "results.json", "weights.safetensors"}
    kept = {"checkpoints/best.ckpt", "checkpoints/last.ckpt", "train.log", LOCK}
    assert names == hydra | ended | kept

    done = command("ckpt_path=latest")  # a finished run
    assert (done.returncode, done.stderr) == (0, "")
    assert "best epoch 1 of 1" in done.stdout

    started = results(run)["started"]
    done = command(*options, "trainer.max_epochs=2", "optimizer.lr=0.002", f"hydra.run.dir={run}")
    assert done.returncode == 0, done.stderr
    assert [*tmp_path.glob("outputs/*/*/")] == [run]
    assert len([*run.glob("results/events.*")]) == 1  # without the earlier results
    found = results(run)
    assert (found["epochs"], found["started"]) == (2, started)
    assert found["config"]["optimizer"]["lr"] == 0.002
    for key in ("train/loss", "train/acc", "val/loss", "val/acc", "lr"):
        steps, values = zip(*scalars(run)[key], strict=True)
        assert steps == (1, 2)
        assert list(values) == pytest.approx(column(run, key))
    assert float(rows(run)[found["best_epoch"] - 1]["val/loss"]) == found["val/loss"]
    assert "epoch  2/2" in (run / "train.log").read_text()


@pytest.fixture
def without_torch(tmp_path):
    """Return the environment of a process that exits if it imports PyTorch."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "torch.py").write_text("raise SystemExit('torch was imported')")
    return {"PYTHONPATH": f"{tmp_path / 'bin'}:{environment()['PYTHONPATH']}"}


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("optimizer.lr=-1", "error: optimizer.lr"),
        ("data.fold=7 hydra/job_logging=disabled", "error: data.fold must be "),
        ("run_dir=mine", "error: run_dir must be "),
        ("ckpt_path=nowhere", "error: ckpt_path must be "),
    ],
)
def test_a_wrong_value_is_one_line_and_leaves_nothing(
    command, tmp_path, override, line, without_torch
):
    before = files(tmp_path)
    done = command(*SHORT, *override.split(), **without_torch)
    assert done.returncode == 1
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert files(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


def test_the_configuration_needs_no_torch(command, without_torch):
    done = command("--cfg", "job", **without_torch)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_a_run_that_its_folder_refuses_leaves_no_folder(command, tmp_path):
    trained(tmp_path / "run", "trainer.max_epochs=1")
    start = f"ckpt_path={tmp_path}/run/checkpoints/last.ckpt"
    done = command(start, *TINY, "optimizer.lr=0.1", "hydra.run.dir=new")
    said = f"error: {tmp_path}/run: optimizer.lr must be 0.001 as recorded, got 0.1; "
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert said in done.stderr
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "train.log").write_text("mine")
    done = command(*TINY, "hydra.run.dir=mine")
    assert done.returncode == 1
    assert "must be empty or a run's, has train.log" in done.stderr
    assert files(tmp_path / "mine") == {"train.log": b"mine"}


def test_a_second_process_at_the_same_folder_is_refused(command, tmp_path):
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / LOCK):
        done = command(*SHORT, "hydra.run.dir=run")
    assert done.returncode == 1
    assert str(tmp_path / "run") in done.stderr
    assert done.stderr.count("\n") == 1
    assert files(tmp_path / "run") == {LOCK: b""}


def test_a_signal_ends_a_run_with_one_line_that_resumes_it(command, tmp_path):
    options = [*TINY, FAULT, "hydra.run.dir=run", "logger=tensorboard"]
    done = command(*options, FAULT="on_train_batch_start 13 SIGTERM")
    assert done.returncode == 143
    said = f"interrupted by SIGTERM; resume it with ckpt_path={tmp_path / 'run'}"
    assert done.stderr.splitlines()[-1] == said
    assert "Traceback" not in done.stderr
    assert last(tmp_path / "run")["global_step"] == 13
    done = command(said.rpartition(" ")[2])
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "run")["epochs"] == 2


def test_the_test_set_is_read_whole_with_the_best_weights(tmp_path):
    every = ["test=true", "trainer.limit_test_batches=1.0"]
    # a learning rate at which the loss goes up and down
    found = results(trained(tmp_path, *every, "trainer.max_epochs=4", "optimizer.lr=0.1"))
    losses = column(tmp_path, "val/loss")
    assert found["best_epoch"] == losses.index(min(losses)) + 1
    loss, acc = measured(tmp_path)
    assert found["test/acc"] == pytest.approx(acc, abs=1.5e-4)  # one tied image
    assert found["test/loss"] == pytest.approx(loss, rel=1e-4)
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == found["best_epoch"]
    for key, value in weights(tmp_path).items():
        assert torch.equal(value, best["state_dict"][f"net.{key}"])


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path):
    seeds = {"first": 0, "again": 0, "other": 1}
    for name, seed in seeds.items():
        trained(tmp_path / name, f"seed={seed}", "model.dropout=0.25")
    first, again, other = ((tmp_path / name / "weights.safetensors").read_bytes() for name in seeds)
    assert first == again != other


def test_epochs_without_validation_show_none_and_training_metrics_count_in_each(tmp_path):
    options = ["trainer.check_val_every_n_epoch=2", "trainer.max_epochs=4"]
    options += ["objective.metric=train/loss", "scheduler.threshold=10", "scheduler.patience=0"]
    found = rows(trained(tmp_path, *options))
    assert [bool(row.get("val/loss")) for row in found] == [False, True, False, True]
    assert column(tmp_path, "lr") == pytest.approx([1e-3, 1e-3, 5e-4, 2.5e-4])


class TwoTests(MNISTDataModule):
    def test_dataloader(self):
        return [super().test_dataloader()] * 2


class Numbered(DigitClassifier):
    def test_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("test/number", float(dataloader_idx), batch_size=len(batch[0]))

    def on_test_epoch_end(self):
        pass

    def test_results(self):
        return {}


def test_every_test_loader_is_in_the_results(tmp_path):
    kinds = {"data": "TwoTests", "module": "Numbered"}
    options = [f"{part}._target_=tests.test_train.{kind}" for part, kind in kinds.items()]
    found = results(trained(tmp_path, "targets=[tests.*]", *options, "test=true"))
    assert [found[f"test/number/dataloader_idx_{k}"] for k in (0, 1)] == [0, 1]


def test_a_sound_network_overfits_three_batches(tmp_path):
    options = ["debug=overfit", "data.eval_batch_size=500", "trainer.accelerator=cpu"]
    train(compose([*options, "logger=none"], run_dir=tmp_path))
    losses = column(tmp_path, "train/loss")
    assert losses[-1] < 0.05 < losses[0]
    assert set(column(tmp_path, "lr")) == {1e-3}
    found = results(tmp_path)
    assert found["best_epoch"] == 1 + losses.index(min(losses)) > 40
    assert "test/acc" not in found


@pytest.mark.parametrize(
    ("option", "epochs"),
    [("fast_dev_run=true", 1), ("val_check_interval=0.5", 2), ("overfit_batches=3", 2)],
)
def test_an_option_of_lightnings_trainer_works_as_in_lightning(option, epochs, tmp_path):
    found = results(trained(tmp_path, f"trainer.{option}"))
    assert found["epochs"] == epochs
    assert found["config"]["trainer"][option.partition("=")[0]]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true", "bf16-mixed"])
def test_every_precision_trains_and_leaves_weights_of_32_bits(tmp_path, precision):
    options = [f"trainer.precision={precision}", "logger=tensorboard", "optimizer.eps=1e-4"]
    trained(tmp_path, *options)
    assert results(tmp_path)["val/loss"] < 2.31
    assert {weight.dtype for weight in weights(tmp_path).values()} == {torch.float32}


def test_gradients_are_clipped_in_mixed_precision(tmp_path):
    for value in ("null", "1e-8"):
        options = ["trainer.precision=bf16-mixed", f"trainer.gradient_clip_val={value}"]
        trained(tmp_path / value, *options)
    assert column(tmp_path / "1e-8", "train/loss")[1] > column(tmp_path / "null", "train/loss")[1]


def test_runs_that_start_in_the_same_second_get_folders_of_their_own(tmp_path):
    setup_globals()  # registers `now`
    configs = [
        OmegaConf.create({"hydra": {"run": {"dir": f"{tmp_path}/a/${{now:12-00}}"}}})
        for _ in range(9)
    ]
    with ThreadPoolExecutor(9) as threads:
        list(threads.map(take, configs, ["run"] * 9))
    taken = {Path(cfg.hydra.run.dir).name for cfg in configs}
    assert taken == {"12-00", *(f"12-00-{n}" for n in range(2, 10))}


@pytest.mark.slow
def test_a_terminal_that_is_not_utf_8_shows_what_it_can_and_the_files_are_utf_8(command, tmp_path):
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = command(*TINY, "debug=default", "hydra.run.dir=run", **ascii_only)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("epoch  1/2 ? train ")
    assert "epoch  1/2 │ train" in (tmp_path / "run" / "train.log").read_text("utf-8")


def test_a_run_that_ends_before_its_first_validation_is_trained(tmp_path):
    found = results(trained(tmp_path, "trainer.max_steps=7", "test=true"))
    assert found["epochs"] == 1
    assert "val/loss" not in found
    assert found["test/acc"] > 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(CXX) is None, reason="a C++ compiler is missing")
def test_a_compiled_network_trains_like_one_that_is_not(command, tmp_path):
    plain, compiled = trained(tmp_path / "plain", "trainer.max_epochs=1"), tmp_path / "compiled"
    options = [*TINY, "compile=true", "trainer.max_epochs=1", f"hydra.run.dir={compiled}"]
    done = command(*options, TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "kernels"))
    assert done.returncode == 0, done.stderr
    assert "no exact resume is promised with compile\n" in done.stderr
    assert any((tmp_path / "kernels").rglob("*.so"))
    assert column(compiled, "val/loss") == pytest.approx(column(plain, "val/loss"), rel=1e-4)
    assert weights(compiled).keys() == weights(plain).keys()


@pytest.mark.slow
def test_a_network_that_cannot_be_compiled_here_is_one_line(command, tmp_path):
    none = {"CXX": str(tmp_path / "none"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "kernels")}
    done = command(*TINY, "compile=true", **none)
    last = done.stderr.splitlines()[-1]
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert last.startswith("error: compile must be false here, got true: ")
