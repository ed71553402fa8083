"""What a training does with its precision, schedule, metrics and loggers."""

import csv
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mnist_cnn.config.check import check
from mnist_cnn.config.compose import compose
from mnist_cnn.runs import state
from mnist_cnn.train import train
from tests.helpers.training import SHORT

QUICK = [*SHORT, "trainer.limit_train_batches=5", "logger=none"]


def history(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open() as file:
        return list(csv.DictReader(file))


def rates(run: Path) -> list[float]:
    return [float(row["lr"]) for row in history(run)]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
def test_every_precision_trains_and_leaves_weights_of_32_bits(tmp_path, precision):
    options = [f"trainer.precision={precision}", "logger=tensorboard", "optimizer.eps=1e-4"]
    results = train(compose([*QUICK, *options], run_dir=tmp_path))
    assert results["val/loss"] < 2.3
    assert state.state(tmp_path) == "finished"
    weights = load_file(tmp_path / "weights.safetensors").values()
    assert {weight.dtype for weight in weights} == {torch.float32}


def test_gradients_are_clipped_in_mixed_precision(tmp_path):
    options = ["trainer.precision=bf16-mixed", "trainer.max_epochs=1"]
    free, clipped = (
        train(compose([*QUICK, *options, f"trainer.gradient_clip_val={value}"], run_dir=run))
        for value, run in (("null", tmp_path / "free"), (1e-8, tmp_path / "clipped"))
    )
    assert clipped["train/loss"] > free["train/loss"]


@pytest.mark.parametrize(
    ("interval", "expected"),
    [([], [1e-3, 5e-4, 2.5e-4]), (["+scheduler.interval=step"], [2**-5 * 1e-3, 2**-10 * 1e-3])],
)
def test_a_schedule_of_ones_own_is_stepped_by_epoch_or_as_it_says(tmp_path, interval, expected):
    own = ["scheduler=none", "scheduler.name=StepLR", "+scheduler.step_size=1"]
    options = [*QUICK, *own, "+scheduler.gamma=0.5", f"trainer.max_epochs={len(expected)}"]
    train(compose([*options, *interval], run_dir=tmp_path))
    assert rates(tmp_path) == pytest.approx(expected)


def test_a_schedule_knows_no_other_interval():
    own = ["scheduler=none", "scheduler.name=StepLR", "+scheduler.interval=batch"]
    with pytest.raises(ValueError, match=r"scheduler\.interval must be epoch or step, got batch"):
        check(compose(own, run_dir="unused"))


def test_epochs_without_validation_show_none_and_training_metrics_count_in_each(tmp_path, caplog):
    options = ["trainer.check_val_every_n_epoch=2", "trainer.max_epochs=4", "data.val_fraction=0.2"]
    options += ["objective.metric=train/loss", "scheduler.threshold=10", "scheduler.patience=0"]
    with caplog.at_level(logging.INFO, "mnist_cnn.callbacks"):
        train(compose([*QUICK, *options], run_dir=tmp_path))
    lines = [record.getMessage() for record in caplog.records if "epoch" in record.getMessage()]
    assert ["val" in line for line in lines] == [False, True, False, True]
    assert [bool(row.get("val/loss")) for row in history(tmp_path)] == [False, True, False, True]
    assert rates(tmp_path) == pytest.approx([1e-3, 1e-3, 5e-4, 2.5e-4])


def test_the_best_epoch_of_an_accuracy_is_the_one_with_the_highest(tmp_path):
    options = ["objective.metric=val/acc", "trainer.max_epochs=3", "optimizer.lr=0.003"]
    results = train(compose([*QUICK, *options], run_dir=tmp_path))
    accuracies = [float(row["val/acc"]) for row in history(tmp_path)]
    assert results["best_epoch"] == accuracies.index(max(accuracies)) + 1 > 1
    assert results["config"]["objective"] == {"metric": "val/acc", "mode": "max"}


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ("objective.metric=val/acc objective.mode=min", "objective.mode must be max for val/acc"),
        ("objective.mode=max", "objective.mode must be min for val/loss, got max"),
        (
            "callbacks.checkpoint.monitor=val/acc callbacks.checkpoint.mode=min",
            "callbacks.checkpoint.mode must be max for val/acc, got min",
        ),
        ("trainer.max_steps=0", "trainer.max_steps must be"),
        ("trainer.max_time=00:00:00:00", "trainer.max_time must be at least 00:00:00:01"),
    ],
)
def test_a_contradiction_or_a_training_of_nothing_is_refused(overrides, line):
    with pytest.raises(ValueError, match=line):
        check(compose(overrides.split(), run_dir="unused"))


def test_divergence_within_an_epoch_is_told_with_a_few_of_the_rows(tmp_path):
    options = ["model=mlp", "data.batch_size=2000", "optimizer.lr=1e30", "logger=tensorboard"]
    with pytest.raises(ValueError, match=r"train/loss=nan at step .* and 1990 more of the tr"):
        train(compose([*QUICK, *options], run_dir=tmp_path))


def test_a_resumed_run_keeps_what_the_csv_logger_wrote(tmp_path):
    options = [*QUICK, "logger=csv"]
    train(compose([*options, "trainer.max_epochs=1"], run_dir=tmp_path))
    again = [f"ckpt_path={tmp_path / state.LAST}", "trainer.max_epochs=3"]
    train(compose([*options, *again], run_dir=tmp_path))
    rows: list[dict[str, Any]] = []
    for path in sorted((tmp_path / "csv").rglob("metrics.csv")):
        with path.open() as file:
            rows += csv.DictReader(file)
    assert [row["step"] for row in rows if row["val/loss"]] == ["1", "2", "3"]


@pytest.mark.slow
def test_a_profiler_shows_its_table_and_no_summary_is_no_summary(tmp_path, command):
    quick = [option for option in QUICK if "max_epochs" not in option]
    options = ["trainer.max_epochs=1", "trainer.profiler=simple", "callbacks.summary=null"]
    done = command(*quick, *options, "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert "run_training_batch" in done.stderr
    assert "run_training_batch" in (tmp_path / "run" / "train.log").read_text()
    assert "Trainable params" not in done.stdout + done.stderr


def test_random_changes_stand_once_in_the_configuration(tmp_path):
    results = train(compose([*QUICK, "augment=mild", "trainer.max_epochs=1"], run_dir=tmp_path))
    assert json.dumps(results["config"]).count("elastic") == 1
