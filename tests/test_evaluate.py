"""An evaluation agrees with the training that it follows, and TensorBoard with both."""

import csv
import itertools
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from torch.utils.tensorboard import SummaryWriter

from mnist_cnn import model, pretrained
from mnist_cnn.analysis import scores
from mnist_cnn.analysis.networks import as_trained
from mnist_cnn.callbacks import tensorboard
from mnist_cnn.config.check import check
from mnist_cnn.command import one_line
from mnist_cnn.config.compose import compose
from mnist_cnn.data import mnist
from mnist_cnn.data.datamodule import MNISTDataModule
from mnist_cnn.data.loader import BatchLoader
from mnist_cnn.evaluate import evaluate
from mnist_cnn.train import train
from tests.helpers.training import SHORT

# nothing of the defaults, so that whatever is not taken from the checkpoint shows
TRAINED_ON = ["data.val_fraction=0.1", "data.fold=3"]
NET = ["model.channels=[8,16]", "model.hidden=32", "model.mean=0.1307", "model.std=0.3081"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was validated and tested on every image."""
    folder = tmp_path_factory.mktemp("outputs") / "run"
    whole = ["trainer.limit_val_batches=1.0", "trainer.limit_test_batches=1.0"]
    cfg = compose([*SHORT, *whole, *TRAINED_ON, *NET], run_dir=folder, run_name="short")
    train(cfg)
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder / "tensorboard" / "short"), {"histograms": 0}).Reload()


def evaluation(ckpt_path: Path | str, run_dir: Path, *overrides: str) -> dict[str, Any]:
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


@pytest.mark.slow
def test_what_mixed_precision_trained_is_validated_and_tested_in_32_bits(short_run, tmp_path):
    whole = [f"trainer.limit_{split}_batches=1.0" for split in ("val", "test")]
    results = short_run("mixed", "trainer.precision=bf16-mixed", "trainer.max_epochs=1", *whole)
    for split in ("val", "test"):
        outcome = evaluation(tmp_path / "mixed", tmp_path / split, f"split={split}")
        assert outcome["acc"] == results[f"{split}/acc"]
        assert outcome["loss"] == pytest.approx(results[f"{split}/loss"], rel=1e-6)


def test_it_validates_on_the_images_that_training_held_out(folder, results, tmp_path):
    outcome = evaluation(folder, tmp_path, "split=val")
    assert outcome["images"] == 6_000
    assert outcome["acc"] == results["val/acc"]
    assert outcome["without_wrong_labels"] is None  # they are known of the test images only
    with (tmp_path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    # fold 3 of 6,000: named by their row in the training file, whose labels they carry
    assert [int(row["index"]) for row in rows] == list(range(18_000, 24_000))
    labels = mnist.load_split("mnist", outcome["data"]["root"], "train")[1][18_000:24_000]
    assert [int(row["label"]) for row in rows] == labels.tolist()


def test_weights_alone_are_evaluated_as_the_checkpoint_is(folder, tested, tmp_path):
    shutil.copy(folder / "weights.safetensors", tmp_path)
    outcome = evaluation(tmp_path / "weights.safetensors", tmp_path / "out")
    assert outcome["acc"] == tested[0]["acc"]
    assert outcome["data"]["val_fraction"] == 0.1


def test_what_is_set_comes_before_what_the_checkpoint_says(folder, tmp_path):
    outcome = evaluation(folder, tmp_path, "split=val", "data.eval_batch_size=100")
    assert outcome["data"]["eval_batch_size"] == 100
    cfg = compose(as_trained([f"ckpt_path={folder}", "data=qmnist"]), run_dir=".", entry="evaluate")
    assert (cfg.data.name, cfg.data.val_fraction, cfg.data.fold) == ("qmnist", 0.1, 3)


def test_a_configuration_without_the_networks_split_is_refused():
    with pytest.raises(ValueError, match=r"data.val_fraction must be a number .*, got null"):
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


def test_what_each_writer_gets_adds_up(tested, capsys):
    outcome, out = tested
    known = outcome["writers"]
    assert known["writers"] == 297
    assert [part["series"] for part in known["series"]] == ["employees", "students"]
    assert [part["images"] for part in known["series"]] == [4_999, 5_001]
    assert sum(part["errors"] for part in known["series"]) == outcome["errors"]
    low, high = known["acc_95"]
    assert low < outcome["acc"] < high
    with (out / "writers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 297
    assert sum(int(row["errors"]) for row in rows) == outcome["errors"]
    worst = known["worst_decile"]
    assert worst["writers"] == 30
    mean = sum(float(row["acc"]) for row in rows[:30]) / 30
    assert worst["mean_acc"] == pytest.approx(mean)
    assert mean < worst["mean_acc_by_chance"] < outcome["acc"]
    assert (out / "writers.png").read_bytes().startswith(b"\x89PNG")


def test_a_network_is_compared_with_another_on_the_same_images(folder, other, tmp_path, capsys):
    outcome = evaluation(folder, tmp_path / "a", f"compare={other}")
    found, both = outcome["compare"], outcome["compare"]["difference"]
    assert both == pytest.approx(outcome["acc"] - found["acc"])
    assert found["over"] == "writers"
    assert found["difference_95"][0] < both < found["difference_95"][1]
    gap = found["first_alone_right"] - found["second_alone_right"]
    assert gap == round(10_000 * both)
    assert "McNemar's test" in capsys.readouterr().out
    itself = evaluation(folder, tmp_path / "b", f"compare={folder}/checkpoints/best.ckpt")
    assert itself["compare"]["difference_95"] == (0, 0)
    assert itself["compare"]["mcnemar_p"] == 1
    place = next(a for a in as_trained([f"ckpt_path={folder}", "compare=x/y"]) if "hydra" in a)
    assert place.endswith("/evaluation/${split},compare=x_y'")


@pytest.mark.slow
def test_suites_of_robustness_are_in_the_evaluation_its_picture_and_its_table(
    folder, other, tmp_path, capsys
):
    suites = "robustness=[corruptions,affine]"
    outcome = evaluation(f"[{folder},{other}]", tmp_path, suites)
    first, second = outcome["robustness"]["networks"]
    assert first["network"] == str(folder)
    assert [row["clean"] for row in (first, second)] == [n["acc"] for n in outcome["networks"]]
    assert len(first["corruptions"]) == 16  # and their mean
    assert (tmp_path / "robustness.png").read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert "canny edges" in said
    assert "they are not the MNIST-C files" in said


def test_accuracy_without_the_wrong_labels_leaves_out_just_these(tested):
    outcome, out = tested
    left = outcome["without_wrong_labels"]
    assert left["images"] == 9_985
    with (out / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    skipped = mnist.WRONG_TEST_LABELS
    assert len(skipped) == 15
    errors = [r for r in rows if r["label"] != r["prediction"] and int(r["index"]) not in skipped]
    assert left["errors"] == len(errors)


def test_temperature_lowers_the_loss_on_validation_and_says_that_it_was_fitted_there(
    folder, tmp_path, capsys
):
    outcome = evaluation(folder, tmp_path, "split=val", "temperature=true", "mistakes=0")
    assert outcome["temperature"]["loss"] < outcome["loss"]
    assert outcome["temperature"]["value"] != pytest.approx(1, abs=1e-3)
    assert outcome["temperature"]["fitted_on"] == "val"
    assert "* fitted on these images: too good for others" in capsys.readouterr().out
    assert outcome["mistakes"] == []


@pytest.mark.slow
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
        ("split=tset", "split must be test, val or train, got tset"),
        ("temperature=2", "temperature must be true or false, got 2"),
        ("mistakes=-1", "mistakes must be a whole number >= 0, got -1"),
        ("shifts=-1", "shifts must be a whole number >= 0 and <= 4, got -1"),
        ("shifts=5", "shifts must be a whole number >= 0 and <= 4, got 5"),
        ("shifts=0.5", "shifts must be a whole number >= 0 and <= 4, got 0.5"),
        ("device=tpu", "device must be auto, cpu, cuda or mps, got tpu"),
        ("data.fold=10", "data.fold must be 0 to 9 with data.val_fraction=0.1, got 10"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(folder, override, line):
    cfg = compose(as_trained([f"ckpt_path={folder}", override]), run_dir=".", entry="evaluate")
    with pytest.raises(ValueError, match="must be") as refused:
        check(cfg, "evaluate")
    assert str(refused.value) == line


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of another architecture, normalisation and fold."""
    folder = tmp_path_factory.mktemp("other") / "run"
    differs = ["model=mlp", "model.mean=0.5", "model.std=0.25", "data.val_fraction=0.1"]
    train(compose([*SHORT, *differs, "logger=none"], run_dir=folder))
    return folder


@pytest.fixture(scope="module")
def sweep(folder: Path, other: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep: jobs 2 and 10 are finished, 3 failed after its first checkpoint."""
    sweep = tmp_path_factory.mktemp("sweeps") / "sweep"
    for job, run in (("10", other), ("2", folder), ("3", folder)):
        shutil.copytree(run, sweep / job)
    (sweep / "3" / "results.json").rename(sweep / "3" / "failed.json")
    (sweep / "multirun.yaml").touch()
    return sweep


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """The test images in [0, 1], (20, 500, 1, 28, 28), and their labels, (10000,)."""
    images, labels = mnist.load_split("mnist", compose(run_dir=".").data.root, "test")
    return images.view(20, 500, 1, 28, 28).float() / 255, labels


@torch.no_grad()
def probabilities(run: Path, x: torch.Tensor) -> torch.Tensor:
    """float64 (10000, 10), by hand."""
    net = pretrained.load(run)
    mean, std = (net.about["model"][key] for key in ("mean", "std"))
    net.net.normalize = torch.nn.Identity()
    return torch.cat([net.net((b - mean) / std).double().softmax(1) for b in x])


def nll(p: torch.Tensor, labels: torch.Tensor) -> float:
    return -p[torch.arange(len(p)), labels].log().mean().item()


def test_a_network_beside_itself_predicts_as_it_does_alone(folder, tested, tmp_path):
    shutil.copy(folder / "checkpoints" / "best.ckpt", tmp_path / "copy.ckpt")
    both = tmp_path / "both"
    twice = evaluation(f"[{folder},{tmp_path}/copy.ckpt]", both)
    alone, out = tested
    assert (both / "predictions.csv").read_bytes() == (out / "predictions.csv").read_bytes()
    for key in ("loss", "ece"):
        assert twice[key] == pytest.approx(alone[key], rel=1e-12)
    assert [part["acc"] for part in twice["networks"]] == [alone["acc"]] * 2
    assert twice["networks_acc"] == {"mean": alone["acc"], "std": 0}


def test_a_network_that_is_listed_twice_counts_once(folder, sweep):
    best = folder / "checkpoints" / "best.ckpt"
    (given,) = (a for a in as_trained([f"ckpt_path=[{folder},{best}]"]) if a[:4] == "ckpt")
    assert given == f"ckpt_path='{best}'"
    both = compose(as_trained([f"ckpt_path=[{sweep},{sweep}/2]"]), run_dir=".", entry="evaluate")
    assert len(both.ckpt_path) == 2


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["split=val", "data.fold=1"], "data.fold must be 3 with split=val, as in training, got 1"),
        (["split=train", "data.fold=1"], "data.fold must be 3 with split=train, as in training"),
        (["temperature=true", "data.fold=1"], "data.fold must be 3 with temperature=true, as in"),
        (["split=val", "data.val_fraction=0.2"], "data.val_fraction must be 0.1 with split=val"),
    ],
)
def test_images_that_training_has_seen_are_not_called_validation(folder, overrides, line):
    with pytest.raises(ValueError, match=f"^{line}"):
        evaluation(folder, Path("unused"), *overrides)


def test_a_network_that_was_validated_by_writers_is_evaluated_on_its_own_fold(tmp_path):
    by_writers = [
        "data.split=writers",
        "data.fold=1",
        "trainer.limit_val_batches=1.0",
        "logger=none",
    ]
    result = train(compose([*SHORT, *by_writers], run_dir=tmp_path / "run"))
    outcome = evaluation(tmp_path / "run", tmp_path / "out", "split=val")
    assert outcome["acc"] == result["val/acc"]
    with pytest.raises(ValueError, match=r"^data.split must be writers with split=val, as in"):
        evaluation(tmp_path / "run", tmp_path / "rows", "split=val", "data.split=rows")


def test_the_runs_own_data_folder_is_used_while_it_is_there(folder, data_root, tmp_path):
    content = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    content["datamodule_hyper_parameters"]["root"] = str(tmp_path / "own")
    torch.save(content, tmp_path / "x.ckpt")
    for there in (data_root, tmp_path / "own"):
        argv = as_trained([f"ckpt_path={tmp_path}/x.ckpt"])
        assert compose(argv, run_dir=".", entry="evaluate").data.root == str(there)
        (tmp_path / "own" / "MNIST").mkdir(parents=True, exist_ok=True)


def test_an_evaluation_does_not_overwrite_one_with_a_temperature(folder):
    def place(*overrides: str) -> str:
        argv = as_trained([f"ckpt_path={folder}", *overrides])
        return next(a for a in argv if a.startswith("hydra.run.dir"))

    assert (
        place("temperature=true")
        == f"hydra.run.dir='{folder}/evaluation/${{split}},temperature=true'"
    )
    assert place() != place("temperature=true")


def test_several_networks_predict_by_the_mean_of_their_probabilities(
    folder, other, digits, tmp_path, capsys
):
    outcome = evaluation(f"[{folder},{other}]", tmp_path)
    x, labels = digits
    each = torch.stack([probabilities(run, x) for run in (folder, other)])
    assert outcome["loss"] == pytest.approx(nll(each.mean(0), labels), rel=1e-12)
    assert outcome["errors"] == (each.mean(0).argmax(1) != labels).sum()
    errors = (each.argmax(2) != labels).sum(1)
    assert [part["errors"] for part in outcome["networks"]] == errors.tolist()
    accuracy = 1 - errors.double() / 10_000
    assert outcome["networks_acc"] == pytest.approx(
        {"mean": accuracy.mean().item(), "std": accuracy.std().item()}
    )
    files = [str(run / "checkpoints" / "best.ckpt") for run in (folder, other)]
    assert outcome["ckpt_path"] == [part["ckpt_path"] for part in outcome["networks"]] == files
    said = capsys.readouterr().out
    mean, std = outcome["networks_acc"].values()
    assert "mnist, test, 2 networks" in said
    assert f"{mean:.2%} ± {100 * std:.2f} (mean ± std)" in said


def test_the_mean_of_probabilities_is_exact_and_finite_where_they_vanish(folder, other, digits):
    x, labels = digits
    batches = BatchLoader(x.flatten(0, 1) * 255, labels, batch_size=500)
    nets = pretrained.load_all([folder, other])
    each = scores.predict_batches([net.net for net in nets], batches, torch.device("cpu"))
    by_hand = torch.stack([probabilities(run, x) for run in (folder, other)]).mean(0)
    ensemble = scores.ensemble(each)
    torch.testing.assert_close(ensemble.probabilities, by_hand, rtol=1e-12, atol=1e-15)
    sure = scores.average([torch.tensor([[0.0, 2000.0]]), torch.tensor([[0.0, 3000.0]])])
    assert sure.tolist() == [[pytest.approx(-2000 - math.log(2)), pytest.approx(0)]]


@pytest.mark.slow
def test_a_shift_of_one_is_the_mean_over_nine_shifted_copies(folder, other, digits, tmp_path):
    outcome = evaluation(f"[{folder},{other}]", tmp_path, "shifts=1")
    x, labels = digits
    moved = []
    for dx, dy in itertools.product((-1, 0, 1), repeat=2):
        copy = x.roll((dy, dx), (3, 4))
        if dy:  # what came round is made the background of the raw image
            copy[..., 0 if dy > 0 else -1, :] = 0
        if dx:
            copy[..., 0 if dx > 0 else -1] = 0
        moved.append(copy)
    each = torch.stack([torch.stack([probabilities(r, c) for c in moved]) for r in (folder, other)])
    assert outcome["loss"] == pytest.approx(nll(each.mean((0, 1)), labels), rel=1e-12)
    errors = (each.mean(1).argmax(2) != labels).sum(1)  # each network alone sees the shifts too
    assert [part["errors"] for part in outcome["networks"]] == errors.tolist()
    assert outcome["shifts"] == 1


def test_a_temperature_of_several_networks_is_that_of_their_mean(folder, tmp_path):
    last = folder / "checkpoints" / "last.ckpt"
    outcome = evaluation(f"[{folder},{last}]", tmp_path, "split=val", "temperature=true")
    assert outcome["images"] == 6_000
    assert outcome["temperature"]["loss"] < outcome["loss"]
    assert outcome["temperature"]["value"] != pytest.approx(1, abs=1e-3)


def test_a_sweeps_folder_stands_for_its_finished_runs_and_holds_their_evaluation(sweep, tmp_path):
    (place,) = (a for a in as_trained([f"ckpt_path={sweep}", "shifts=1"]) if a.startswith("hydra"))
    assert place == f"hydra.run.dir='{sweep}/evaluation/${{split}},shifts=1'"
    outcome = evaluation(sweep, tmp_path)
    files = [str(sweep / job / "checkpoints" / "best.ckpt") for job in ("2", "10")]
    assert outcome["ckpt_path"] == files
    assert evaluation(f"[{sweep},{sweep}/3]", tmp_path)["ckpt_path"][:2] == files


def test_a_list_is_evaluated_in_no_runs_folder_and_may_be_quoted(folder, other, tmp_path):
    shutil.copytree(folder, tmp_path / "a, b")
    argv = as_trained([f"ckpt_path=['{tmp_path}/a, b', \"{folder}\", {other}]"])
    assert not any(a.startswith("hydra.run.dir") for a in argv)
    paths = compose(argv, run_dir=".", entry="evaluate").ckpt_path
    runs = (tmp_path / "a, b", folder, other)
    assert paths == [str(run / "checkpoints" / "best.ckpt") for run in runs]


@pytest.mark.parametrize("override", ["split=val", "split=train", "temperature=true"])
def test_networks_of_different_folds_meet_on_the_test_images_alone(folder, other, override):
    with pytest.raises(
        ValueError, match=rf"data.fold \(3, 0\) must be split=test .*, got {override}"
    ):
        evaluation(f"[{folder},{other}]", Path("unused"), override)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("split=val", "split=val: training held out no images"),
        ("temperature=true", "temperature=true: nothing to fit it on: training held out no images"),
    ],
)
def test_without_validation_images_there_is_nothing_to_fit_on(folder, monkeypatch, override, line):
    setup = MNISTDataModule.setup

    def without_validation(self: MNISTDataModule, stage: str | None = None) -> None:
        setup(self, stage)
        del self.splits["val"], self.rows["val"]

    monkeypatch.setattr(MNISTDataModule, "setup", without_validation)
    with pytest.raises(ValueError, match=f"^{line}"):
        evaluation(folder, Path("unused"), override)


def test_what_cannot_be_evaluated_together_is_named(folder, tmp_path):
    def refused(ckpt_path: str) -> str:
        with pytest.raises(ValueError, match=r"^ckpt_path=") as error:
            as_trained([f"ckpt_path={ckpt_path}"])
        assert "\n" not in str(error.value)
        return str(error.value)

    assert refused("[]").startswith("ckpt_path=[]: no network")
    assert f"ckpt_path={tmp_path}/none: no such" in refused(f"[{folder},{tmp_path}/none]")
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "multirun.yaml").touch()
    assert refused(f"{tmp_path}/sweep").endswith("/sweep: a sweep of which no run is finished")
    content = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    content["datamodule_hyper_parameters"]["name"] = "kmnist"
    torch.save(content, tmp_path / "kmnist.ckpt")
    line = refused(f"[{folder},{tmp_path}/kmnist.ckpt]")
    assert "kmnist.ckpt must be trained on mnist, as" in line
    assert line.endswith("is, got kmnist")
    content["hyper_parameters"]["model"]["hidden"] = 5
    torch.save(content, tmp_path / "other.ckpt")
    assert "other.ckpt: not a checkpoint" in refused(f"[{folder},{tmp_path}/other.ckpt]")
    cfg = compose(
        [*as_trained([f"ckpt_path={folder}"]), "ckpt_path=[]"], run_dir=".", entry="evaluate"
    )
    with pytest.raises(ValueError, match=r"^ckpt_path must be text, a list"):
        check(cfg, "evaluate")


def test_a_wrong_key_is_answered_with_those_of_this_entry():
    from hydra.errors import ConfigCompositionException

    with pytest.raises(ConfigCompositionException) as refused:
        compose(["data.foldd=1"], run_dir=".", entry="evaluate")
    line = one_line(refused.value, "evaluate")
    assert line.startswith("error: data.foldd: no such key; did you mean data.fold?")


@pytest.mark.parametrize("group", ["model=mlp", "experiment=fast", "debug=default"])
def test_a_group_of_training_is_no_key_of_an_evaluation(group, monkeypatch):
    from hydra.errors import ConfigCompositionException

    monkeypatch.setattr(sys, "argv", ["evaluate", group])
    with pytest.raises(ConfigCompositionException) as refused:
        compose([group], run_dir=".", entry="evaluate")
    name = group.partition("=")[0]
    line = one_line(refused.value, "evaluate")
    assert line.startswith(f"error: {name}: no such key; allowed: hydra, targets, data, ckpt_path")


def test_a_path_without_a_key_is_answered_with_the_key(folder):
    from hydra.errors import OverrideParseException

    with pytest.raises(OverrideParseException) as refused:
        compose([str(folder)], run_dir=".", entry="evaluate")
    assert one_line(refused.value, "evaluate") == (
        f"error: an argument must be key=value, got {folder}; for the network or the run there, "
        f"ckpt_path={folder}"
    )


def test_tensorboard_has_the_network_the_digits_and_their_mistakes_by_itself(events):
    tags = events.Tags()
    assert tags["graph"]
    assert {"train/batch", "val/confusion", "val/mistakes"} <= set(tags["images"])
    assert {f"val/{digit}" for digit in range(10)} <= set(tags["tensors"])
    assert {"conv1/weight", "dense2/bias"} <= set(tags["histograms"])
    assert len(events.Histograms("conv1/weight")) == 2  # one an epoch
    drawn = {node.name: node for node in events.Graph().node}
    assert list(drawn)[:4] == [
        "x",
        "normalize/normalize_mean",
        "normalize/sub",
        "normalize/normalize_std",
    ]
    assert (drawn["conv1"].op, drawn["relu"].input) == ("Conv2d", ["max_pool2d"])
    (shape,) = drawn["relu"].attr["_output_shapes"].list.shape
    assert [dim.size for dim in shape.dim] == [1, 8, 13, 13]


def test_tensorboard_draws_the_layers_of_a_stage_inside_of_it():
    net = model.VGG(stages=[[4], [8]], channel_dropout=0.1, dropout=0.1).eval()
    drawn = tensorboard.graph(net, torch.zeros(1, 1, 28, 28)).node
    assert [node.name for node in drawn[:3]] == ["x", "layers/layers_0", "layers/layers_1"]
    assert [(node.op, list(node.input)) for node in drawn[-2:]] == [
        ("Linear", [drawn[-3].name]),
        ("output", [drawn[-2].name]),
    ]


def test_a_network_that_branches_on_its_images_has_no_graph_and_the_log_says_why(caplog, tmp_path):
    class Branching(torch.nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with SummaryWriter(tmp_path) as writer:
        tensorboard.add_graph(writer, Branching(), torch.zeros(1, 1, 28, 28))
    assert "torch.fx cannot trace the network: symbolically traced variables" in caplog.text
    assert not EventAccumulator(str(tmp_path)).Reload().Tags()["graph"]


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
