"""Lightning's own callbacks work in a run, each by one override."""

import json
import logging
import math
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import device_stats_monitor

from mnist_cnn import pretrained
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


def test_the_learning_rate_finder_sets_the_rate_of_the_run(tmp_path, capsys):
    run(tmp_path, *added("LearningRateFinder", "num_training_steps:30"), "logger=none")
    assert "not bit for bit" not in capsys.readouterr().err
    found = [float(row["lr"]) for row in rows(tmp_path / "run")]
    assert len(found) == 2
    assert 1e-8 < found[0] < 1
    assert found[0] != 0.001


def test_the_batch_size_finder_sets_the_size_of_the_batches(tmp_path, caplog, monkeypatch):
    # which passes nothing on
    monkeypatch.setattr(logging.getLogger("lightning.pytorch.tuner"), "handlers", [caplog.handler])
    finder = added("BatchSizeFinder", "max_trials:2", "steps_per_trial:1", "init_val:8")
    run(tmp_path, *finder, "logger=none", "test=false")
    assert "using batch size 16" in caplog.text
    for row in rows(tmp_path / "run"):  # 20 batches an epoch
        assert float(row["images/s"]) * float(row["seconds"]) == pytest.approx(20 * 16)


def test_the_monitors_log_beside_the_history(tmp_path):
    pytest.importorskip("psutil")
    options = [
        *added("DeviceStatsMonitor", "cpu_stats:true"),
        f"+callbacks.rate._target_={LIGHTNINGS}.LearningRateMonitor",
        *("+callbacks.rate.logging_interval=epoch", "trainer.log_every_n_steps=5"),
    ]
    run(tmp_path, *options)
    logged = scalars(tmp_path / "run")
    (name,) = (key for key in logged if key.endswith("on_train_batch_end/cpu_percent"))
    assert len(logged[name]) == 2 * 20 // 5
    assert [step for step, _ in logged["val/loss"]] == [1, 2]
    rates = [float(row["lr"]) for row in rows(tmp_path / "run")]
    assert [rate for _, rate in logged["lr-Adam"]] == pytest.approx(rates)
    assert [rate for _, rate in logged["lr"]] == pytest.approx(rates)


def test_without_psutil_the_device_stats_monitor_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(device_stats_monitor, "_PSUTIL_AVAILABLE", False)
    with pytest.raises(ValueError, match=r"`psutil` is not installed.*; pip install .*monitor\]"):
        run(tmp_path, *added("DeviceStatsMonitor"))


def test_lightnings_progress_bar_takes_the_place_of_this_projects(tmp_path, capsys):
    bar = ["callbacks.progress=null", f"+callbacks.bar._target_={LIGHTNINGS}.TQDMProgressBar"]
    run(tmp_path, *bar, "trainer.enable_progress_bar=true", "logger=none")
    said = capsys.readouterr()
    assert "Epoch 1: 100%" in said.out + said.err


def test_stochastic_weight_averaging_averages_the_last_epochs(tmp_path, capsys):
    averaging = added("StochasticWeightAveraging", "swa_lrs:0.01", "swa_epoch_start:2")
    options = [*averaging, "trainer.max_epochs=4", "logger=none"]
    run(tmp_path, *options, "callbacks.early_stopping=null")
    rates = [float(row["lr"]) for row in rows(tmp_path / "run")]
    # from the second epoch on to 0.01 along half a cosine of ten epochs, a step an epoch
    way = [(1 - math.cos(math.pi * k / 10)) / 2 for k in range(4)]
    assert rates == pytest.approx([0.001 + 0.009 * share for share in way], rel=1e-3)
    capsys.readouterr()
    run(tmp_path, *options, "trainer.max_epochs=5", f"ckpt_path={tmp_path}/run", "force=true")
    assert "StochasticWeightAveraging is not resumed exactly" in capsys.readouterr().err


def test_lightnings_checkpoint_takes_the_place_of_this_projects(tmp_path):
    outcome = run(
        *(tmp_path, "callbacks.checkpoint=null", "logger=none"),
        *added("ModelCheckpoint", "monitor:val/loss"),
    )
    assert outcome["epochs"] == 2
    (file,) = (tmp_path / "run").rglob("*.ckpt")
    assert json.loads((tmp_path / "run" / "results.json").read_text())["best_epoch"]
    pretrained.load(file)
