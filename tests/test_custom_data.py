"""Custom arrays and images: training, evaluation, and one-line errors."""

import random
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from mnist_cnn import export
from mnist_cnn.analysis.evaluation import check_changes
from mnist_cnn.config.compose import compose, fingerprint
from mnist_cnn.data import mnist
from mnist_cnn.data.custom import ArraysDataModule, CollectedDataModule, FolderDataModule
from mnist_cnn.data.datamodule import ImageDataModule
from mnist_cnn.evaluate import evaluate
from mnist_cnn.exporting import formats
from mnist_cnn.reading.reader import read_digits
from mnist_cnn.train import train
from mnist_cnn.weights import predictor
from mnist_cnn.weights.networks import build_network
from tests.helpers.training import SHORT, evaluated, save_arrays, save_untrained


def save_pictures(root: Path) -> None:
    """Save 20 colour images of 24x20 for each of the classes a, b and c, and for each split."""
    chance = np.random.default_rng(0)
    for split, kind, k in np.ndindex(2, 3, 20):
        place = root / ("train", "test")[split] / "abc"[kind]
        place.mkdir(parents=True, exist_ok=True)
        pixels = chance.integers(0, 80, (20, 24, 3), np.uint8) + np.uint8(80 * kind)
        Image.fromarray(pixels).save(place / f"{k}.png")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """Train a network on colour arrays of 20 named classes."""
    folder = tmp_path_factory.mktemp("arrays")
    save_arrays(folder / "my.npz", classes=[f"kind {k}" for k in range(20)])
    data = ["data=arrays", f"data.path={folder}/my.npz", "model.mean=auto", "model.std=auto"]
    results = train(compose([*SHORT, *data, "logger=none"], run_dir=folder / "run"))
    return folder / "run", results


def test_a_network_trains_on_arrays_of_20_classes_in_colour_and_is_evaluated(run, tmp_path):
    run, results = run
    names = tuple(f"kind {k}" for k in range(20))
    for file in ("checkpoints/best.ckpt", "weights.safetensors"):
        net = predictor.load(run / file)
        assert (net.classes, net.shape) == (names, (3, 32, 32))
        assert net.net.state_dict()["normalize.mean"].shape == (3, 1, 1)
    outcome = evaluated(run, tmp_path / "evaluation")
    assert (outcome["images"], outcome["acc"]) == (100, results["test/acc"])
    assert {mistake["label"] for mistake in outcome["mistakes"]} <= set(names)
    with pytest.raises(ValueError, match=r"^shifts must be 0 with images that are not light"):
        evaluated(run, tmp_path / "shifted", "shifts=1")
    with pytest.raises(ValueError, match=r"^robustness must be false with images of \(3, 32, 32\)"):
        evaluated(run, tmp_path / "attacked", "robustness=true")


def test_a_network_for_colour_is_exported(run, tmp_path):
    net = predictor.load(run[0])
    assert export(net, ["pt2"], tmp_path / "out")["mnist_cnn.pt2"] < 1e-6
    program = torch.export.load(tmp_path / "out" / "mnist_cnn.pt2").module()
    images = torch.randint(256, (5, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(program(images), net(images))


@pytest.mark.parametrize(("side", "most"), [(32, 744), (224, 15)])
def test_a_file_is_verified_on_fewer_images_where_they_are_large(side, most):
    sizes = []

    class Still(nn.Module):
        def forward(self, x):
            return torch.eye(2)[[0] * len(x)]

    def predict(images):
        sizes.append(len(images))
        return net(images)

    data = {"name": "x", "classes": ["a", "b"], "shape": [3, side, side]}
    net = predictor.Trained(Still(), ("a", "b"), {"data": data})
    assert formats.verify("x", predict, net) == 0
    assert sizes == [1, 7, most]


def test_a_network_trains_on_a_folder_of_pictures_and_each_is_found_by_its_file(tmp_path):
    save_pictures(tmp_path / "my")
    data = ["data=folder", f"data.root={tmp_path}/my", "data.name=letters", "data.size=28"]
    more = ["augment=pictures", "model=fast_cnn", "data.batch_size=16", "logger=none"]
    results = train(compose([*SHORT, *data, *more], run_dir=tmp_path / "run"))
    net = predictor.load(tmp_path / "run")
    assert (net.classes, net.shape) == (("a", "b", "c"), (3, 28, 28))
    outcome = evaluated(tmp_path / "run", tmp_path / "evaluation")
    assert (outcome["images"], outcome["acc"]) == (60, results["test/acc"])
    assert outcome["data"]["name"] == "letters"
    table = pd.read_csv(tmp_path / "evaluation" / "predictions.csv")
    assert [Path(file).parent.name for file in table["file"]] == ["abc"[k] for k in table["label"]]
    named = [net.classify(tmp_path / "my" / file) for file in table["file"][:9]]
    p = [[dict(classes)[name] for name in "abc"] for classes in named]
    np.testing.assert_allclose(table[["p0", "p1", "p2"]][:9], p, rtol=1e-4)
    wrong = set(table["file"][table["label"] != table["prediction"]])
    assert set() < {mistake["file"] for mistake in outcome["mistakes"]} <= wrong


def test_a_picture_is_turned_by_its_exif_and_a_cut_out_one_laid_on_paper(tmp_path):
    chance = np.random.default_rng(0)
    pixels = chance.integers(0, 256, (20, 24, 3), np.uint8)
    turned = Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    module = FolderDataModule(root="unused")
    read = module.read_picture(str(tmp_path / "turned.png"))
    assert np.array_equal(read.permute(1, 2, 0), pixels)
    ink = np.zeros((20, 24, 4), np.uint8)
    ink[8:12, 8:12, 3] = 255  # black on nothing
    Image.fromarray(ink).save(tmp_path / "ink.png")
    read = module.read_picture(str(tmp_path / "ink.png"))
    assert (int(read[:, 0, 0].min()), int(read[:, 9, 9].max())) == (255, 0)


def test_the_files_of_an_image_folder_in_a_custom_data_module_are_known(tmp_path):
    save_pictures(tmp_path)
    folder = ImageFolder(
        tmp_path / "test", v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, True)])
    )
    for shuffle in (False, True):
        own: Any = L.LightningDataModule()
        own.test_dataloader = partial(DataLoader, folder, 7, shuffle=shuffle)
        data = CollectedDataModule(own)
        data.setup("test")
        assert data.split_files("test") == (
            None if shuffle else [path for path, _ in folder.samples]
        )


def test_of_a_users_data_only_the_split_that_is_needed_is_read():
    class TestAlone(L.LightningDataModule):
        def setup(self, stage):
            assert stage == "test"

        def test_dataloader(self):
            return [(torch.rand(10, 1, 28, 28), torch.arange(10) % 5)]

    class WithoutValidation(TestAlone):
        def setup(self, stage):
            pass

        def val_dataloader(self):
            return None

    class Endless(IterableDataset):  # it has no length
        def __iter__(self):
            return ((torch.rand(1, 28, 28), k % 5) for k in range(10))

    class Stream(TestAlone):
        def test_dataloader(self):
            return DataLoader(Endless(), batch_size=5)

    for own, stage in ((TestAlone(), "test"), (WithoutValidation(), None), (Stream(), "test")):
        data = CollectedDataModule(own)
        data.setup(stage)
        assert list(data.splits) == ["test"]
        assert data.classes == tuple("01234")


@pytest.mark.parametrize(("key", "value"), [("shifts", 1), ("robustness", True)])
def test_what_changes_pixels_refuses_images_that_are_not_in_0_to_1(key, value):
    class Own(L.LightningDataModule):
        scale = 3.0

        def test_dataloader(self):
            images = torch.linspace(0, 1, 784).view(1, 1, 28, 28).expand(10, -1, -1, -1)
            return [(self.scale * images, torch.arange(10))]

    config: Any = SimpleNamespace(**{"shifts": 0, "robustness": False, key: value})
    data = CollectedDataModule(Own())
    data.setup("test")
    with pytest.raises(ValueError, match=rf"^{key} must be .* with images beyond \[0, 1\]"):
        check_changes(config, [], data)
    Own.scale = 1.0
    data = CollectedDataModule(Own())
    data.setup("test")
    check_changes(config, [], data)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["data=folder"], r"^data\.root must be given"),
        (["data=arrays"], r"^data\.path must be given"),
        (["data=arrays", "data.path=x", "data.name=mnist"], r"^data\.name must be none of mnist, "),
        (["data=folder", "data.root=x", "data.size=[48,32]"], r"^data\.size must be "),
        (["data=folder", "data.root=2024"], r"^data\.root must be "),
        (["data=folder", "data.root=x", "data.size=0"], r"^data\.size must be "),
        (["data=folder", "data.root=x", "data.size=true"], r"^data\.size must be "),
        (["data.name=letters"], r"^data\.name must be mnist, .*got letters"),
        (
            ["augment=pictures", "data.augment.flip._target_=os.system"],
            r"^data\.augment\.flip\._target_ must be .*, got os\.system",
        ),
    ],
)
def test_what_a_data_set_lacks_is_named(overrides, line, tmp_path):
    with pytest.raises(ValueError, match=line):
        train(compose(overrides, run_dir=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("path", "none.npz"),
        ("path", "text.npz"),
        ("path", "half.npz"),
        ("root", "none"),
        ("root", "bare"),
    ],
)
def test_missing_and_damaged_files_are_refused_before_the_runs_folder_exists(key, name, tmp_path):
    (tmp_path / "text.npz").write_text("text")
    save_arrays(tmp_path / "half.npz")
    (tmp_path / "half.npz").write_bytes((tmp_path / "half.npz").read_bytes()[:5000])
    (tmp_path / "bare" / "train" / "a").mkdir(parents=True)
    data = [f"data={'arrays' if key == 'path' else 'folder'}", f"data.{key}={tmp_path / name}"]
    with pytest.raises(ValueError, match=rf"^data\.{key} must be an? .*, got {tmp_path / name}$"):
        train(compose(data, run_dir=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_finished_run_needs_its_data_no_more(tmp_path):
    save_arrays(tmp_path / "my.npz")
    data = ["data=arrays", f"data.path={tmp_path}/my.npz", "data.fingerprint=null", "logger=none"]
    results = train(compose([*SHORT, *data], run_dir=tmp_path / "run"))
    (tmp_path / "my.npz").unlink()
    assert train(compose([*SHORT, *data], run_dir=tmp_path / "run")) == results


def test_a_run_on_other_files_is_refused(tmp_path):
    save_arrays(tmp_path / "my.npz")
    data = ["data=arrays", f"data.path={tmp_path}/my.npz"]
    train(compose([*SHORT, *data], run_dir=tmp_path / "run"))
    save_arrays(tmp_path / "my.npz", y_test=np.zeros(100, int))
    with pytest.raises(ValueError, match=r"data\.fingerprint must be"):
        train(compose([*SHORT, *data], run_dir=tmp_path / "run"))


def test_the_fingerprint_of_a_folder_is_that_of_its_files_and_their_names(tmp_path):
    save_pictures(tmp_path)
    before = fingerprint(str(tmp_path))
    (tmp_path / "train" / "a" / "0.png").rename(tmp_path / "train" / "b" / "0a.png")
    moved = fingerprint(str(tmp_path))
    (tmp_path / "test" / "c" / "0.png").write_bytes(b"other")
    assert len({before, moved, fingerprint(str(tmp_path))}) == 3
    assert fingerprint(str(tmp_path / "none")) is None


def test_the_fingerprint_follows_links_as_the_pictures_do(tmp_path):
    for name, content in (("one", b"1"), ("other", b"2")):
        (tmp_path / f"real {name}" / "a").mkdir(parents=True)
        (tmp_path / f"real {name}" / "a" / "0.png").write_bytes(content)
        (tmp_path / name).mkdir()
        (tmp_path / name / "train").symlink_to(tmp_path / f"real {name}")
        for k in range(3):  # without an end
            (tmp_path / name / f"{k}").mkdir()
            (tmp_path / name / f"{k}" / "next").symlink_to(tmp_path / name / f"{(k + 1) % 3}")
    assert fingerprint(str(tmp_path / "one")) != fingerprint(str(tmp_path / "other"))
    (tmp_path / "one" / "train").unlink()
    (tmp_path / "real one").rename(tmp_path / "one" / "train")
    copied = fingerprint(str(tmp_path / "one"))
    (tmp_path / "one" / "train").rename(tmp_path / "moved")
    (tmp_path / "one" / "train").symlink_to(tmp_path / "moved")
    assert fingerprint(str(tmp_path / "one")) == copied


def test_hidden_files_and_folders_are_neither_pictures_nor_part_of_the_data(tmp_path):
    save_pictures(tmp_path)
    before = fingerprint(str(tmp_path))
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "train" / "a" / "._0.png").write_bytes(b"no picture")
    for place in ("train", "train/a"):
        (tmp_path / place / ".ipynb_checkpoints").mkdir()
        Image.new("RGB", (24, 20)).save(tmp_path / place / ".ipynb_checkpoints" / "0.png")
    assert fingerprint(str(tmp_path)) == before
    module = FolderDataModule(root=str(tmp_path))
    assert module.classes == ("a", "b", "c")
    assert len(module.load("train")[0]) == 60


def test_all_pictures_that_can_be_read_are_known_by_their_suffix(tmp_path):
    suffixes = ("png", "JPG", "gif", "jp2", "jfif", "avif")
    for name in ("train/a", "train/b"):
        (tmp_path / name).mkdir(parents=True)
        for suffix in suffixes:
            Image.new("RGB", (24, 20)).save(tmp_path / name / f"0.{suffix}")
        (tmp_path / name / "notes.txt").write_text("no picture")
    images, labels = FolderDataModule(root=str(tmp_path)).load("train")
    assert sorted(labels.tolist()) == len(suffixes) * [0] + len(suffixes) * [1]
    assert len(images) == len(labels)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"x_train": np.zeros((4, 8))}, r"x_train and y_train of \S+ must be uint8 \(N, H, W\), "),
        ({"y_train": np.zeros(3, int)}, r"x_train .* must be .*, got uint8 .* and int64 \(3,\)"),
        ({"y_train": np.full(600, -1)}, r"x_train .* whole numbers >= 0"),
        ({"x_test": np.zeros((100, 8, 8), np.uint8)}, r"test set must be images \(3, 32, 32\) "),
        ({"y_test": np.full(100, 20)}, r"test set must be .* labels below 20, .*, 20$"),
        (
            {"classes": ["a", "b"]},
            r"training set must be .* labels below 2, .* of \S+my\.npz, .*, 19$",
        ),
        (
            {"y_train": np.full(600, 2**62)},
            r"y_train of \S+ must be labels below 100,000, got 4611",
        ),
        ({"classes": "ab"}, r"classes of \S+ must be a list of names by label, got "),
        ({"x_train": np.zeros((600, 3, 9, 4), np.uint8)}, r"x_train .* that cannot be channels"),
        ({"y_train": np.zeros(600, int)}, r"training set must be of two classes or more, got 0$"),
        ({"y_train": np.arange(600) // 30}, r"data.val_fraction must be 0 with images in the ord"),
        (
            {"y_train": np.arange(600)[::-1] // 30},
            r"data.val_fraction must be 0 with images in the",
        ),
        ({"y_train": np.arange(600) // 30 * 7 % 20}, r"data.val_fraction must be 0 with images"),
        (
            {"y_train": np.arange(600)[::-1] // 300},
            r"data.val_fraction must be 0 with images in th",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused_in_one_line(tmp_path, changes, line):
    save_arrays(tmp_path / "my.npz", **changes)
    with pytest.raises(ValueError, match=f"^{line}") as refused:
        ArraysDataModule(path=str(tmp_path / "my.npz")).setup()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("channels", [1, 2, 3, 10])
@pytest.mark.parametrize("axis", [1, 3])
def test_channels_of_squares_may_be_first_or_last_whatever_their_number(tmp_path, channels, axis):
    images = np.moveaxis(np.zeros((600, channels, 28, 28), np.uint8), 1, axis)
    save_arrays(tmp_path / "my.npz", x_train=images)
    assert ArraysDataModule(path=str(tmp_path / "my.npz")).shape == (channels, 28, 28)


def test_names_of_classes_may_be_bytes(tmp_path):
    save_arrays(tmp_path / "my.npz", classes=np.array([b"cat"] * 20))
    assert ArraysDataModule(path=str(tmp_path / "my.npz")).classes == ("cat",) * 20


@pytest.mark.parametrize(
    ("images", "labels", "got"),
    [
        (torch.rand(40, 1, 28, 28), torch.arange(40) % 2, r"float32, and 40 of torch\.int64"),
        (
            torch.zeros(40, 1, 28, 28, dtype=torch.uint8),
            torch.zeros(40).int(),
            r"torch\.int32$",
        ),
        (
            torch.zeros(40, 1, 28, 28, dtype=torch.uint8),
            torch.arange(40) - 1,
            r"and 40 of torch\.int64, the least -1$",
        ),
        (torch.zeros(0, 1, 28, 28, dtype=torch.uint8), torch.zeros(0).long(), "and 0 of torch"),
    ],
)
def test_what_load_gives_must_be_bytes_and_labels(images, labels, got):
    class Own(ImageDataModule):
        shape, classes = (1, 28, 28), ("a", "b")

        def load(self, split):
            return images, labels

    with pytest.raises(ValueError, match=f"^test set must be uint8 images and .*{got}"):
        Own().setup("test")


def test_the_statistics_of_pixels_are_those_of_all_images_at_once(tmp_path):
    save_arrays(tmp_path / "my.npz")
    data = ArraysDataModule(path=str(tmp_path / "my.npz"))
    data.setup("fit")
    pixels = data.splits["train"][0].double() / 255
    mean, std = data.pixel_statistics()
    torch.testing.assert_close(mean, pixels.mean((0, 2, 3)))
    torch.testing.assert_close(std, pixels.std((0, 2, 3), correction=0))


def test_what_is_no_data_set_is_refused_in_one_line(tmp_path):
    (tmp_path / "text.npz").write_text("text")
    save_arrays(tmp_path / "half.npz")
    (tmp_path / "half.npz").write_bytes((tmp_path / "half.npz").read_bytes()[:5000])
    (tmp_path / "empty.npz").touch()
    np.save(tmp_path / "one.npy", np.zeros(3))
    np.savez_compressed(tmp_path / "spoilt.npz", x_train=np.arange(10_000))
    content = bytearray((tmp_path / "spoilt.npz").read_bytes())
    content[200:210] = bytes(10)
    (tmp_path / "spoilt.npz").write_bytes(content)
    for name in ("text.npz", "none.npz", "half.npz", "empty.npz", "one.npy", "spoilt.npz"):
        with pytest.raises(ValueError, match=r"^data.path must be an .npz file .*, got /"):
            ArraysDataModule(path=str(tmp_path / name)).setup()
    with pytest.raises(ValueError, match=r"^data.path must be an .npz file .*, got ~no-such-user/"):
        ArraysDataModule(path="~no-such-user/my.npz").setup()
    with pytest.raises(ValueError, match=r"^data.root must be a folder with train/CLASS"):
        FolderDataModule(root="~no-such-user/my").setup()
    with pytest.raises(ValueError, match=r"^data.root must be a folder with train/CLASS"):
        FolderDataModule(root=str(tmp_path)).setup()
    save_pictures(tmp_path / "my")
    (tmp_path / "my" / "test" / "c").rename(tmp_path / "my" / "test" / "d")
    with pytest.raises(
        ValueError, match=r"/test must be .* the classes in \S+/train, got a, b, d$"
    ):
        FolderDataModule(root=str(tmp_path / "my")).setup("test")


def test_a_test_set_that_does_not_fit_is_refused_before_the_first_step(tmp_path):
    save_arrays(tmp_path / "my.npz", (28, 28), y_test=np.full(100, 20))
    data = ["data=arrays", f"data.path={tmp_path}/my.npz", "logger=none"]
    with pytest.raises(ValueError, match=r"^test set must be images"):
        train(compose([*SHORT, *data], run_dir=tmp_path / "run"))
    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
    train(compose([*SHORT, *data, "test=false"], run_dir=tmp_path / "other"))


def test_an_augmentation_that_does_not_fit_the_images_is_refused(tmp_path):
    save_arrays(tmp_path / "my.npz", (24, 32))
    path = str(tmp_path / "my.npz")
    with pytest.raises(ValueError, match=r"^data\.augment must be .* of 24 x 32, got elastic$"):
        ArraysDataModule(path=path, augment={"elastic": 0.4, "noise": 0.0}).setup()
    for shape, count in (((3, 28, 28), 10), ((28, 28), 20), ((64, 64), 10)):
        save_arrays(tmp_path / "my.npz", shape, count)
        with pytest.raises(ValueError, match=r"^data\.augment\.flourish must be 0 .* got 0\.5$"):
            ArraysDataModule(path=path, augment={"flourish": 0.5}).setup()
    save_arrays(tmp_path / "my.npz", (28, 28), 10)
    ArraysDataModule(path=path, augment={"flourish": 0.5}).setup()


def test_a_transform_that_cannot_take_the_images_is_named_before_the_first_step(tmp_path):
    save_arrays(tmp_path / "my.npz", (4, 8, 8))
    augment = compose(["augment=pictures"], run_dir="unused").data.augment
    options: dict[str, Any] = {"path": str(tmp_path / "my.npz"), "augment": augment}
    line = r"^data\.augment\.colour fails on images \(4, 8, 8\): .* 1 or 3, but found 4$"
    states = random.getstate(), torch.get_rng_state()
    with pytest.raises(ValueError, match=line):
        ArraysDataModule(**options).setup("fit")
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])


@pytest.mark.parametrize("name", ["cnn", "fast_cnn", "vgg"])
def test_images_that_are_too_small_for_a_network_are_refused(name):
    model = dict(compose([f"model={name}"], run_dir="unused").model)
    with pytest.raises(ValueError, match=r"^model: the images are too small"):
        build_network({**model, "shape": [1, 4, 4]})


def test_a_network_of_another_shape_is_refused_by_name(run, tmp_path):
    argv = [f"ckpt_path={run[0]}", "data=mnist", "data.val_fraction=0.2", "data.fold=0"]
    with pytest.raises(ValueError, match=r"^model.shape must be \[1, 28, 28\] for data.name=mnist"):
        evaluate(compose(argv, run_dir=tmp_path / "e", entry="evaluate"))


def test_a_label_means_the_same_to_all_networks_and_in_the_data(tmp_path):
    files = []
    for classes in (["zero", "one"], ["one", "zero"]):
        path = tmp_path / f"{classes[0]}.npz"
        save_arrays(path, (28, 28), count=2, classes=classes)
        data = {"name": "arrays", "path": str(path), "classes": classes}
        files.append(save_untrained(path.with_suffix(".safetensors"), data))
    zero, one = files
    line = r"^label 0 of data\.name=arrays must be one, as in training, got zero$"
    for ckpt_path, other in (
        (zero, f"compare={one}"),
        (f"[{zero},{one}]", "compare=null"),
        (one, f"data.path={tmp_path}/zero.npz"),
    ):
        with pytest.raises(ValueError, match=line):
            evaluated(ckpt_path, tmp_path / "out", other)
    digits = {"name": "mnist", "classes": list(mnist.DIGITS)}
    ours = save_untrained(tmp_path / "mnist.safetensors", digits)
    with pytest.raises(ValueError, match=r"^label 0 of data\.name=kmnist must be 0, .*, got o$"):
        evaluated(ours, tmp_path / "out", "data=kmnist")  # before it is downloaded


def test_only_the_images_of_a_training_are_called_its_own(tmp_path):
    path, out = tmp_path / "my.npz", tmp_path / "out"
    save_arrays(path, (28, 28), count=2)
    data: dict[str, Any] = {"name": "arrays", "path": str(path)}
    data |= {"fingerprint": fingerprint(str(path))}
    data |= {"val_fraction": 0.2, "fold": 0, "split": "rows", "per_class": None, "seed": 0}
    choices = [{}, {"seed": 1}, {"per_class": 9}, {"per_class": 9, "seed": 1}]
    files = [
        save_untrained(tmp_path / f"{k}.safetensors", {**data, "classes": ["0", "1"], **choice})
        for k, choice in enumerate(choices)
    ]
    whole, other_seed, few, other_few = files
    assert evaluated(f"[{whole},{other_seed}]", out, "split=train")["images"] == 480
    for ckpt_path, line in (
        (f"[{whole},{few}]", r"^data\.per_class must be 9 with split=train, .*, got null$"),
        (f"[{few},{other_few}]", r"^data\.seed must be 1 with split=train, .*, got 0$"),
    ):
        with pytest.raises(ValueError, match=line):
            evaluated(ckpt_path, out, "split=train")
    save_arrays(path, (28, 28), count=2, y_test=np.zeros(100, int))
    for option in ("split=val", "split=train", "temperature=true"):
        with pytest.raises(ValueError, match=rf"^data\.fingerprint must be \w+ with {option}"):
            evaluated(whole, out, option)
    path.unlink()
    for option in ("split=val", "split=test"):
        with pytest.raises(ValueError, match=r"^data\.path must be an \.npz file \(.*No such file"):
            evaluated(whole, out, option)


def test_a_folder_of_training_that_is_gone_is_named(tmp_path):
    data: dict[str, Any] = {"name": "mine", "root": str(tmp_path / "gone"), "classes": ["0", "1"]}
    data |= {"val_fraction": 0.2, "fold": 0, "split": "rows"}
    net = save_untrained(tmp_path / "net.safetensors", data)
    for option in ("split=val", "split=test"):
        with pytest.raises(
            ValueError, match=rf"^data\.root must be a folder .*, got {tmp_path}/gone$"
        ):
            evaluated(net, tmp_path / "out", option)


def test_images_that_no_network_is_loaded_for_are_not_trained_on(tmp_path):
    images = np.zeros((2, 3400, 3000), np.uint8)
    save_arrays(tmp_path / "large.npz", x_train=images, y_train=np.arange(2))
    with pytest.raises(ValueError, match=r"^shape must be three sides, of at most 10,000,000 pixe"):
        ArraysDataModule(path=str(tmp_path / "large.npz")).setup()


def test_a_network_of_dark_digits_on_light_reads_no_page(tmp_path):
    for ground in (0, 200):
        noise = np.random.default_rng(0).integers(0, 50, (600, 28, 28), np.uint8)
        images = {"x_train": noise + np.uint8(ground), "x_test": noise[:100] + np.uint8(ground)}
        save_arrays(tmp_path / "my.npz", (28, 28), count=10, **images)
        folder = tmp_path / str(ground)
        data = ["data=arrays", f"data.path={tmp_path}/my.npz", "logger=none"]
        train(compose([*SHORT, *data], run_dir=folder))
        for file in ("checkpoints/best.ckpt", "weights.safetensors"):
            net = predictor.load(folder / file)
            assert net.reads_digits == (ground == 0)
    with pytest.raises(ValueError, match=r"^net must be a network of 28x28 digits"):
        read_digits(noise[0], net)
