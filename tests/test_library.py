"""The package as a library, with a plain Trainer and without Hydra."""

import subprocess
import sys
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

import mnist_cnn
from mnist_cnn import DigitClassifier, MNISTDataModule, compose
from mnist_cnn.config.compose import plain
from mnist_cnn.data import mnist
from mnist_cnn.data.custom import ArraysDataModule, FolderDataModule
from tests.helpers import process
from tests.helpers.process import environment

FEW: dict[str, Any] = {
    "limit_train_batches": 40,
    "limit_val_batches": 2,
    "logger": False,
    "accelerator": "cpu",
}


def test_ten_lines_train_test_and_predict_without_hydra(data_root, tmp_path):
    data, module = MNISTDataModule(root=str(data_root)), DigitClassifier()
    trainer = L.Trainer(max_epochs=1, default_root_dir=tmp_path, **FEW)
    trainer.fit(module, data)
    (tested,) = trainer.test(module, data)
    predicted: Any = trainer.predict(module, data)
    probabilities = torch.cat(predicted)
    assert probabilities.shape == (10_000, 10)
    right = probabilities.argmax(1) == data.splits["test"][1]
    assert set(tested) == {"test/loss", "test/acc"}
    assert tested["test/acc"] == pytest.approx(right.double().mean().item())
    (file,) = tmp_path.rglob("*.ckpt")
    loaded = mnist_cnn.load(file)
    assert torch.equal(loaded(data.splits["test"][0][:500, 0]), probabilities[:500])


def test_what_is_loaded_takes_bytes_and_floats_of_numpy_and_torch_in_any_number():
    net, images = mnist_cnn.load(), mnist.load_split("mnist", "unused", "test")[0][:260]
    expected = net(images)
    assert not expected.is_inference()
    assert not expected.requires_grad
    torch.testing.assert_close(expected.sum(1), torch.ones(260))
    floats = images.float() / 255
    for same in (images.numpy(), images[:, None], floats, floats.double().numpy()[:, None]):
        assert torch.equal(net(same), expected)
    picture = Image.fromarray(images[3].numpy())
    for one in (
        images[3],
        floats[3].numpy(),
        picture,
        [picture],
        images[3].tolist(),
        [images[3]],
    ):
        torch.testing.assert_close(net(one), expected[3:4])
    assert net(images[:0]).shape == (0, 10)


NET = mnist_cnn.load()


@pytest.mark.parametrize(
    "images",
    [
        torch.rand(2, 28, 28) * 255,
        torch.full((28, 28), torch.nan),
        torch.rand(2, 3, 28, 28),
        np.zeros(784, np.uint8),
        np.zeros((28, 28), int),
        np.zeros((28, 28), object),
        Image.new("RGBA", (28, 28)),
        Image.new("L", (29, 28)),
        [[0] * 28] * 27 + [[0] * 27],
        [[256] * 28] * 28,
        "image.png",
        b"image",
        None,
        3,
    ],
)
def test_what_is_loaded_refuses_other_images_in_one_line(images):
    with pytest.raises(ValueError, match=r"^images must be uint8 in 0\.\.255 or .*, got ."):
        NET(images)


@pytest.mark.parametrize("suffix", ["onnx", "pt2", "html"])
def test_an_exported_file_is_named_as_such(suffix, tmp_path):
    (tmp_path / f"mnist_cnn.{suffix}").touch()
    with pytest.raises(ValueError, match=rf"\.{suffix}: must be a run's folder, a checkpoint or "):
        mnist_cnn.load(tmp_path / f"mnist_cnn.{suffix}")


USER = """
import lightning as L
import numpy as np
import torch
from mnist_cnn import DigitClassifier, MNISTDataModule, compose, load, load_picture, read_digits

data = MNISTDataModule(batch_size=32)
module = DigitClassifier(label_smoothing=0.1)
L.Trainer(max_epochs=1).fit(module, data)
net = load("outputs/mine")
probabilities: torch.Tensor = net(np.zeros((2, 28, 28), np.uint8))
best: int = int(probabilities[0].argmax())
net([[0.0] * 28] * 28)
names: tuple[str, ...] = net.classes
width: int = load_picture("photo.jpg").width
for reading in read_digits("photo.jpg", net, threshold=0.9):
    digit: int | None = reading.digit
    print(reading.symbol, reading.confidence, reading.box)
cfg = compose(["seed=1"], run_dir="outputs/mine")
module.save_weights("w.safetensors", {"seed": cfg.seed})
"""
WRONG = {
    "load(3)": "arg-type",
    "net(3)": "arg-type",
    "read_digits(3, net)": "arg-type",
    'DigitClassifier(label_smoothing="a")': "arg-type",
    "compose(run_dir=3)": "arg-type",
}


@pytest.mark.slow
def test_a_users_program_is_checked_by_its_types(tmp_path):
    pytest.importorskip("mypy", reason="needs the extra test")
    (tmp_path / "user.py").write_text(USER + "\n".join(WRONG))
    right, path = len(USER.splitlines()), str(process.PACKAGE)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), "user.py"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**environment(), "MYPYPATH": path},
        text=True,
        capture_output=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("user.py")]
    for line, (number, kind) in zip(lines, enumerate(WRONG.values(), right + 1), strict=True):
        assert line.startswith(f"user.py:{number}: error")
        assert kind in line


def test_an_empty_path_is_no_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="no such checkpoint, weights file or run's folder"):
        mnist_cnn.load("")


def test_the_constructors_defaults_are_those_of_the_configuration():
    cfg: Any = plain(compose(run_dir="unused"))
    given, own = dict(DigitClassifier().hparams), cfg["module"]
    assert own.pop("_target_") == "mnist_cnn.module.DigitClassifier"
    assert (given.pop("metrics") or {}) == cfg["metrics"]
    assert given == own | {key: cfg[key] for key in given.keys() - own.keys()}


@pytest.mark.parametrize(
    ("group", "kind", "given"),
    [
        ("mnist", MNISTDataModule, {"root": "r"}),
        ("arrays", ArraysDataModule, {"path": "r"}),
        ("folder", FolderDataModule, {"root": "r"}),
    ],
)
def test_a_data_modules_defaults_are_those_of_its_file(group, kind, given):
    overrides = [f"data={group}", *(f"data.{key}={value}" for key, value in given.items())]
    cfg: Any = plain(compose(overrides, run_dir="unused"), "data")
    made = dict(kind(**given).hparams)
    left_out = {"unlabeled": None}  # of most runs, which do not record it
    assert {**made, "augment": made["augment"] or {}} == left_out | {
        k: v for k, v in cfg.items() if k != "_target_"
    }


def test_the_public_names_are_imported_when_they_are_used():
    code = """
import sys, mnist_cnn
assert "torch" not in sys.modules and "hydra" not in sys.modules
assert mnist_cnn.__version__ and {*mnist_cnn.__all__} < {*dir(mnist_cnn)}
from mnist_cnn import *
assert all(callable(globals()[name]) for name in mnist_cnn.__all__)
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment(), check=True)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        mnist_cnn.trian  # noqa: B018


@pytest.mark.parametrize("first", ["from mnist_cnn import ", "import mnist_cnn."])
def test_the_name_of_a_command_is_its_function_whichever_is_imported_first(first):
    code = "import importlib, mnist_cnn\n"
    for name in ("train", "evaluate", "export"):
        code += f"""{first}{name}
module = importlib.import_module("mnist_cnn.{name}")
from mnist_cnn import {name}
assert {name} is mnist_cnn.{name} is module.{name}
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment(), check=True)
