"""Lightning's own callbacks work in a run, each by one override."""

import math
from pathlib import Path

import pytest
from safetensors.torch import load_file

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
    assert "no exact resume is promised with callbacks.own" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["LearningRateFinder", "BatchSizeFinder"])
def test_a_tuner_is_refused_before_there_is_a_folder(name, tmp_path):
    with pytest.raises(ValueError, match=rf"callbacks\.own must be no tuner.*, got {name}$"):
        run(tmp_path, *added(name))
    assert not (tmp_path / "run").exists()


def test_weights_are_pruned_by_lightnings_callback(tmp_path):
    run(tmp_path, *added("ModelPruning", "pruning_fn:l1_unstructured", "amount:0.5"))
    net = load_file(tmp_path / "run" / "weights.safetensors")
    share = sum((w == 0).sum() for w in net.values()) / sum(w.numel() for w in net.values())
    assert 0.4 < share < 0.8
