"""Export: files that other programs run give the network's own probabilities, or are not there."""

import copy
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

from mnist_cnn import export, formats, pretrained
from mnist_cnn.config import compose
from mnist_cnn.config.messages import install
from mnist_cnn.data import mnist
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


def program(*args: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "mnist_cnn.export", *map(str, args)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )


def refusal(*args: Any) -> str:
    """The one line with which the command ends."""
    with pytest.raises(SystemExit) as exit:
        export.main([*map(str, args)])
    assert isinstance(exit.value.code, str)  # Python prints it and exits with 1
    assert "\n" not in exit.value.code
    return exit.value.code


@pytest.fixture(scope="module")
def exported(trained_run, tmp_path_factory) -> tuple[Path, str]:
    """The folder of all formats as the command fills it, and what it prints."""
    for package in PACKAGES:
        pytest.importorskip(package, reason=f"{package} comes with the extra export")
    folder = tmp_path_factory.mktemp("exported")
    done = program(trained_run, "--format", "all", "--int8", "--out", folder)
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
            export.main([str(trained_run), "--format", kind, "--out", str(out)])
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


def metadata(file: Path) -> dict[str, Any]:
    """What a file says about its network."""
    if file.suffix == ".onnx":
        import onnx

        return {p.key: json.loads(p.value) for p in onnx.load(str(file)).metadata_props}
    if file.suffix == ".pt2":
        about = {"about.json": ""}
        torch.export.load(file, extra_files=about)
        return json.loads(about["about.json"])
    with safe_open(file, "pt") as tensors:
        return json.loads(tensors.metadata()["about"])


@pytest.mark.parametrize("kind", ["onnx", "int8.onnx", "pt2", "safetensors"])
def test_a_file_says_what_it_is_and_what_it_takes(kind, exported):
    about = metadata(exported[0] / f"mnist_cnn.{kind}")
    assert about["classes"] == list("0123456789")
    assert (about["model"]["mean"], about["model"]["channels"]) == (0.1307, [8, 16])
    assert about["data"]["name"] == "mnist"
    assert about["mnist_cnn"]
    for part in (
        "uint8 (N, 28, 28), 0 to 255",
        "white on black",
        "centred by mass",
        "mean and std",
    ):
        assert part in about["input"]


def test_no_place_of_the_data_travels_with_a_file():
    own = {"_target_": "pkg.Data", "path": "my.npz", "folder": "/home/me", "size": 32}
    about = {"model": {}, "data": {"name": "Data", "root": "~/data", "own": own}}
    net = pretrained.Trained(torch.nn.Identity(), ("a",), about)
    assert formats.describe(net)["data"] == {
        "name": "Data",
        "own": {"_target_": "pkg.Data", "size": 32},
    }
    assert "white on black" not in formats.describe(net)["input"]


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


def test_the_table_and_export_json_hold_what_was_measured(exported, trained_run, data_root):
    folder, printed = exported
    record = json.loads((folder / "export.json").read_text())
    images, labels = mnist.load_split("mnist", data_root, "test")
    accuracy = export.accuracy(pretrained.load(trained_run), images, labels)
    assert accuracy > 0.8  # or all that is said of agreement says little
    rows = record["files"]
    assert list(rows) == ["PyTorch", *export.NAMES]
    for name in export.NAMES:
        assert rows[name]["bytes"] == (folder / name).stat().st_size
        assert f"│ {name.removeprefix('mnist_cnn.')} " in printed
        if "int8" not in name:
            assert rows[name]["difference"] <= 1e-5
            assert rows[name]["agreement"] == 1
            if "html" not in name:  # run on the verified images alone
                assert rows[name]["test/acc"] == pytest.approx(accuracy, abs=1e-3)
    loss = rows["PyTorch"]["test/acc"] - rows["mnist_cnn.int8.onnx"]["test/acc"]
    assert loss <= export.INT8_LOSS
    assert record["versions"].keys() >= {"torch", *PACKAGES}
    assert f" {accuracy:.2%} │" in printed


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


def test_the_weights_load_again(without_onnx, digits, truth):
    file = without_onnx / "safetensors" / "mnist_cnn.safetensors"
    with torch.no_grad():
        np.testing.assert_allclose(pretrained.load(file)(digits).numpy(), truth, rtol=0, atol=1e-7)
    record = file.with_name("export.json")
    assert file.stat().st_mode == record.stat().st_mode  # whoever reads the one reads the other


@pytest.fixture
def other(trained_run) -> pretrained.Trained:
    """Another network of the same configuration."""
    net = pretrained.load(trained_run)
    net.get_parameter("net.dense2.bias").data.add_(0.1)
    return net


def test_exports_of_one_network_add_up_and_one_of_another_replaces_them(
    trained_run, other, tmp_path
):
    (tmp_path / "notes.txt").write_text("somebody's own")
    for kind in ("safetensors", "pt2"):
        record = export.export(pretrained.load(trained_run), [kind], tmp_path)
    both = ["mnist_cnn.pt2", "mnist_cnn.safetensors"]
    assert sorted(record["files"]) == ["PyTorch", *both]
    assert sorted(path.name for path in tmp_path.glob("mnist*")) == both
    record = export.export(other, ["safetensors"], tmp_path)
    assert json.loads((tmp_path / "export.json").read_text()) == record
    assert list(record["files"]) == ["PyTorch", "mnist_cnn.safetensors"]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"mnist_cnn.safetensors", "export.json", "notes.txt"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "factor"), [*((kind, 1.001) for kind in formats.FORMATS), ("pt2", math.nan)]
)
def test_a_file_that_gives_something_else_is_not_written(
    kind, factor, trained_run, tmp_path, monkeypatch
):
    for package in formats.EXTRA.get(kind, ()):
        pytest.importorskip(package, reason=f"{package} comes with the extra export")
    write = formats.WRITERS[kind]

    def write_other_weights(net: pretrained.Trained, path: Path) -> None:
        other = copy.deepcopy(net)
        other.get_parameter("net.dense2.weight").mul_(factor)
        write(other, path)

    monkeypatch.setitem(formats.WRITERS, kind, write_other_weights)
    before = tmp_path / f"mnist_cnn.{kind}"
    before.write_text("an earlier export")
    earlier = {"weights": "", "files": {before.name: {}}}
    (tmp_path / "export.json").write_text(json.dumps(earlier))
    line = refusal(trained_run, "--format", kind, "--out", tmp_path)
    assert line.startswith(f"error: mnist_cnn.{kind} is not written: its probabilities must")
    # no scrap of the failed one either
    assert {path.name for path in tmp_path.iterdir()} == {before.name, "export.json"}
    assert before.read_text() == "an earlier export"


def test_an_int8_file_that_reads_worse_is_refused():
    files = {"PyTorch": {"test/acc": 0.99}, "mnist_cnn.int8.onnx": {"test/acc": 0.986}}
    export.check_int8(files)
    files["mnist_cnn.int8.onnx"]["test/acc"] = 0.984
    with pytest.raises(ValueError, match=r"int8.onnx is not written: .* got 98.4"):
        export.check_int8(files)


def test_a_missing_extra_is_named_in_one_line(trained_run, tmp_path, monkeypatch):
    monkeypatch.setitem(formats.EXTRA, "onnx", ("json", "onnxscript", "onnxruntime"))
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for kind in ("onnx", "all"):
        assert refusal(trained_run, "--format", kind, "--out", tmp_path) == (
            f"error: onnx export needs onnxscript and onnxruntime: {install('export')}"
        )


def test_a_checkpoint_that_is_none_of_ours_is_refused(tmp_path):
    done = program(tmp_path / "nowhere", "--format", "pt2", "--out", tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'nowhere'}: no such checkpoint")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("record", [None, "[]", "{}", '{"weights": "", "files": {}}'])
def test_what_no_export_wrote_is_not_overwritten(record, trained_run, tmp_path):
    (tmp_path / "mnist_cnn.pt2").write_text("somebody's own")
    if record is not None:
        (tmp_path / "export.json").write_text(record)
    line = refusal(trained_run, "--format", "pt2", "--out", tmp_path)
    assert line.startswith("error: --out must be a folder without mnist_cnn.pt2")
    assert (tmp_path / "mnist_cnn.pt2").read_text() == "somebody's own"


def test_the_runs_own_data_folder_is_used(trained_run, data_root, tmp_path, monkeypatch):
    monkeypatch.setenv("MNIST_CNN_DATA", str(tmp_path / "elsewhere"))
    args = ["--format", "safetensors", "--out", str(tmp_path / "out")]
    export.main([f"ckpt_path={trained_run}", *args])
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_cannot_be_written_is_refused(trained_run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        line = refusal(trained_run, "--format", "safetensors", "--out", out)
        assert line.startswith(f"error: --out {out}: cannot be written: ")
