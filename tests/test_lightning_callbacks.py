"""Lightning's own callbacks work in a run, each by one override."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from mnist_cnn.config.check import inexact_callbacks
from mnist_cnn.config.compose import compose
from mnist_cnn.train import train
from tests.helpers.folder import rows, scalars
from tests.helpers.training import SHORT

TINY = [*SHORT, "model.channels=[4,8]", "model.hidden=16"]
LIGHTNINGS = "lightning.pytorch.callbacks"


def run(folder: Path, *overrides: str) -> dict:
    return train(compose([*TINY, *overrides], run_dir=folder / "run", run_name="x"))


def added(name: str, *arguments: str) -> list[str]:
    return [f"+callbacks.own={{{','.join([f'_target_:{LIGHTNINGS}.{name}', *arguments])}}}"]


def test_the_monitor_of_rates_logs_beside_the_history(tmp_path):
    run(tmp_path, *added("LearningRateMonitor", "logging_interval:epoch"))
    logged = scalars(tmp_path / "run")
    assert [step for step, _ in logged["val/loss"]] == [1, 2]
    rates = [float(row["lr"]) for row in rows(tmp_path / "run")]
    assert [rate for _, rate in logged["lr-Adam"]] == pytest.approx(rates)
    assert [rate for _, rate in logged["lr"]] == pytest.approx(rates)


def test_lightnings_progress_bar_takes_the_place_of_this_projects(tmp_path, capsys):
    bar = ["callbacks.progress=null", f"+callbacks.bar._target_={LIGHTNINGS}.TQDMProgressBar"]
    run(tmp_path, *bar, "trainer.enable_progress_bar=true", "logger=none")
    said = capsys.readouterr()
    assert "Epoch 1: 100%" in said.out + said.err


def test_stochastic_weight_averaging_sets_the_rate(tmp_path, capsys):
    averaging = added("StochasticWeightAveraging", "swa_lrs:0.01", "swa_epoch_start:1")
    run(tmp_path, *averaging, "trainer.max_epochs=3", "logger=none")
    rates = [float(row["lr"]) for row in rows(tmp_path / "run")]
    assert 0.001 < rates[0] < rates[1] < rates[2]
    assert "no exact resume is promised with callbacks.own" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "key"),
    [
        (*added("LearningRateFinder"), "callbacks.own"),
        (*added("BatchSizeFinder"), "callbacks.own"),
        (*added("BackboneFinetuning"), "callbacks.own"),
        ("trainer.limit_train_batches=0.0001", "trainer.limit_train_batches"),
        ("trainer.limit_test_batches=0.01", "trainer.limit_test_batches"),
        *((f"+trainer.{key}=x", f"trainer.{key}") for key in ("callbacks", "logger", "plugins")),
        ("trainer.enable_checkpointing=false", "trainer.enable_checkpointing"),
        ("trainer.val_check_interval='00:00:00:01'", "trainer.val_check_interval"),
        ("+trainer.barebones=true", "trainer.barebones"),
        ("+data.negatives=9", "loss"),
    ],
)
def test_what_is_not_supported_is_refused_before_there_is_a_folder(override, key, tmp_path):
    with pytest.raises(ValueError, match=rf"^{key}\b"):
        run(tmp_path, override)
    assert not (tmp_path / "run").exists()


def test_a_callback_without_an_exact_resume_is_named():
    for name in ("GradientAccumulationScheduler", "LearningRateMonitor"):
        assert inexact_callbacks(compose(added(name), run_dir="unused")) == ["callbacks.own"]


def test_weights_are_pruned_by_lightnings_callback(tmp_path):
    run(tmp_path, *added("ModelPruning", "pruning_fn:l1_unstructured", "amount:0.5"))
    net = load_file(tmp_path / "run" / "weights.safetensors")
    share = sum((w == 0).sum() for w in net.values()) / sum(w.numel() for w in net.values())
    assert 0.4 < share < 0.8
