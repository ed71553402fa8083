"""An evaluation agrees with the training that it follows, and TensorBoard with both."""

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from mnist_cnn import pretrained
from mnist_cnn.analysis.networks import as_trained
from mnist_cnn.config.check import check
from mnist_cnn.config.compose import compose
from mnist_cnn.data import mnist
from mnist_cnn.evaluate import evaluate
from mnist_cnn.train import train
from tests.helpers.training import SHORT

# nothing of the defaults, so that a value that is not taken from the checkpoint shows
TRAINED_ON = ["data.val_fraction=0.1", "data.fold=3"]
NET = ["model.channels=[8,16]", "model.hidden=32", "model.mean=0.1307", "model.std=0.3081"]
BEST = Path("checkpoints", "best.ckpt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was validated and tested on every image."""
    folder = tmp_path_factory.mktemp("outputs") / "run"
    whole = ["trainer.limit_val_batches=1.0", "trainer.limit_test_batches=1.0"]
    cfg = compose([*SHORT, *whole, *TRAINED_ON, *NET], run_dir=folder, run_name="short")
    train(cfg)
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of another architecture, normalisation and fold."""
    folder = tmp_path_factory.mktemp("other") / "run"
    differs = ["model=fast_cnn", "model.mean=0.5", "model.std=0.25", "data.val_fraction=0.1"]
    train(compose([*SHORT, *differs, "logger=none"], run_dir=folder))
    return folder


@pytest.fixture(scope="module")
def sweep(folder: Path, other: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep: seeds 2 and 10 are finished, 3 failed after its first checkpoint."""
    sweep = tmp_path_factory.mktemp("sweeps") / "sweep"
    for seed, run in ((10, other), (2, folder), (3, folder)):
        shutil.copytree(run, sweep / f"optimizer.lr_0.001-seed_{seed}")
    failed = sweep / "optimizer.lr_0.001-seed_3"
    (failed / "results.json").rename(failed / "failed.json")
    (sweep / "sweep.yaml").touch()
    return sweep


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def composed(ckpt_path: Path | str, *overrides: str, run_dir: Path | str = "unused") -> Any:
    argv = [o for o in as_trained([f"ckpt_path={ckpt_path}", *overrides]) if o[:5] != "hydra"]
    return compose(argv, run_dir=run_dir, entry="evaluate")


def evaluation(ckpt_path: Path | str, run_dir: Path | str, *overrides: str) -> dict[str, Any]:
    return evaluate(composed(ckpt_path, *overrides, run_dir=run_dir))


def place(ckpt_path: Path | str, *overrides: str) -> list[str]:
    """The override of the output folder, if the command line gets one."""
    argv = as_trained([f"ckpt_path={ckpt_path}", *overrides])
    return [a.removeprefix("hydra.run.dir=") for a in argv if a.startswith("hydra.run.dir=")]


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
    outcome = evaluation(folder, tmp_path, "split=val", "data.eval_batch_size=100")
    assert outcome["images"] == 6_000
    assert outcome["acc"] == results["val/acc"]
    assert outcome["data"]["eval_batch_size"] == 100
    assert outcome["without_wrong_labels"] is None  # they are known of the test images only
    # fold 3 of 6,000: named by their row in the training file, whose labels they carry
    table = pd.read_csv(tmp_path / "predictions.csv")
    assert table["index"].tolist() == list(range(18_000, 24_000))
    labels = mnist.load_split("mnist", outcome["data"]["root"], "train")[1][18_000:24_000]
    assert table["label"].tolist() == labels.tolist()


def test_weights_alone_are_evaluated_as_the_checkpoint_is(folder, tested, tmp_path):
    shutil.copy(folder / "weights.safetensors", tmp_path)
    outcome = evaluation(tmp_path / "weights.safetensors", tmp_path / "out")
    assert outcome["acc"] == tested[0]["acc"]
    assert outcome["data"]["val_fraction"] == 0.1


def test_another_set_is_split_as_the_networks_own(folder):
    data = composed(folder, "data=qmnist").data
    assert (data.name, data.val_fraction, data.fold) == ("qmnist", 0.1, 3)


def test_files_hold_what_was_measured(tested):
    outcome, folder = tested
    assert json.loads((folder / "evaluation.json").read_text()) == json.loads(json.dumps(outcome))
    table = pd.read_csv(folder / "predictions.csv")
    p = table.filter(regex=r"p\d")
    wrong = table["label"] != table["prediction"]
    assert (len(table), wrong.sum()) == (10_000, outcome["errors"])
    assert p.sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-4)
    assert p.to_numpy().argmax(1).tolist() == table["prediction"].tolist()
    sound = ~table["index"].isin(mnist.WRONG_TEST_LABELS)
    left = outcome["without_wrong_labels"]
    assert (left["images"], left["errors"]) == (9_985, wrong[sound].sum())
    first = outcome["mistakes"][0]
    assert first["confidence"] == pytest.approx(p[wrong].to_numpy().max(), rel=1e-5)
    assert str(table["label"][first["index"]]) == first["label"] != first["prediction"]
    for name in ("confusion", "mistakes", "reliability", "writers"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_what_each_writer_gets_adds_up(tested):
    outcome, out = tested
    known = outcome["writers"]
    assert [part["series"] for part in known["series"]] == ["employees", "students"]
    assert [part["images"] for part in known["series"]] == [4_999, 5_001]
    assert sum(part["errors"] for part in known["series"]) == outcome["errors"]
    low, high = known["acc_95"]
    assert low < outcome["acc"] < high
    table = pd.read_csv(out / "writers.csv")
    assert known["writers"] == len(table) == 297
    assert table["errors"].sum() == outcome["errors"]
    worst = known["worst_decile"]
    assert worst["writers"] == 30
    mean = table["acc"][:30].mean()
    assert worst["mean_acc"] == pytest.approx(mean)
    assert mean < worst["mean_acc_by_chance"] < outcome["acc"]


def test_a_network_is_compared_with_another_on_the_same_images(folder, other, tmp_path):
    outcome = evaluation(folder, tmp_path / "a", f"compare={other}")
    compared, both = outcome["compare"], outcome["compare"]["difference"]
    assert both == pytest.approx(outcome["acc"] - compared["acc"])
    assert compared["over"] == "writers"
    assert compared["difference_95"][0] < both < compared["difference_95"][1]
    gap = compared["first_alone_right"] - compared["second_alone_right"]
    assert gap == round(10_000 * both)
    itself = evaluation(folder, tmp_path / "b", f"compare={folder}/{BEST}")
    assert itself["compare"]["difference_95"] == (0, 0)
    assert itself["compare"]["mcnemar_p"] == 1


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
    assert "corruptions canny_edges" in capsys.readouterr().out
    evaluation(folder, tmp_path)
    assert not (tmp_path / "robustness.png").exists()  # it was of the evaluation before


def test_temperature_lowers_the_loss_on_validation_and_says_that_it_was_fitted_there(
    folder, tmp_path, capsys
):
    given = f"[{folder},{folder}/checkpoints/last.ckpt]"
    outcome = evaluation(given, tmp_path, "split=val", "temperature=true", "mistakes=0")
    assert outcome["images"] == 6_000
    assert outcome["temperature"]["loss"] < outcome["loss"]
    assert outcome["temperature"]["value"] != pytest.approx(1, abs=1e-3)
    assert outcome["temperature"]["fitted_on"] == "val"
    assert "fitted on these images" in capsys.readouterr().out
    assert outcome["mistakes"] == []


@pytest.mark.slow
def test_the_program_replaces_its_own_files_and_leaves_no_folder_where_it_refuses(folder, tmp_path):
    def run(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mnist_cnn.evaluate", *args]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    last = f"ckpt_path={folder}/checkpoints/last.ckpt"
    for _ in range(2):
        assert run(last).returncode == 0
    out = folder / "evaluation" / "test,last"
    assert (out / "evaluation.json").is_file()
    assert (out / ".hydra" / "config.yaml").is_file()
    for _ in range(2):
        done = run("-m", f"ckpt_path={folder}", "split=val,test", f"hydra.sweep.dir={tmp_path}/s")
        assert done.returncode == 0
    assert len(list((tmp_path / "s").glob("*/evaluation.json"))) == 2
    refused = run(f"ckpt_path={folder}", "split=val", "data.fold=1")
    assert refused.returncode == 1
    assert "data.fold must be 3" in refused.stderr
    assert sorted(path.name for path in (folder / "evaluation").iterdir()) == ["test,last"]


@pytest.mark.parametrize("name", ["thesis.txt", "predictions.csv", ".lock", ".hydra/config.yaml"])
def test_no_folder_is_filled_that_holds_anything_else(folder, tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("trainer: {}")
    with pytest.raises(ValueError, match=r"^run_dir must be a new or empty folder"):
        evaluation(folder, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [Path(name).parts[0]]


@pytest.mark.parametrize(
    "override", ["split=tset", "temperature=2", "mistakes=-1", "shifts=5", "device=tpu"]
)
def test_a_wrong_value_is_named(folder, override):
    with pytest.raises(ValueError, match=f"^{override.split('=')[0]}\\b.*, got"):
        check(composed(folder, override), "evaluate")


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
    mean, std = accuracy.mean().item(), accuracy.std().item()
    assert outcome["networks_acc"] == pytest.approx({"mean": mean, "std": std})
    files = [str(run / BEST) for run in (folder, other)]
    assert outcome["ckpt_path"] == [part["ckpt_path"] for part in outcome["networks"]] == files
    assert f"{mean:.2%} ± {100 * std:.2f} (mean ± std)" in capsys.readouterr().out


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


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["split=val", "data.fold=1"], "data.fold must be 3 with split=val"),
        (["temperature=true", "data.fold=1"], "data.fold must be 3 with temperature=true"),
        (["split=train", "data.val_fraction=0.2"], "data.val_fraction must be 0.1 with split=tr"),
    ],
)
def test_images_that_training_has_seen_are_not_called_validation(folder, tmp_path, overrides, line):
    with pytest.raises(ValueError, match=f"^{line}"):
        evaluation(folder, tmp_path, *overrides)


@pytest.mark.parametrize("override", ["split=val", "split=train", "temperature=true"])
def test_networks_of_different_folds_meet_on_the_test_images_alone(
    folder, other, tmp_path, override
):
    with pytest.raises(ValueError, match=rf"^{override}: .* data.fold \(3, 0\) share no images"):
        evaluation(f"[{folder},{other}]", tmp_path / "out", override)


def test_a_network_that_was_validated_by_writers_is_evaluated_on_its_own_fold(tmp_path):
    by_writers = ["data.split=writers", "data.fold=1", "trainer.limit_val_batches=1.0"]
    cfg = compose([*SHORT, *by_writers, "logger=none"], run_dir=tmp_path / "run")
    result = train(cfg)
    outcome = evaluation(tmp_path / "run", tmp_path / "out", "split=val")
    assert outcome["acc"] == result["val/acc"]
    with pytest.raises(ValueError, match=r"^data.split must be writers with split=val, as in"):
        evaluation(tmp_path / "run", tmp_path / "rows", "split=val", "data.split=rows")


def test_the_runs_own_data_folder_is_used_while_it_is_there(folder, data_root, tmp_path):
    content = torch.load(folder / BEST, weights_only=True)
    content["datamodule_hyper_parameters"]["root"] = str(tmp_path / "own")
    torch.save(content, tmp_path / "x.ckpt")
    assert composed(tmp_path / "x.ckpt").data.root == str(data_root)
    (tmp_path / "own" / "MNIST").mkdir(parents=True)
    assert composed(tmp_path / "x.ckpt").data.root == str(tmp_path / "own")


def test_a_sweeps_folder_stands_for_its_finished_runs(sweep):
    files = [str(sweep / f"optimizer.lr_0.001-seed_{seed}" / BEST) for seed in (2, 10)]
    assert composed(sweep).ckpt_path == files
    failed = f"{sweep}/optimizer.lr_0.001-seed_3"
    assert composed(f"[{sweep},{failed}]").ckpt_path == [*files, f"{failed}/{BEST}"]
    quoted = f"['{sweep}', \"{files[0]}\"]"
    assert composed(quoted).ckpt_path == files  # each once


def test_an_evaluation_has_a_folder_of_its_own_in_that_of_the_run_or_the_sweep(
    folder, other, sweep, tmp_path
):
    assert place(folder) == [f"'{folder}/evaluation/${{split}}'"]
    assert place(folder, "shifts=1") == [f"'{folder}/evaluation/${{split}},shifts=1'"]
    assert place(folder, "compare=x/y") == [f"'{folder}/evaluation/${{split}},compare=x_y'"]
    assert place(f"{folder}/checkpoints/last.ckpt") == [f"'{folder}/evaluation/${{split}},last'"]
    assert place(sweep) == [f"'{sweep}/evaluation/${{split}}'"]
    job = sweep / "optimizer.lr_0.001-seed_2"
    assert place(job) == [f"'{job}/evaluation/${{split}}'"]
    assert place(f"[{folder},{other}]") == []
    shutil.copy(folder / "weights.safetensors", tmp_path)
    assert place(tmp_path) == []


def test_what_cannot_be_evaluated_is_named(folder, tmp_path):
    def refused(ckpt_path: Path | str) -> str:
        with pytest.raises(ValueError, match=r"^ckpt_path=") as error:
            as_trained([f"ckpt_path={ckpt_path}"])
        assert "\n" not in str(error.value)
        return str(error.value)

    assert f"{tmp_path}: no such checkpoint" in refused(tmp_path)
    (tmp_path / "notes.txt").write_text("no network")
    assert "notes.txt: not a checkpoint or weights" in refused(tmp_path / "notes.txt")
    assert "[]: no network" in refused("[]")
    assert f"{tmp_path}/none: no such" in refused(f"[{folder},{tmp_path}/none]")
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.yaml").touch()
    assert refused(f"{tmp_path}/sweep").endswith("/sweep: a sweep of which no run is finished")
    content = torch.load(folder / BEST, weights_only=True)
    content["datamodule_hyper_parameters"]["name"] = "kmnist"
    torch.save(content, tmp_path / "kmnist.ckpt")
    assert "must be trained on mnist" in refused(f"[{folder},{tmp_path}/kmnist.ckpt]")
