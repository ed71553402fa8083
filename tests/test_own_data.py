"""A user's own arrays and pictures train, are evaluated, and are refused in one line."""

from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

from mnist_cnn import export, pretrained
from mnist_cnn.analysis.networks import as_trained
from mnist_cnn.config import own
from mnist_cnn.config.compose import compose
from mnist_cnn.data.own import ArraysDataModule, FolderDataModule
from mnist_cnn.evaluate import evaluate
from mnist_cnn.model import build
from mnist_cnn.module import fitted
from mnist_cnn.train import train
from tests.helpers.training import SHORT

NET = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(3 * 32 * 32, 20))
"""


def save_arrays(path: Path, **changes) -> None:
    """600 and 100 colour pictures of 32x32 in 20 classes."""
    chance = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", 600), ("test", 100)):
        arrays[f"x_{split}"] = chance.integers(0, 256, (n, 3, 32, 32), np.uint8)
        arrays[f"y_{split}"] = np.arange(n) % 20
    np.savez(path, **{**arrays, **changes})


def evaluated(run: Path, folder: Path) -> dict:
    argv = [o for o in as_trained([f"ckpt_path={run}"]) if not o.startswith("hydra")]
    return evaluate(compose(argv, run_dir=folder, entry="evaluate"))


def test_a_network_trains_on_arrays_of_20_classes_in_colour_and_is_evaluated(tmp_path):
    names = [f"kind {k}" for k in range(20)]
    save_arrays(tmp_path / "my.npz", classes=names)
    data = ["data=arrays", f"data.path={tmp_path}/my.npz", "model=cnn", "model.mean=auto"]
    results = train(compose([*SHORT, *data, "model.std=auto"], run_dir=tmp_path / "run"))
    for file in ("checkpoints/best.ckpt", "weights.safetensors"):
        net = pretrained.load(tmp_path / "run" / file)
        assert net.classes == tuple(names)
        assert net.net.state_dict()["normalize.mean"].shape == (3, 1, 1)
    outcome = evaluated(tmp_path / "run", tmp_path / "evaluation")
    assert (outcome["images"], outcome["acc"]) == (100, results["test/acc"])
    assert {mistake["label"] for mistake in outcome["mistakes"]} <= set(names)


@pytest.mark.parametrize("model", ["cnn", "own"])
def test_a_network_for_colour_is_exported_and_reads_no_photograph(model, tmp_path):
    save_arrays(tmp_path / "my.npz")
    data = ["data=arrays", f"data.path={tmp_path}/my.npz", "logger=none"]
    if model == "own":
        (tmp_path / "my_nets.py").write_text(NET)
        (tmp_path / "my_conf" / "model").mkdir(parents=True)
        (tmp_path / "my_conf" / "model" / "own.yaml").write_text("_target_: my_nets.Net\n")
        data += [f"hydra.searchpath=[{tmp_path}/my_conf]", "targets=[my_nets.*]"]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        train(compose([*SHORT, *data, f"model={model}"], run_dir=tmp_path / "run"))
        net = pretrained.load(tmp_path / "run")
    assert (net.shape, len(net.classes)) == ((3, 32, 32), 20)
    formats = ["pt2", "safetensors"]
    record = export.export(net, formats, tmp_path / "out")
    assert record["files"]["mnist_cnn.pt2"]["agreement"] == 1
    assert record["test images"] == 0
    program = torch.export.load(tmp_path / "out" / "mnist_cnn.pt2").module()
    images = torch.randint(256, (5, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(program(images), net(images))
    with pytest.raises(ValueError, match="--int8 must be left out for a network of data of your"):
        export.export(net, formats, tmp_path / "out", int8=True)
    own.allow(["my_nets.*"])
    with pytest.raises(ValueError, match="must be a network trained on digits, got one of arrays"):
        pretrained.load_digits(tmp_path / "run")
    own.allow([])


def test_a_network_trains_on_a_folder_of_pictures_by_class(tmp_path):
    chance = np.random.default_rng(0)
    for split, kind, k in np.ndindex(2, 3, 20):
        place = tmp_path / "my" / ("train", "test")[split] / "abc"[kind]
        place.mkdir(parents=True, exist_ok=True)
        pixels = chance.integers(0, 80, (20, 24, 3), np.uint8) + np.uint8(80 * kind)
        Image.fromarray(pixels).save(place / f"{k}.png")
    data = ["data=folder", f"data.root={tmp_path}/my", "model=fast_cnn", "data.batch_size=16"]
    results = train(compose([*SHORT, *data], run_dir=tmp_path / "run"))
    assert results["parameters"] > 0
    assert pretrained.load(tmp_path / "run").classes == ("a", "b", "c")
    outcome = evaluated(tmp_path / "run", tmp_path / "evaluation")
    assert (outcome["images"], outcome["acc"]) == (60, results["test/acc"])


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"x_train": np.zeros((4, 8))},
            r"x_train must be uint8 \(N, H, W\), .*, got float64",
        ),
        ({"y_train": np.zeros(3, int)}, r"y_train must be whole numbers >= 0, \(600,\), got int64"),
        ({"x_test": np.zeros((100, 8, 8), np.uint8)}, r"test images must be \(3, 32, 32\) as in"),
        ({"y_test": np.full(100, 20)}, r"test labels must be less than 20, .*, got 20"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_in_one_line(tmp_path, changes, line):
    save_arrays(tmp_path / "my.npz", **changes)
    with pytest.raises(ValueError, match=f"^{line}") as refused:
        ArraysDataModule(path=str(tmp_path / "my.npz")).setup()
    assert "\n" not in str(refused.value)


def test_what_is_no_data_set_is_refused_in_one_line(tmp_path):
    (tmp_path / "text.npz").write_text("text")
    for name in ("text.npz", "none.npz"):
        with pytest.raises(ValueError, match=r"^data.path must be an .npz file .*, got /"):
            ArraysDataModule(path=str(tmp_path / name)).setup()
    with pytest.raises(ValueError, match=r"^data.root must be a folder with train/CLASS"):
        FolderDataModule(root=str(tmp_path)).setup()


@pytest.mark.parametrize("name", ["cnn", "fast_cnn", "vgg"])
def test_images_that_are_too_small_for_a_network_are_refused(name):
    model = dict(compose([f"model={name}"], run_dir="unused").model)
    with pytest.raises(ValueError, match=f"^model.name={model['name']}: the images are too small"):
        build({**model, "shape": [1, 4, 4]})


def test_a_network_of_another_shape_is_refused_by_name(tmp_path):
    save_arrays(tmp_path / "my.npz")
    data = ["data=arrays", f"data.path={tmp_path}/my.npz", "test=false", "trainer.max_epochs=1"]
    train(compose([*SHORT, *data], run_dir=tmp_path / "run"))
    argv = [o for o in as_trained([f"ckpt_path={tmp_path}/run", "data=mnist"]) if "path=" in o]
    argv = [o for o in argv if o.startswith("ckpt")] + ["data.val_fraction=0.2", "data.fold=0"]
    with pytest.raises(ValueError, match=r"^model.shape must be \(1, 28, 28\) for data.name=mnist"):
        evaluate(compose(argv, run_dir=tmp_path / "e", entry="evaluate"))


def test_a_model_takes_from_the_data_what_it_does_not_say(tmp_path):
    save_arrays(tmp_path / "my.npz")
    data = ArraysDataModule(path=str(tmp_path / "my.npz"))
    assert isinstance(data, L.LightningDataModule)
    model = fitted({"name": "MLP", "hidden": 8, "dropout": 0.0}, data)
    assert build(model)(torch.rand(2, 3, 32, 32)).shape == (2, 20)
