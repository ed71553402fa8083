"""An evaluation agrees with the training that it follows, and TensorBoard with both."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from mnist_cnn import sources
from mnist_cnn.config import check, compose, one_line
from mnist_cnn.evaluate import evaluate
from mnist_cnn.runs import as_trained
from mnist_cnn.train import train
from tests.conftest import SHORT

# nothing of the defaults, so that whatever is not taken from the checkpoint shows
TRAINED_ON = ["data.mean=0.1307", "data.std=0.3081", "data.val_fraction=0.1", "data.fold=3"]
NET = ["model.channels=[8,16]", "model.hidden=32"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was validated and tested on every image."""
    folder = tmp_path_factory.mktemp("outputs") / "run"
    whole = ["trainer.limit_val_batches=1.0", "trainer.limit_test_batches=1.0"]
    cfg = compose([*SHORT, *whole, *TRAINED_ON, *NET], run_dir=folder, run_name="short")
    train(cfg)
    (folder / ".hydra").mkdir()  # Hydra's, where a run is started as a program
    (folder / ".hydra" / "overrides.yaml").write_text("[]\n")
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder / "tensorboard" / "short"), {"histograms": 0}).Reload()


def evaluation(ckpt_path: Path, run_dir: Path, *overrides: str) -> dict[str, Any]:
    argv = [o for o in as_trained([f"ckpt_path={ckpt_path}", *overrides]) if o[:5] != "hydra"]
    return evaluate(compose(argv, run_dir=run_dir, entry="evaluate"))


@pytest.fixture(scope="module")
def tested(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """An evaluation on the test images, with temperature, and its folder."""
    out = tmp_path_factory.mktemp("evaluation")
    return evaluation(folder, out, "temperature=true"), out


def test_it_agrees_to_the_last_image_with_the_runs_own_test(tested, results):
    outcome, _ = tested
    assert outcome["images"] == 10_000
    assert outcome["acc"] == results["test/acc"]
    assert outcome["errors"] == round(10_000 * (1 - results["test/acc"]))
    assert outcome["loss"] == pytest.approx(results["test/loss"], rel=1e-5)


def test_it_validates_on_the_images_that_training_held_out(folder, results, tmp_path):
    outcome = evaluation(folder, tmp_path, "split=val")
    assert outcome["images"] == 6_000
    assert outcome["acc"] == results["val/acc"]
    assert outcome["without_wrong_labels"] is None  # they are known of the test images only
    with (tmp_path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    # fold 3 of 6,000: named by their row in the training file, whose labels they carry
    assert [int(row["index"]) for row in rows] == list(range(18_000, 24_000))
    labels = sources.load("mnist", outcome["data"]["root"], "train")[1][18_000:24_000]
    assert [int(row["label"]) for row in rows] == labels.tolist()


def test_weights_alone_are_evaluated_as_the_checkpoint_is(folder, tested, tmp_path):
    shutil.copy(folder / "weights.safetensors", tmp_path)
    outcome = evaluation(tmp_path / "weights.safetensors", tmp_path / "out")
    assert outcome["acc"] == tested[0]["acc"]
    assert outcome["data"]["mean"] == 0.1307


def test_what_is_set_comes_before_what_the_checkpoint_says(folder, tested, tmp_path):
    outcome = evaluation(folder, tmp_path, "data.mean=1.0")
    assert outcome["data"]["mean"] == 1.0
    assert outcome["acc"] < tested[0]["acc"]


def test_another_set_is_normalised_as_in_training(folder):
    cfg = compose(as_trained([f"ckpt_path={folder}", "data=qmnist"]), run_dir=".", entry="evaluate")
    assert (cfg.data.name, cfg.data.mean, cfg.data.std) == ("qmnist", 0.1307, 0.3081)


def test_a_configuration_without_the_networks_normalisation_is_refused():
    with pytest.raises(ValueError, match=r"data.mean=null: allowed: a number"):
        evaluate(compose(run_dir=".", entry="evaluate"))


def test_files_hold_what_was_measured(tested):
    outcome, folder = tested
    assert json.loads((folder / "evaluation.json").read_text()) == json.loads(json.dumps(outcome))
    with (folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    wrong = [row for row in rows if row["label"] != row["prediction"]]
    assert (len(rows), len(wrong)) == (10_000, outcome["errors"])
    p = torch.tensor([[float(row[f"p{k}"]) for k in range(10)] for row in rows])
    torch.testing.assert_close(p.sum(1), torch.ones(10_000), atol=1e-4, rtol=0)
    assert p.argmax(1).tolist() == [int(row["prediction"]) for row in rows]
    first = outcome["mistakes"][0]
    assert first["confidence"] == pytest.approx(
        max(max(map(float, list(w.values())[3:])) for w in wrong)
    )
    assert rows[first["index"]]["label"] == first["label"] != first["prediction"]
    for name in ("confusion", "mistakes", "reliability"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_accuracy_without_the_wrong_labels_leaves_out_just_these(tested):
    outcome, out = tested
    left = outcome["without_wrong_labels"]
    assert left["images"] == 9_985
    with (out / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    skipped = sources.SETS["mnist"].wrong_test_labels
    assert len(skipped) == 15
    errors = [r for r in rows if r["label"] != r["prediction"] and int(r["index"]) not in skipped]
    assert left["errors"] == len(errors)


def test_temperature_lowers_the_loss_on_validation_and_changes_no_prediction(folder, tmp_path):
    outcome = evaluation(folder, tmp_path, "split=val", "temperature=true", "mistakes=0")
    assert outcome["temperature"]["loss"] < outcome["loss"]
    assert outcome["temperature"]["value"] != pytest.approx(1, abs=1e-3)
    assert outcome["mistakes"] == []


def test_the_program_writes_into_the_runs_folder(folder):
    subprocess.run(
        [sys.executable, "-m", "mnist_cnn.evaluate", f"ckpt_path={folder}/checkpoints/last.ckpt"],
        cwd=Path(__file__).parents[1],
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert (folder / "evaluation" / "test,last" / "evaluation.json").is_file()


def test_what_cannot_be_evaluated_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"^ckpt_path={tmp_path}: no such checkpoint"):
        as_trained([f"ckpt_path={tmp_path}"])
    (tmp_path / "notes.txt").write_text("no network")
    with pytest.raises(ValueError, match=r"^ckpt_path=.*notes.txt: not a checkpoint or weights"):
        as_trained([f"ckpt_path={tmp_path / 'notes.txt'}"])


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("split=tset", "split=tset: allowed: test, val, train"),
        ("temperature=2", "temperature=2: allowed: true or false"),
        ("mistakes=-1", "mistakes=-1: allowed: a whole number >= 0"),
        ("device=tpu", "device=tpu: allowed: auto, cpu, cuda, mps"),
        ("data.std=0", "data.std=0: allowed: a number > 0 and <= 1"),
        ("data.fold=10", "data.fold=10: allowed: 0 to 9 with data.val_fraction=0.1"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(folder, override, line):
    cfg = compose(as_trained([f"ckpt_path={folder}", override]), run_dir=".", entry="evaluate")
    with pytest.raises(ValueError, match="allowed") as refused:
        check(cfg, "evaluate")
    assert str(refused.value) == line


def test_a_wrong_key_is_answered_with_those_of_this_entry():
    from hydra.errors import ConfigCompositionException

    with pytest.raises(ConfigCompositionException) as refused:
        compose(["data.foldd=1"], run_dir=".", entry="evaluate")
    line = one_line(refused.value, "evaluate")
    assert line.startswith("error: data.foldd: no such key; did you mean data.fold?")


def test_tensorboard_has_the_network_the_digits_and_their_mistakes_by_itself(events):
    tags = events.Tags()
    assert tags["graph"]
    assert {"train/batch", "val/confusion", "val/mistakes"} <= set(tags["images"])
    assert {f"val/{digit}" for digit in range(10)} <= set(tags["tensors"])
    assert {"conv1/weight", "dense2/bias"} <= set(tags["histograms"])
    assert len(events.Histograms("conv1/weight")) == 2  # one an epoch
    assert b"conv2" in events.Graph().SerializeToString()


def test_tensorboard_compares_runs_by_their_values_and_real_results(events, results):
    content = {
        tag: plugin_data_pb2.HParamsPluginData.FromString(data)
        for tag, data in events.PluginTagToContent("hparams").items()
    }
    compared = [m.name.tag for m in content["_hparams_/experiment"].experiment.metric_infos]
    assert compared == ["best/val/acc", "best/val/loss", "test/acc", "test/loss"]
    for tag in compared:
        assert events.Scalars(tag)[-1].value == pytest.approx(
            results[tag.removeprefix("best/")], rel=1e-6
        )
    given = content["_hparams_/session_start_info"].session_start_info.hparams
    assert given["lr"].number_value == 1e-3
    assert given["channels"].string_value == "[8, 16]"
    assert given["optimizer"].string_value == "Adam"
    assert {"model", "hidden", "dropout", "batch_size", "seed", "scheduler"} <= set(given)
    assert "hp_metric" not in events.Tags()["scalars"]
