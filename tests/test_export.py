"""Export: files that other programs run give the network's own probabilities, or are not there."""

import base64
import copy
import json
import math
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from mnist_cnn import export, formats, pretrained, webpage
from mnist_cnn.config import compose
from mnist_cnn.config.messages import install
from mnist_cnn.data import mnist
from mnist_cnn.model import build
from mnist_cnn.reading.picture import load_picture
from mnist_cnn.reading.reader import NO_DIGIT, SURE, read_digits, written
from mnist_cnn.train import train
from tests.helpers.process import environment

# a scaling that is not the identity: a file that forgets it is found out
TRAINING = [
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=150",
    "trainer.limit_val_batches=1",
    "model.channels=[8,16]",
    "model.hidden=32",
    "model.mean=0.1307",
    "model.std=0.3081",
    "test=false",
]


# strokes of some digits, in shares of a square
STROKES: dict[str, list[list[tuple[float, float]]]] = {
    "0": [[(0.5 - 0.3 * math.sin(t / 5), 0.5 - 0.3 * math.cos(t / 5)) for t in range(32)]],
    "1": [[(0.5, 0.2 + t / 50) for t in range(31)]],
    "4": [
        [(0.55 - 0.3 * t, 0.2 + 0.35 * t) for t in (0, 0.5, 1)] + [(0.5, 0.55), (0.75, 0.55)],
        [(0.62, 0.4), (0.62, 0.85)],
    ],
    "5": [
        [(0.32, 0.24), (0.3, 0.48)]
        + [(0.45 + 0.22 * math.sin(t / 4), 0.62 - 0.2 * math.cos(t / 4)) for t in range(-2, 14)],
        [(0.32, 0.23), (0.68, 0.22)],
    ],
    "7": [[(0.25, 0.22), (0.7, 0.22), (0.55, 0.5), (0.4, 0.82)]],
}
PEN_STROKES = ("7", "0", "10", "415", "5710")  # written with them

PACKAGES = [name for names in formats.EXTRA.values() for name in names]


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(compose.compose(TRAINING, run_dir=folder))
    return folder


@pytest.fixture(scope="module")
def digits(data_root) -> torch.Tensor:
    return mnist.load_split("mnist", data_root, "test")[0][2000:2300]


@pytest.fixture(scope="module")
def truth(trained_run, digits) -> np.ndarray:
    """The network's own probabilities (300, 10)."""
    with torch.no_grad():
        return pretrained.load(trained_run)(digits).numpy()


@pytest.fixture
def needs_onnx() -> None:
    for package in PACKAGES:
        pytest.importorskip(package, reason=f"{package} comes with the extra export")


def program(*args: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "mnist_cnn.export", *map(str, args)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def refusal(*args: Any) -> str:
    """The one line with which the command ends."""
    with pytest.raises(SystemExit) as exit:
        export.main([*map(str, args), "--rounds", "1"])
    assert isinstance(exit.value.code, str)  # Python prints it and exits with 1
    assert "\n" not in exit.value.code
    return exit.value.code


@pytest.fixture(scope="module")
def exported(trained_run, tmp_path_factory) -> tuple[Path, str]:
    """The folder of all formats as the command fills it, and what it prints."""
    for package in PACKAGES:
        pytest.importorskip(package, reason=f"{package} comes with the extra export")
    folder = tmp_path_factory.mktemp("exported")
    done = program(trained_run, "--format", "all", "--int8", "--out", folder, "--rounds", "2")
    assert (done.returncode, done.stderr) == (0, "")
    return folder, done.stdout


@pytest.fixture(scope="module")
def without_onnx(trained_run, tmp_path_factory) -> Path:
    """The folder of what can be had without the extra."""
    folder = tmp_path_factory.mktemp("without_onnx")
    with pytest.MonkeyPatch.context() as patch:
        for package in PACKAGES:
            patch.setitem(sys.modules, package, None)  # as if it were not installed
        for kind in ("pt2", "safetensors"):
            out = folder / kind
            export.main([str(trained_run), "--format", kind, "--out", str(out), "--rounds", "1"])
    return folder


def test_the_onnx_file_alone_gives_the_probabilities_of_any_number_of_images(
    exported, tmp_path, digits, truth
):
    import onnxruntime

    shutil.copy(exported[0] / "mnist_cnn.onnx", tmp_path)  # no file beside it
    session = onnxruntime.InferenceSession(str(tmp_path / "mnist_cnn.onnx"))
    (images,), (probabilities,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(uint8)", ["N", 28, 28])
    assert (probabilities.name, probabilities.type) == ("probabilities", "tensor(float)")
    assert probabilities.shape == ["N", 10]
    for n in (0, 1, 3, 300):
        (found,) = session.run(None, {"images": digits[:n].numpy()})
        assert found.shape == (n, 10)
        np.testing.assert_allclose(found, truth[:n], rtol=0, atol=1e-5)


def test_the_onnx_files_say_what_they_are(exported):
    import onnx

    for name in ("mnist_cnn.onnx", "mnist_cnn.int8.onnx"):
        model = onnx.load(str(exported[0] / name))
        assert [(o.domain, o.version) for o in model.opset_import if not o.domain] == [
            ("", formats.OPSET)
        ]
        about = {p.key: json.loads(p.value) for p in model.metadata_props}
        assert about["classes"] == list("0123456789")
        assert (about["model"]["mean"], about["model"]["channels"]) == (0.1307, [8, 16])
        assert about["mnist_cnn"]


def test_no_file_tells_of_the_machine_that_made_it(exported, data_root):
    private = [str(Path(export.__file__).parent), str(Path(torch.__file__).parent), str(data_root)]
    files = [*exported[0].iterdir()]
    assert len(files) == 6
    for file in files:
        content = file.read_bytes()
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                content = b"".join(map(archive.read, archive.namelist()))
        assert not [place for place in private if place.encode() in content], file.name


@pytest.mark.slow
def test_the_int8_file_is_8_bit_and_smaller_and_reads_as_well(exported, digits, truth):
    import onnx
    import onnxruntime

    small, whole = exported[0] / "mnist_cnn.int8.onnx", exported[0] / "mnist_cnn.onnx"
    weights = {w.name: w for w in onnx.load(str(small)).graph.initializer if math.prod(w.dims) > 64}
    assert len(weights) == 4
    assert {w.data_type for w in weights.values()} == {onnx.TensorProto.INT8}
    assert small.stat().st_size < whole.stat().st_size / 2
    session = onnxruntime.InferenceSession(str(small))
    (found,) = session.run(None, {"images": digits.numpy()})
    assert (found.argmax(1) == truth.argmax(1)).mean() > 0.98
    record = json.loads((exported[0] / "export.json").read_text())["files"]
    loss = record["PyTorch"]["test/acc"] - record["mnist_cnn.int8.onnx"]["test/acc"]
    assert loss <= export.INT8_LOSS


def test_the_table_and_export_json_hold_what_was_measured(exported, trained_run, data_root):
    folder, printed = exported
    record = json.loads((folder / "export.json").read_text())
    images, labels = mnist.load_split("mnist", data_root, "test")
    accuracy = export.test_accuracy(pretrained.load(trained_run), images, labels)
    assert accuracy > 0.8  # or all that is said of agreement says little
    rows = record["files"]
    files = [f"mnist_cnn.{kind}" for kind in (*formats.FORMATS, "int8.onnx")]
    assert list(rows) == ["PyTorch", *files]
    for name in files:
        assert rows[name]["bytes"] == (folder / name).stat().st_size
        if "int8" not in name:
            assert rows[name]["difference"] <= 1e-5
            assert rows[name]["agreement"] == 1
            if "html" not in name:  # run on the verified images alone
                assert rows[name]["test/acc"] == pytest.approx(accuracy, abs=1e-3)
    for name in ("PyTorch", "mnist_cnn.onnx", "mnist_cnn.pt2", "mnist_cnn.int8.onnx"):
        assert 0 < rows[name]["batch 1 median ms"] <= rows[name]["batch 1 p99 ms"]
        assert rows[name]["batch 256 images/s"] > 0
    assert record["versions"].keys() >= {"torch", *PACKAGES}
    for cell in (
        "PyTorch",
        "onnx",
        "pt2",
        "safetensors",
        "html",
        "int8.onnx",
        f"{accuracy:.2%}",
        "100.0%",
    ):
        assert f"│ {cell} " in printed or f" {cell} │" in printed
    assert max(map(len, printed.split("differs:")[0].splitlines())) <= 80
    lines = printed.splitlines()
    assert lines[: len(files)] == [f"{name}: run on 1,000 images" for name in files]
    assert "…" not in printed


@pytest.mark.slow
def test_the_pt2_file_runs_where_this_project_is_not(without_onnx, tmp_path, digits, truth):
    np.save(tmp_path / "digits.npy", digits.numpy())
    code = """
import json, sys
sys.modules["mnist_cnn"] = None  # importing it fails
import numpy, torch
about = {"about.json": ""}
model = torch.export.load(sys.argv[1], extra_files=about).module()
images = torch.from_numpy(numpy.load("digits.npy"))
numpy.save("found.npy", torch.cat([model(images[:1]), model(images[1:])]).numpy())
print(json.loads(about["about.json"])["model"]["mean"])
"""
    file = without_onnx / "pt2" / "mnist_cnn.pt2"
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", code, str(file)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == "0.1307"
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), truth, rtol=0, atol=1e-5)


def test_the_weights_load_again_and_say_what_they_are(without_onnx, digits, truth):
    file = without_onnx / "safetensors" / "mnist_cnn.safetensors"
    with torch.no_grad():
        np.testing.assert_allclose(pretrained.load(file)(digits).numpy(), truth, rtol=0, atol=1e-7)
    with safe_open(file, "pt") as tensors:
        about = json.loads(tensors.metadata()["about"])
    assert about["classes"] == list("0123456789")
    assert about["data"]["name"] == "mnist"
    assert "root" not in about["data"]
    record = file.with_name("export.json")
    assert file.stat().st_mode == record.stat().st_mode  # whoever reads the one reads the other


def test_a_checkpoint_a_weights_file_and_a_folder_name_the_same_network(trained_run, tmp_path):
    checkpoint = trained_run / "checkpoints" / "best.ckpt"
    alone = f"ckpt_path={trained_run / 'weights.safetensors'}"
    for number, path in enumerate((trained_run, f"ckpt_path={checkpoint}", alone)):
        out = tmp_path / str(number)
        export.main([str(path), "--format", "safetensors", "--out", str(out), "--rounds", "1"])
    weights = [pretrained.load(f).state_dict() for f in tmp_path.rglob("mnist_cnn.safetensors")]
    assert len(weights) == 3
    for key, value in weights[0].items():
        assert all(torch.equal(value, other[key]) for other in weights)


def test_without_a_checkpoint_the_shipped_network_is_exported(trained_run, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "SHIPPED", trained_run / "weights.safetensors")
    export.main(["--format", "safetensors", "--out", str(tmp_path), "--rounds", "1"])
    ours, theirs = pretrained.load(tmp_path / "mnist_cnn.safetensors"), pretrained.load(trained_run)
    w = "net.conv1.weight"
    assert torch.equal(ours.get_parameter(w), theirs.get_parameter(w))


@pytest.mark.slow
@pytest.mark.parametrize("kind", formats.FORMATS)
def test_a_file_that_gives_something_else_is_not_written(
    kind, request, trained_run, tmp_path, monkeypatch
):
    for package in formats.EXTRA.get(kind, ()):
        pytest.importorskip(package, reason=f"{package} comes with the extra export")
    write = formats.WRITERS[kind]

    def write_other_weights(net: pretrained.Trained, path: Path) -> None:
        other = copy.deepcopy(net)
        other.get_parameter("net.dense2.weight").mul_(1.001)
        write(other, path)

    monkeypatch.setitem(formats.WRITERS, kind, write_other_weights)
    before = tmp_path / f"mnist_cnn.{kind}"
    before.write_text("an earlier export")
    (tmp_path / "export.json").write_text('{"verified images": 1000}')
    line = refusal(trained_run, "--format", kind, "--out", tmp_path)
    assert line.startswith(f"error: mnist_cnn.{kind} is not written: its probabilities must")
    # no scrap of the failed one either
    assert {path.name for path in tmp_path.iterdir()} == {before.name, "export.json"}
    assert before.read_text() == "an earlier export"


def test_a_network_that_gives_no_numbers_is_not_exported(trained_run, tmp_path, monkeypatch):
    net = pretrained.load(trained_run)
    net.get_parameter("net.dense2.bias").data.fill_(float("nan"))
    monkeypatch.setattr(pretrained, "load", lambda path: net)
    line = refusal(trained_run, "--format", "pt2", "--out", tmp_path)
    assert "got nan" in line
    assert not [*tmp_path.iterdir()]


def test_an_int8_file_that_reads_worse_is_not_written(
    needs_onnx, trained_run, tmp_path, monkeypatch
):
    monkeypatch.setattr(export, "INT8_LOSS", -1)  # no accuracy is good enough
    line = refusal(trained_run, "--format", "onnx", "--int8", "--out", tmp_path)
    assert line.startswith("error: mnist_cnn.int8.onnx is not written: its accuracy must be ")
    assert not [*tmp_path.iterdir()]


def test_a_missing_extra_is_named_in_one_line(trained_run, tmp_path, monkeypatch):
    monkeypatch.setitem(formats.EXTRA, "onnx", ("json", "onnxscript", "onnxruntime"))
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for kind in ("onnx", "all"):
        assert refusal(trained_run, "--format", kind, "--out", tmp_path) == (
            f"error: onnx export needs onnxscript and onnxruntime: {install('export')}"
        )


# the page


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    """The shipped network as one HTML file."""
    file = tmp_path_factory.mktemp("page") / "mnist_cnn.html"
    formats.write_html(pretrained.load(), file)
    return file


@pytest.fixture
def offline_page(browser, page_file) -> Iterator[Any]:
    """The file in a browser without a network, in which nothing may fail or be asked for."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_offline(True)
    page = context.new_page()
    wrong: list[str] = []
    page.on("request", lambda request: wrong.append(request.url))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(page_file.as_uri())
    page.wait_for_selector(".reader[data-ready]")
    yield page
    context.close()
    assert wrong == [page_file.as_uri()]


def test_the_page_gives_the_networks_probabilities_in_a_browser_without_a_network(
    offline_page, data_root
):
    images = mnist.load_split("mnist", data_root, "test")[0][:1000]
    with torch.no_grad():
        expected = pretrained.load()(images).numpy()
    found = offline_page.evaluate("all => all.map(probabilities)", images.flatten(1).tolist())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_what_is_drawn_on_the_page_is_read_as_the_reader_reads_it(offline_page):
    for digits in PEN_STROKES:
        offline_page.evaluate("() => { done.push({ clear: true }); change(); }")
        width = 1 / (len(digits) + 0.5)
        height = min(0.75, 1.5 * width)
        for place, digit in enumerate(digits):
            for points in STROKES[digit]:
                offline_page.evaluate(
                    "points => { done.push({ points }); change(); }",
                    [[(x + place + 0.25) * width, y * height] for x, y in points],
                )
        offline_page.wait_for_function(
            'text => find("reading").textContent === text', arg=digits, timeout=5000
        )
        picture = offline_page.evaluate('() => (paint(copy, "#fff"), copy.toDataURL())')
        image = load_picture(base64.b64decode(picture.partition(",")[2]))
        readings = read_digits(image, pretrained.load())
        assert written(readings) == digits
        tiles = offline_page.evaluate("() => digits.map((digit) => digit.image)")
        for reading, tile in zip(readings, tiles, strict=True):
            seen = np.frombuffer(base64.b64decode(tile), np.uint8).reshape(28, 28) / 255
            # where a half is rounded the other way, it is centred a pixel beside
            moved = [np.roll(seen, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
            assert min(np.abs(each - reading.image / 255).mean() for each in moved) < 0.02


def test_a_mouse_draws_on_the_page_and_pictures_are_not_offered(offline_page):
    area = offline_page.locator(".ink").bounding_box()
    offline_page.mouse.move(area["x"] + 200, area["y"] + 100)
    offline_page.mouse.down()
    offline_page.mouse.move(area["x"] + 200, area["y"] + 300, steps=9)
    offline_page.mouse.up()
    offline_page.wait_for_function('document.querySelector(".reading").textContent === "1"')
    assert offline_page.locator(".upload").is_hidden()


@pytest.mark.parametrize("name", ["FastCNN", "MLP", "VGG"])
def test_a_page_has_any_network_of_this_project(name, digits, tmp_path):
    pytest.importorskip("py_mini_racer", reason="comes with the extra export")
    configs: dict[str, dict[str, Any]] = {
        "FastCNN": {"channels": [4, 8], "hidden": 16, "mean": 0.13, "std": 0.31},
        "MLP": {"hidden": 16, "dropout": 0.5},
        "VGG": {"stages": [[4], [6, 6]], "channel_dropout": 0.1, "dropout": 0.1},
    }
    net = build({"name": name, **configs[name]})
    with torch.no_grad():
        for _ in range(5):  # batch normalisation of its own mean and variance
            net(torch.rand(32, 1, 28, 28))
        for layer in net.modules():
            if isinstance(layer, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
                layer.weight.uniform_(-1, 1)
                layer.bias.uniform_(-1, 1)
    trained = pretrained.Trained(net, tuple("0123456789"), {"model": {}, "data": {"name": "mnist"}})
    formats.write_html(trained, tmp_path / "page.html")
    with torch.no_grad():
        expected = trained(digits[:50])
    found = formats.reader(tmp_path / "page.html")(digits[:50])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


class Branched(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + x.relu()).flatten(1)[:, :10]


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Branched(), "html export needs a chain of layers, got a branch at add"),
        (torch.nn.Sequential(torch.nn.GELU()), "and dense layers, got GELU(approximate='none')"),
        (torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, dilation=2)), "got Conv2d(1, 4"),
    ],
)
def test_a_network_that_the_page_cannot_compute_is_refused_in_one_line(net, message, tmp_path):
    about = {"model": {}, "data": {"name": "mnist"}}
    with pytest.raises(ValueError, match=re.escape(message)):
        formats.write_html(pretrained.Trained(net, tuple("0123456789"), about), tmp_path / "x.html")
    other = pretrained.Trained(net, ("shirt",), {"data": {"name": "fashion_mnist"}})
    with pytest.raises(ValueError, match="got one of fashion_mnist, 1 x 28 x 28"):
        formats.write_html(other, tmp_path / "x.html")
    assert not [*tmp_path.iterdir()]


def test_the_page_calls_unsure_what_the_reader_does():
    script = (webpage.PAGE / "network.js").read_text("utf-8")
    assert f"const SURE = {SURE};" in script
    assert f"const NO_DIGIT = {NO_DIGIT};" in script


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ("nowhere.ckpt", r"nowhere.ckpt: no such checkpoint, weights file or run's folder"),
        ("text.ckpt", r"text.ckpt: not a checkpoint or weights of this project: "),
        ("other.ckpt", r"other.ckpt: not a checkpoint or weights of this project: "),
    ],
)
def test_a_checkpoint_that_is_none_of_ours_is_refused(checkpoint, message, tmp_path):
    (tmp_path / "text.ckpt").write_text("no network")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    line = refusal(tmp_path / checkpoint, "--format", "pt2", "--out", tmp_path / "out")
    assert message in line
    assert not (tmp_path / "out").exists()


def test_what_no_export_wrote_is_not_overwritten(trained_run, tmp_path):
    (tmp_path / "mnist_cnn.pt2").write_text("somebody's own")
    with pytest.raises(SystemExit, match=r"error: --out must be a folder without mnist_cnn\.pt2"):
        export.main([str(trained_run), "--format", "pt2", "--out", str(tmp_path)])
    assert [path.read_text() for path in tmp_path.iterdir()] == ["somebody's own"]


def test_the_runs_own_data_folder_is_used(trained_run, data_root, tmp_path, monkeypatch):
    monkeypatch.setenv("MNIST_CNN_DATA", str(tmp_path / "elsewhere"))
    args = ["--format", "safetensors", "--out", str(tmp_path / "out"), "--rounds", "1"]
    export.main([f"ckpt_path={trained_run}", *args])
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_cannot_be_written_is_refused(trained_run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        line = refusal(trained_run, "--format", "safetensors", "--out", out)
        assert line.startswith(f"error: --out {out}: cannot be written: ")


def test_an_export_removes_what_a_killed_one_has_left_and_not_what_a_living_one_writes(
    trained_run, tmp_path
):
    arguments = [str(trained_run), "--format", "safetensors", "--out", str(tmp_path), "--rounds"]
    with subprocess.Popen(
        [sys.executable, "-m", "mnist_cnn.export", *arguments, "1000"],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as living:
        assert living.stdout is not None
        assert living.stdout.readline() == "mnist_cnn.safetensors: run on 1,000 images\n"
        (left,) = tmp_path.glob(".export-*")
        export.main([*arguments, "1"])
        assert list(tmp_path.glob(".export-*")) == [left]
        living.kill()
    assert left.is_dir()
    export.main([*arguments, "1"])
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"mnist_cnn.safetensors", "export.json"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--format", "h5"], "argument --format: invalid choice: 'h5'"),
        (["--format", "pt2", "--int8"], "--int8 must come with --format onnx or all, got pt2"),
        (["--rounds", "0"], "--rounds must be 1 or more, got 0"),
    ],
)
def test_options_that_do_not_exist_are_refused(args, message, capsys):
    with pytest.raises(SystemExit) as exit:
        export.main(args)
    assert exit.value.code == 2
    assert message in capsys.readouterr().err


def test_the_command_ends_with_one_line_and_no_traceback(tmp_path):
    done = program(tmp_path / "nowhere", "--format", "pt2", "--out", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'nowhere'}: no such checkpoint")
    assert done.stderr.count("\n") == 1
