"""An evaluation agrees with its training, and TensorBoard with both."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from torch.nn.functional import one_hot

from mnist_cnn.analysis import evaluation as analysis
from mnist_cnn.analysis.evaluation import check_changes, on_corrected_labels, robustness_table
from mnist_cnn.analysis.networks import as_trained, network_files, output_folder
from mnist_cnn.analysis.scores import Predictions
from mnist_cnn.config.compose import compose, resolved, tutorial
from mnist_cnn.config.parse import Evaluation, parse
from mnist_cnn.data import mnist
from mnist_cnn.evaluate import evaluate, preflight
from mnist_cnn.module import DigitClassifier
from mnist_cnn.runs.folder import LOCK, PENDING, SWEEP, is_sweep
from mnist_cnn.train import train
from mnist_cnn.weights.files import SHIPPED
from tests.helpers.training import SHORT, save_untrained

# no default values, to detect those that are not taken from the checkpoint
TRAINED_ON = ["data.val_fraction=0.1", "data.fold=3"]
NET = ["model.channels=[8,16]", "model.hidden=32", "model.mean=0.1307", "model.std=0.3081"]
BEST = Path("checkpoints", "best.ckpt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a run that is validated and tested on every image."""
    folder = tmp_path_factory.mktemp("outputs") / "run"
    whole = ["trainer.limit_val_batches=1.0", "trainer.limit_test_batches=1.0"]
    train(compose([*SHORT, *whole, *TRAINED_ON, *NET], run_dir=folder, run_name="short"))
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a run with another architecture, normalisation, fold and split."""
    folder = tmp_path_factory.mktemp("other") / "run"
    differs = ["model=fast_cnn", "model.mean=0.5", "model.std=0.25", "data.val_fraction=0.1"]
    differs += ["data.split=writers", "data.per_class=100", "seed=3"]
    train(compose([*SHORT, *differs, "logger=none"], run_dir=folder))
    return folder


def composed(ckpt_path: Path | str, *overrides: str, run_dir: Path | str = "unused") -> Any:
    argv = [o for o in as_trained([f"ckpt_path={ckpt_path}", *overrides]) if o[:5] != "hydra"]
    return compose(argv, run_dir=run_dir, entry="evaluate")


def evaluation(ckpt_path: Path | str, run_dir: Path | str, *overrides: str) -> dict[str, Any]:
    return evaluate(composed(ckpt_path, *overrides, run_dir=run_dir))


@pytest.fixture(scope="module")
def tested(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """Evaluate on the test images, with temperature; return the outcome and the folder."""
    out = tmp_path_factory.mktemp("evaluation")
    return evaluation(folder, out, "temperature=true"), out


def test_it_agrees_to_the_last_image_with_the_runs_own_test(tested, folder):
    outcome, results = tested[0], json.loads((folder / "results.json").read_text())
    assert outcome["images"] == 10_000
    assert outcome["acc"] == results["test/acc"]
    for name, figures in outcome["labels"].items():
        assert figures["acc"] == results[f"test/acc_{name}"]
    assert outcome["loss"] == pytest.approx(results["test/loss"], rel=1e-5)


def test_it_validates_on_the_images_that_training_held_out(folder, tmp_path):
    outcome = evaluation(folder, tmp_path, "split=val", "data.eval_batch_size=100")
    assert outcome["acc"] == json.loads((folder / "results.json").read_text())["val/acc"]
    assert outcome["data"]["eval_batch_size"] == 100
    # fold 3 of 6,000 images, named by their rows in the training file, whose labels they have
    table = pd.read_csv(tmp_path / "predictions.csv")
    assert table["index"].tolist() == list(range(18_000, 24_000))
    labels = mnist.load_split("mnist", outcome["data"]["root"], "train")[1][18_000:24_000]
    assert table["label"].tolist() == labels.tolist()


def test_data_are_split_as_in_training_also_another_set(folder, other):
    data = composed(folder, "data=qmnist").data
    assert (data.name, data.val_fraction, data.fold, data.split) == ("qmnist", 0.1, 3, "rows")
    data = composed(other / "weights.safetensors").data
    assert (data.name, data.val_fraction, data.fold, data.split) == ("mnist", 0.1, 0, "writers")
    assert (data.per_class, data.seed) == (100, 3)


def test_another_set_has_its_own_folder_or_file(data_root, tmp_path):
    data = {"classes": list(mnist.DIGITS), "val_fraction": 0.1, "fold": 3, "root": str(tmp_path)}
    trained = {"mnist": data, "folder": data, "arrays": data | {"path": "a.npz"}}
    for name, described in trained.items():
        net = save_untrained(tmp_path / f"{name}.safetensors", described | {"name": name})
        digits = composed(net, "data=qmnist").data
        assert (digits.root, digits.val_fraction, digits.fold) == (str(data_root), 0.1, 3)
        arrays = composed(net, "data=arrays", "data.path=b.npz").data
        assert (arrays.path, arrays.val_fraction, arrays.fold) == ("b.npz", 0.1, 3)
        # the user's own may have none of these keys
        given = as_trained([f"ckpt_path={net}", "data=mine"])
        assert not [a for a in given if a.startswith("data.")]


def test_it_measures_on_the_images_that_were_trained_on(other, tmp_path):
    assert evaluation(other, tmp_path, "split=train")["images"] == 1000


def test_files_hold_what_was_measured(tested):
    outcome, folder = tested
    assert json.loads((folder / "evaluation.json").read_text()) == json.loads(json.dumps(outcome))
    table = pd.read_csv(folder / "predictions.csv")
    p = table.filter(regex=r"p\d")
    wrong = table["label"] != table["prediction"]
    assert (len(table), wrong.sum()) == (10_000, outcome["errors"])
    assert p.to_numpy().argmax(1).tolist() == table["prediction"].tolist()
    first = outcome["mistakes"][0]
    assert first["confidence"] == pytest.approx(p[wrong].to_numpy().max(), rel=1e-5)
    assert str(table["label"][first["index"]]) == first["label"] != first["prediction"]
    for name in ("confusion", "mistakes", "reliability", "writers"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_writers_and_the_worst_tenth_of_them_add_up(tested):
    outcome, out = tested
    known, table = outcome["writers"], pd.read_csv(out / "writers.csv")
    low, high = known["acc_95"]
    assert low < outcome["acc"] < high
    assert known["writers"] == len(table) == 297
    assert table["errors"].sum() == outcome["errors"]
    worst = known["worst_decile"]
    assert worst == {"writers": 30, "mean_acc": pytest.approx(table["acc"][:30].mean())}


def test_a_network_is_compared_with_another_on_the_same_images(folder, other, tested, tmp_path):
    # the networks' validation splits differ: the temperature is fitted for the first
    outcome = evaluation(folder, tmp_path, f"compare={other}", "temperature=true")
    assert outcome["temperature"] == tested[0]["temperature"]
    compared = outcome["compare"]
    difference = compared["difference"]
    assert difference == pytest.approx(tested[0]["acc"] - compared["acc"])
    assert compared["over"] == "writers"
    assert compared["difference_95"][0] < difference < compared["difference_95"][1]


@pytest.mark.slow
def test_robustness_is_in_the_evaluation_and_on_screen(folder, other, tmp_path, capsys):
    outcome = evaluation(f"[{folder},{other}]", tmp_path, "robustness=[corruptions]")
    networks = outcome["robustness"]["networks"]
    assert [row["clean"] for row in networks] == [n["acc"] for n in outcome["networks"]]
    assert "corruptions canny_edges" in capsys.readouterr().out


def test_a_figure_that_a_network_does_not_have_is_no_number():
    networks = [
        {"network": "a", "clean": 0.5, "certified": {"0.1": 0.25}},
        {"network": "b", "clean": 0.5, "certified": {"unknown": "no bounds"}},
    ]
    table = robustness_table(networks).set_index("condition").T.to_dict()
    assert table["certified 0.1"] == {"a": "25.00%", "b": "-"}
    assert table["certified unknown"] == {"a": "-", "b": "no bounds"}


def test_temperature_is_fitted_on_validation_where_it_lowers_the_loss(folder, tmp_path):
    outcome = evaluation(folder, tmp_path, "split=val", "temperature=true", "mistakes=0")
    assert outcome["temperature"]["loss"] < outcome["loss"]
    assert outcome["temperature"]["value"] != pytest.approx(1, abs=1e-3)
    assert outcome["mistakes"] == []


@pytest.mark.slow
def test_the_program_replaces_its_own_files_and_leaves_no_folder_for_a_wrong_value(
    folder, tmp_path
):
    def run(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mnist_cnn.evaluate", *args]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    last = f"ckpt_path={folder}/checkpoints/last.ckpt"
    assert [run(last).returncode, run(last).returncode] == [0, 0]
    out = folder / "evaluation" / "test,last"
    assert (out / "evaluation.json").is_file()
    done = run("-m", f"ckpt_path={folder}", "split=val,test", f"hydra.sweep.dir={tmp_path}/s")
    assert done.returncode == 0
    assert len(list((tmp_path / "s").glob("*/evaluation.json"))) == 2
    assert is_sweep(tmp_path / "s")
    assert not (tmp_path / "s" / PENDING).exists()
    for key, *wrong in (("shifts", "shifts=9"), ("data.fold", "split=val", "data.fold=1")):
        refused = run(f"ckpt_path={folder}", *wrong)
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        assert key in refused.stderr
    assert list((folder / "evaluation").iterdir()) == [out]


@pytest.mark.parametrize("name", ["thesis.txt", "predictions.csv", ".lock", ".hydra/config.yaml"])
def test_no_folder_is_filled_that_holds_anything_else(folder, tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("trainer: {}")
    with pytest.raises(ValueError, match=r"^run_dir must be a new or empty folder"):
        evaluation(folder, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [Path(name).parts[0]]


def test_nothing_is_written_through_a_link(folder, tmp_path):
    out, mine = tmp_path / "out", tmp_path / "mine"
    mine.write_text("kept")
    evaluation(folder, out)
    names = ["predictions.csv", "confusion.png", ".hydra/config.yaml", "evaluation.new"]
    for name in names:
        (out / name).unlink(missing_ok=True)
        (out / name).symlink_to(mine)
    evaluation(folder, out)
    assert mine.read_text() == "kept"
    assert not any((out / name).is_symlink() for name in names)


def test_another_program_s_evaluation_is_not_replaced(folder, tmp_path):
    (tmp_path / "evaluation.json").write_text('{"acc": 1}')
    with pytest.raises(ValueError, match=r"evaluation\.json exists and is not of this command"):
        evaluation(folder, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.json"]


def test_a_folder_in_which_nothing_could_be_written_can_be_taken_again(
    folder, tmp_path, monkeypatch
):
    def full(content, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(analysis, "write_json", full)
    with pytest.raises(OSError, match="No space"):
        evaluation(folder, tmp_path)
    monkeypatch.undo()
    assert evaluation(folder, tmp_path)["images"] == 10_000


@pytest.mark.parametrize(
    "override",
    [
        *("split=tset", "temperature=2", "mistakes=-1", "mistakes=301", "shifts=5"),
        *("seed=x", "seed=-1", "targets=[a-b]"),
    ],
)
def test_a_wrong_value_is_named(folder, override):
    with pytest.raises(ValueError, match=f"^{override.split('=')[0]}\\b.*, got"):
        parse(resolved(composed(folder, override)), Evaluation)


def test_a_network_without_an_output_for_each_class_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(analysis, "check_fits", lambda model, data: None)  # as a user's own is not
    net = DigitClassifier(model={**tutorial("model"), "channels": [4, 4], "classes": 12})
    net.save_weights(tmp_path / "net.safetensors", {"data": {"name": "Mine", "classes": None}})
    with pytest.raises(ValueError, match=r"networks with 10 outputs, .*net\.safetensors with 12"):
        evaluate(composed(tmp_path / "net.safetensors", "data=mnist", run_dir=tmp_path / "out"))


def test_what_draws_on_black_is_not_measured_with_dark_digits(folder):
    nets: Any = [SimpleNamespace(is_on_light=True)]
    data: Any = SimpleNamespace(shape=(1, 28, 28))
    for asked, refused in (("true", "corruptions, outliers"), ("[certified,outliers]", "outliers")):
        config = parse(resolved(composed(folder, f"robustness={asked}")), Evaluation)
        with pytest.raises(ValueError, match=rf"\[adversarial, certified\] .*, got {refused}$"):
            check_changes(config, nets, data)
    fine = parse(resolved(composed(folder, "robustness=[adversarial,certified]")), Evaluation)
    check_changes(fine, nets, data)


def test_several_networks_are_evaluated_as_one_and_each_alone(folder, other, tested, tmp_path):
    outcome = evaluation(f"[{folder},{other}]", tmp_path)
    files = [str(run / BEST) for run in (folder, other)]
    assert outcome["ckpt_path"] == [part["ckpt_path"] for part in outcome["networks"]] == files
    first, second = (part["acc"] for part in outcome["networks"])
    assert first == tested[0]["acc"]
    assert len({first, second, outcome["acc"]}) == 3


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["split=val", "data.fold=1"], "data.fold must be 3 with split=val"),
        (["temperature=true", "data.fold=1"], "data.fold must be 3 with temperature=true"),
        (["split=train", "data.val_fraction=0.2"], "data.val_fraction must be 0.1 with split=tr"),
        (["split=val", "compare=OTHER"], "data.fold must be 0 with split=val, as in training"),
    ],
)
def test_images_that_training_has_seen_are_not_called_validation(
    folder, other, tmp_path, overrides, line
):
    with pytest.raises(ValueError, match=f"^{line}"):
        evaluation(folder, tmp_path, *(o.replace("OTHER", str(other)) for o in overrides))


def test_what_does_not_fit_is_refused_before_a_folder_is_made(tmp_path):
    data: dict[str, Any] = {"name": "mnist", "classes": list(mnist.DIGITS)}
    data |= {"val_fraction": 0.2, "fold": 0, "split": "rows"}
    net = save_untrained(tmp_path / "net.safetensors", data)
    for override, line in (
        (["split=val", "data.fold=1"], r"data\.fold must be 0 with split=val"),
        (["temperature=true", "data.fold=1"], r"data\.fold must be 0 with temperature=true"),
        (["data=kmnist"], r"label 0 of data\.name=kmnist must be 0, as in training, got o"),
        ([f"compare={tmp_path}/none"], r"compare=\S+none: no such checkpoint"),
    ):
        with pytest.raises(ValueError, match=f"^{line}"):
            preflight(composed(net, *override))


def test_the_runs_own_data_folder_is_used_while_it_is_there(folder, data_root, tmp_path):
    content = torch.load(folder / BEST, weights_only=True)
    content["datamodule_hyper_parameters"]["root"] = str(tmp_path / "own")
    torch.save(content, tmp_path / "x.ckpt")
    assert composed(tmp_path / "x.ckpt").data.root == str(data_root)
    (tmp_path / "own" / "MNIST").mkdir(parents=True)
    assert composed(tmp_path / "x.ckpt").data.root == str(tmp_path / "own")


def test_a_sweeps_folder_stands_for_its_finished_runs(folder, tmp_path):
    jobs = [tmp_path / f"seed_{seed}" for seed in (1, 2, 3)]
    for job in jobs:
        shutil.copytree(folder, job)
    for name in (SWEEP, LOCK):
        (tmp_path / name).touch()
    (jobs[2] / "results.json").rename(jobs[2] / "failed.json")
    files = [str(job / BEST) for job in jobs]
    assert composed(tmp_path).ckpt_path == files[:2]
    assert composed(f"['{tmp_path}', \"{files[0]}\", {jobs[2]}]").ckpt_path == files  # each once


def test_without_a_path_the_network_of_the_package_is_evaluated_in_any_folder(
    tmp_path, monkeypatch
):
    for name in (SWEEP, LOCK):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert network_files(None) == [SHIPPED.resolve()]
    with pytest.raises(ValueError, match=r"must be a path or a list of paths, got \['x'\]"):
        network_files([["x"]])


def test_an_evaluation_has_a_folder_of_its_own_in_that_of_the_run(folder, other, tmp_path):
    shutil.copy(folder / "weights.safetensors", tmp_path)
    start = f"hydra.run.dir='{folder}/evaluation/${{split}}"
    for argv, place in (
        ([f"ckpt_path={folder}"], [f"{start}'"]),
        ([f"ckpt_path={folder}", "shifts=1"], [f"{start},shifts=1'"]),
        ([f"ckpt_path={folder}", "compare=null", "shifts=0"], [f"{start}'"]),  # the defaults
        ([f"ckpt_path={folder}/checkpoints/last.ckpt"], [f"{start},last'"]),
        ([f"ckpt_path=[{folder},{other}]"], []),
        ([f"ckpt_path={tmp_path}"], []),
    ):
        assert [a for a in as_trained(argv) if a.startswith("hydra.run.dir=")] == place
    paths = ("x/y", "x_y", "x" * 200, "x" * 200 + "y")
    assert len({str(output_folder(folder / BEST, [f"compare={path}"])) for path in paths}) == 4
    forced = ("shifts=1", "shifts=0", "++shifts=1", "+data.x=1", "++data.root=x")
    assert len({str(output_folder(folder / BEST, [override])) for override in forced}) == 5


@pytest.mark.parametrize(
    ("ckpt_path", "line"),
    [
        ("TMP", "no such checkpoint"),
        ("TMP/notes.txt", "not a checkpoint or weights"),
        ("TMP/sweep", "no network"),
        ("[]", "no network"),
        ("[RUN,TMP/none]", "none: no such"),
    ],
)
def test_what_cannot_be_evaluated_is_named(folder, tmp_path, ckpt_path, line):
    (tmp_path / "notes.txt").write_text("no network")
    (tmp_path / "sweep").mkdir()
    for name in (SWEEP, LOCK):
        (tmp_path / "sweep" / name).touch()
    given = ckpt_path.replace("TMP", str(tmp_path)).replace("RUN", str(folder))
    with pytest.raises(ValueError, match=rf"^ckpt_path=.*{line}.*$"):
        as_trained([f"ckpt_path={given}"])


def test_wrong_labels_are_left_out_or_put_right():
    labels = mnist.load_split("mnist", "", "test")[1]
    given = on_corrected_labels(Predictions(one_hot(labels), labels))
    assert (given["sound"]["images"], given["sound"]["errors"]) == (9985, 0)
    assert (given["corrected"]["images"], given["corrected"]["errors"]) == (9995, 10)
    right = labels.clone()
    right[list(mnist.CORRECTED)] = torch.tensor(list(mnist.CORRECTED.values()))
    assert on_corrected_labels(Predictions(one_hot(right), labels))["corrected"]["errors"] == 0
