"""Exported files reproduce the network's probabilities in other programs, or are not written."""

import copy
import html
import json
import math
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from mnist_cnn.analysis.networks import trained_on
from mnist_cnn.config import compose
from mnist_cnn.config.messages import install
from mnist_cnn.data import mnist
from mnist_cnn.export import export, main
from mnist_cnn.exporting.folder import new_files
from mnist_cnn.exporting.formats import FORMATS, describe
from mnist_cnn.reading.networks import network_of
from mnist_cnn.train import train
from mnist_cnn.weights import predictor
from mnist_cnn.weights.files import write_weights
from tests.helpers import process
from tests.helpers.process import environment

# a normalisation other than the identity, to detect a file without it
TRAINING = [
    *("trainer.accelerator=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=150"),
    *("trainer.limit_val_batches=1", "model.channels=[8,16]", "model.hidden=32"),
    *("model.mean=0.1307", "model.std=0.3081", "test=false"),
]
PACKAGES = ("onnx", "onnxscript", "onnxruntime", "py_mini_racer")  # of the extra `export`


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(compose.compose(TRAINING, run_dir=folder))
    return folder


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    return mnist.load_split("mnist", "unused", "test")[0][2000:2300]


@pytest.fixture(scope="module")
def truth(trained_run, digits) -> np.ndarray:
    """Return the network's own probabilities (300, 10)."""
    return predictor.load(trained_run)(digits).numpy()


def refusal(*args: Any) -> str:
    """Return the error line of the command."""
    with pytest.raises(SystemExit) as exit:
        main([*map(str, args)])
    assert isinstance(exit.value.code, str)  # Python prints it and exits with 1
    assert "\n" not in exit.value.code
    return exit.value.code


@pytest.fixture(scope="module")
def exported(trained_run, tmp_path_factory) -> Path:
    """Export all formats with the command, and return their folder."""
    for package in PACKAGES:
        pytest.importorskip(package, reason=f"{package} comes with the extra export")
    folder = tmp_path_factory.mktemp("exported")
    main([f"ckpt_path={trained_run}", "--out", str(folder)])
    assert sorted(path.suffix[1:] for path in folder.iterdir()) == sorted(FORMATS)
    return folder


def test_the_onnx_file_alone_gives_the_probabilities_of_any_number_of_images(
    exported, tmp_path, digits, truth
):
    import onnxruntime

    shutil.copy(exported / "mnist_cnn.onnx", tmp_path)  # without other files
    session = onnxruntime.InferenceSession(str(tmp_path / "mnist_cnn.onnx"))
    (images,), (probabilities,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(uint8)", ["N", 28, 28])
    assert (probabilities.name, probabilities.shape) == ("probabilities", ["N", 10])
    for n in (0, 1, 3, 300):
        (found,) = session.run(None, {"images": digits[:n].numpy()})
        np.testing.assert_allclose(found, truth[:n], rtol=0, atol=1e-5)


def test_the_pt2_file_runs_where_this_project_is_not(exported, tmp_path, digits, truth):
    np.save(tmp_path / "digits.npy", digits.numpy())
    code = """
import sys
sys.modules["mnist_cnn"] = None  # importing it fails
import numpy, torch
model = torch.export.load(sys.argv[1]).module()
images = torch.from_numpy(numpy.load("digits.npy"))
numpy.save("found.npy", torch.cat([model(images[:1]), model(images[1:])]).numpy())
"""
    command = [sys.executable, "-I", "-W", "error", "-c", code, str(exported / "mnist_cnn.pt2")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), truth, rtol=0, atol=1e-5)


def test_the_weights_load_again(exported, digits, truth):
    found = predictor.load(exported / "mnist_cnn.safetensors")(digits)
    np.testing.assert_allclose(found, truth, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("kind", "factor"), [("pt2", 1.001), ("pt2", math.nan), ("html", 1.001)])
def test_a_file_that_gives_something_else_is_not_written(
    kind, factor, trained_run, tmp_path, monkeypatch
):
    write, run = FORMATS[kind]

    def write_other_weights(net: predictor.Trained, path: Path) -> None:
        other = copy.deepcopy(net)
        other.get_parameter("net.dense2.weight").mul_(factor)
        write(other, path)

    monkeypatch.setitem(FORMATS, kind, (write_other_weights, run))
    line = refusal(f"ckpt_path={trained_run}", "--format", kind, "--out", tmp_path)
    assert line.startswith(f"error: mnist_cnn.{kind} is not written: its probabilities must")
    assert not list(tmp_path.iterdir())


class Fixed(torch.nn.Module):
    def forward(self, x):
        return torch.stack([image.flatten()[:10] for image in x])


def test_a_network_that_fixes_the_number_of_images_is_refused_in_one_line(tmp_path):
    net = predictor.Trained(Fixed(), mnist.DIGITS, {"data": {"name": "mnist"}})
    with pytest.raises(ValueError, match=r"^mnist_cnn\.pt2 is not written: .*N") as refused:
        export(net, ["pt2"], tmp_path)
    assert "\n" not in str(refused.value)


def test_a_network_that_fails_for_its_images_is_refused_for_the_page(tmp_path):
    about = {"data": {"name": "pictures", "shape": (1, 20, 20)}}
    net = predictor.Trained(torch.nn.Linear(7, 5), tuple("abcde"), about)
    with pytest.raises(ValueError, match="shapes"):
        network_of(net)


def test_a_folder_in_the_home_folder_is_written_to(trained_run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    main([f"ckpt_path={trained_run}", "--format", "safetensors", "--out=~/page"])
    assert (tmp_path / "page" / "mnist_cnn.safetensors").exists()


def test_the_network_given_stays_as_it_is(trained_run, tmp_path):
    net = predictor.load(trained_run)
    export(net, ["safetensors", "safetensors"], str(tmp_path / "out"))
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mnist_cnn.safetensors"]
    assert all(weight.requires_grad for weight in net.parameters())


def test_a_network_in_training_mode_is_exported_as_it_predicts(trained_run, tmp_path):
    net = predictor.load(trained_run)
    net.train()
    assert export(net, ["safetensors"], tmp_path / "out")["mnist_cnn.safetensors"] < 1e-6
    assert net.training


def test_the_weights_say_what_images_they_take_and_not_where_those_are(trained_run, tmp_path):
    trained = predictor.load(trained_run)
    data = {"name": "mine", "path": "/home/me/a.npz", "shape": [1, 28, 28], "on_light": True}
    about = {**trained.about, "data": data | {"color": False}}
    net = predictor.Trained(trained.net, mnist.DIGITS, about)
    export(net, ["safetensors"], tmp_path / "out")
    again = predictor.load(tmp_path / "out" / "mnist_cnn.safetensors")
    assert again.is_on_light
    assert not again.reads_digits
    assert "data=arrays" in trained_on(again.about["data"], None, None)
    assert "/home/me" not in json.dumps(again.about)


class Own(torch.nn.Sequential):
    """A network of the user's."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(784, 10))


def test_weights_of_a_network_of_the_user_s_are_written_from_python(tmp_path):
    about = {"model": {"_target_": f"{__name__}.Own"}, "data": {"name": "mnist"}}
    write_weights(Own(), about, tmp_path / "own.safetensors")
    net = predictor.load(tmp_path / "own.safetensors", targets=[f"{__name__}.*"])
    assert export(net, ["safetensors"], tmp_path / "out")["mnist_cnn.safetensors"] < 1e-6


@pytest.mark.parametrize("kind", ["c", "tflite"])
def test_a_format_that_is_not_written_is_refused_by_name(kind, tmp_path):
    with pytest.raises(ValueError, match=rf"^formats must be some of onnx, .*, got {kind}$"):
        export(None, ["pt2", kind], tmp_path / "out")


def test_after_an_error_no_folder_is_left(tmp_path, monkeypatch):
    def fail(net: predictor.Trained, path: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setitem(FORMATS, "pt2", (fail, FORMATS["pt2"][1]))
    (tmp_path / "kept").mkdir()
    for out in (tmp_path / "kept", tmp_path / "kept" / "new" / "newer"):
        with pytest.raises(ValueError, match="no space left"):
            export(None, ["pt2"], out)
    assert [*tmp_path.rglob("*")] == [tmp_path / "kept"]


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_extra_is_named_in_one_line(package, trained_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    line = refusal(f"ckpt_path={trained_run}", "--format", "onnx", "--out", tmp_path)
    assert line == f"error: onnx export needs {package}: {install('export')}"


def test_a_file_says_what_it_is(exported):
    onnx, about = pytest.importorskip("onnx"), {"about.json": ""}
    torch.export.load(exported / "mnist_cnn.pt2", extra_files=about)
    described = [json.loads(about["about.json"])]
    properties = onnx.load(str(exported / "mnist_cnn.onnx")).metadata_props
    described.append({each.key: json.loads(each.value) for each in properties})
    with safe_open(exported / "mnist_cnn.safetensors", "pt") as tensors:
        described.append(json.loads(tensors.metadata()["about"]))
    for each in described:
        assert (each["classes"], each["data"]["name"]) == (list("0123456789"), "mnist")
        assert each["images"].startswith("uint8 (N, 28, 28), 0 to 255, ")
        assert (each["model"]["mean"], each["model"]["channels"]) == (0.1307, [8, 16])


def test_no_file_tells_of_the_machine_that_made_it(exported, data_root):
    private = [str(process.PACKAGE / "mnist_cnn"), str(Path(torch.__file__).parent), str(data_root)]
    for file in exported.iterdir():
        content = file.read_bytes()
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                content = b"".join(map(archive.read, archive.namelist()))
        assert not [place for place in private if place.encode() in content], file.name
    own = {"_target_": "pkg.Data", "path": "my.npz", "folder": "/home/me", "fold": 3}
    net = predictor.Trained(torch.nn.Identity(), ("a",), {"data": {"name": "Data", "custom": own}})
    assert describe(net)["data"] == {
        "name": "Data",
        "custom": {"_target_": "pkg.Data", "fold": 3},  # how the images were divided
    }


def test_the_page_has_the_network_of_the_run_or_else_the_reader_alone(exported, tmp_path, capsys):
    main(["--format", "html", "--out", str(tmp_path)])
    assert "mnist_cnn.html: within " in capsys.readouterr().out
    for file, networks in (
        (exported / "mnist_cnn.html", {"classifier", "detector"}),
        (tmp_path / "mnist_cnn.html", {"detector"}),
    ):
        page = file.read_text("utf-8")
        found = page.partition("const NETWORKS = ")[2].partition(";\n")[0]
        assert json.loads(found).keys() == networks
        about = page.partition('name="description" content="')[2].partition('"')[0]
        described = json.loads(html.unescape(about))
        assert described["reader"]["model"]["_target_"] == "mnist_cnn.detection.network.Detector"
        assert ("model" in described) == ("classifier" in networks)


def test_exports_to_one_folder_add_up_and_no_file_is_replaced(trained_run, tmp_path):
    (tmp_path / "mnist_cnn.onnx").write_text("somebody's own")
    for kind in ("safetensors", "pt2"):
        main([f"ckpt_path={trained_run}", "--format", kind, "--out", str(tmp_path)])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(before) == 3
    for kind in ("all", "pt2", "onnx"):
        line = refusal(f"ckpt_path={trained_run}", "--format", kind, "--out", tmp_path)
        assert line.startswith("error: --out must be a folder without mnist_cnn.")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    file = tmp_path / "mnist_cnn.pt2"
    line = refusal(f"ckpt_path={trained_run}", "--format", "pt2", "--out", file)
    assert line.startswith("error: --out must be a folder, got ")
    for folder in (file / "below", tmp_path / "new" / ("n" * 300)):
        line = refusal(f"ckpt_path={trained_run}", "--format", "pt2", "--out", folder)
        assert line.startswith("error: --out must be a folder that can be made (")
    assert not (tmp_path / "new").exists()
    with pytest.raises(SystemExit, match=r"^2$"):  # of an unset shell variable
        main([f"ckpt_path={trained_run}", "--out", ""])


def export_beside_another(out: Path) -> None:
    with new_files(out, ["a", "b"]) as folder:
        for name in "ab":
            (folder / name).write_text("of this one")
        (out / "b").write_text("of the other")


def test_of_two_exports_at_once_one_is_refused_and_leaves_the_files_of_the_other(tmp_path):
    with pytest.raises(ValueError, match=r"^--out must be a folder without b, got "):
        export_beside_another(tmp_path)
    (left,) = tmp_path.iterdir()
    assert (left.name, left.read_text()) == ("b", "of the other")


STOPPED = """
import os, signal, sys, threading
from mnist_cnn.export import main
from mnist_cnn.exporting import webpage

call = webpage.Engine.call

def stopped(self, *given):
    threading.Timer(0.02, os.kill, [os.getpid(), signal.SIGTERM]).start()
    return call(self, *given)

webpage.Engine.call = stopped
main(["--format", "html", "--out", sys.argv[1]])
"""


@pytest.mark.slow
def test_a_signal_while_javascript_runs_ends_in_one_line(tmp_path):
    command = [sys.executable, "-c", STOPPED, str(tmp_path)]
    done = subprocess.run(command, env=environment(), text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (143, "interrupted by SIGTERM\n")
    assert not list(tmp_path.iterdir())
