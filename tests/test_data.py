"""The data module splits the training file like the tutorial and keeps the test set separate."""

import hashlib
import math

import lightning as L
import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from mnist_cnn.config.compose import compose, resolved
from mnist_cnn.config.parse import Config, parse
from mnist_cnn.data import mnist, writers
from mnist_cnn.data.datamodule import MNISTDataModule
from tests.helpers.training import trained


def module(stage: str | None = None, **changes) -> MNISTDataModule:
    data = MNISTDataModule(**changes)
    data.prepare_data()
    if stage != "none":
        data.setup(stage)
    return data


@pytest.fixture(scope="module")
def train_file():
    return mnist.load_split("mnist", "unused", "train")


def test_validation_is_the_first_fifth_of_the_training_file(train_file):
    images, labels = train_file
    data = module("fit")
    assert torch.equal(data.splits["val"][0].squeeze(1), images[:12_000])
    assert torch.equal(data.splits["val"][1], labels[:12_000])
    assert torch.equal(data.splits["train"][0].squeeze(1), images[12_000:])
    assert torch.equal(data.splits["train"][1], labels[12_000:])
    assert data.splits["train"][0].dtype == torch.uint8


def test_five_folds_validate_on_every_image_once(train_file):
    folds = [module("fit", fold=fold).splits for fold in range(5)]
    assert {len(splits["train"][1]) for splits in folds} == {48_000}
    assert torch.equal(torch.cat([splits["val"][1] for splits in folds]), train_file[1])


@pytest.mark.parametrize("split", ["rows", "writers"])
def test_all_sixty_thousand_train_where_nothing_validates(split):
    data = module("fit", val_fraction=0.0, split=split)
    assert torch.equal(data.rows["train"], torch.arange(60_000))
    assert len(data.val_dataloader()) == 0


def test_a_choice_per_class_is_by_seed_and_within_every_greater_one(train_file):
    few, more = (module("fit", per_class=n, seed=1).rows["train"] for n in (3, 30))
    for n, rows in ((3, few), (30, more)):
        assert torch.equal(torch.bincount(train_file[1][rows]), torch.full((10,), n))
    assert set(few.tolist()) < set(more.tolist())
    assert not set(more.tolist()) & set(range(12_000))  # the validation images
    other = module("fit", per_class=30, seed=2).rows["train"]
    assert len(set(more.tolist()) & set(other.tolist())) < 30


def test_more_than_a_class_has_is_refused():
    with pytest.raises(ValueError, match=r"^data\.per_class must be at most 4373, .* got 4400$"):
        module("fit", per_class=4400)


def test_all_ten_thousand_test_images_are_handed_out_in_order():
    data = module("test")
    for loader in (data.test_dataloader(), data.predict_dataloader()):
        labels = torch.cat([y for _, y in loader])
        assert torch.equal(labels, mnist.load_split("mnist", "unused", "test")[1])


def test_only_training_is_shuffled():
    data = module()
    assert not torch.equal(next(iter(data.train_dataloader()))[1], data.splits["train"][1][:64])
    assert torch.equal(next(iter(data.val_dataloader()))[1], data.splits["val"][1][:200])
    first = next(iter(module(shuffle=False).train_dataloader()))[1]
    assert torch.equal(first, data.splits["train"][1][:64])


@pytest.mark.parametrize(("epochs", "augmented"), [(10, 9), (-1, math.inf)])
def test_augmentation_has_no_end_where_the_epochs_are_not_limited(epochs, augmented):
    data = module(clean_epochs=1)
    data.trainer = L.Trainer(max_epochs=epochs, logger=False, enable_checkpointing=False)
    assert data.train_dataloader().augmented_epochs == augmented


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("batch_size", 0),
        ("val_fraction", 1.5),
        ("fold", 5),
        ("split", "hands"),
        ("seed", -1),
        ("per_class", 0),
    ],
)
def test_a_value_out_of_its_range_is_refused_by_its_key(key, value):
    with pytest.raises(ValueError, match=rf"^data\.{key}.*, got {value}$") as refused:
        module("none", **{key: value})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"val_fraction": 1e-6}, "val_fraction must be .*, got 1e-06"),
        ({"split": "writers", "val_fraction": 1 / 600, "fold": 599}, "val_fraction must be 0 or "),
        ({"split": "writers", "val_fraction": 0.9999}, "val_fraction must be 0 or .* to training"),
        ({"split": "writers_by_series"}, "val_fraction must be 0.5 with"),
    ],
)
def test_a_fold_that_cannot_be_filled_is_refused(changes, key):
    with pytest.raises(ValueError, match=rf"^data\.{key}"):
        module("fit", **changes)


def test_writers_of_other_sets_are_not_known():
    cfg = compose(["experiment=fast", "data=fashion_mnist"], run_dir="unused")
    assert parse(resolved(cfg), Config).data["split"] == "writers"
    data = MNISTDataModule(name="kmnist", split="writers")
    with pytest.raises(ValueError, match=r"^data\.split must be rows with data=kmnist"):
        data.validation_rows(torch.zeros(10))


class Named(MNISTDataModule):
    """Images whose writers are told, or not, whatever the name of the set."""

    def writers(self, split: str) -> writers.Writers | None:
        return None if self.name == "mnist" else writers.mnist_writers(split)


def test_a_set_of_the_users_tells_by_itself_whether_its_writers_are_known(train_file):
    labels = train_file[1]
    told = Named(name="kmnist", split="writers").validation_rows(labels)
    assert torch.equal(told, module("fit", split="writers").rows["val"])
    with pytest.raises(ValueError, match=r"^data\.split must be rows with data=mnist"):
        Named(name="mnist", split="writers").validation_rows(labels)


def test_runs_of_one_process_share_the_images_and_leave_them_alone(tmp_path, train_file):
    before = [tensor.clone() for tensor in train_file]
    trained(tmp_path, "augment=photo", "trainer.max_epochs=1")
    data = module("fit")
    again = mnist.load_split("mnist", data.root, "train")
    assert again is mnist.load_split("mnist", data.root, "train")
    for tensor, then in zip(again, before, strict=True):
        assert torch.equal(tensor, then)


def test_folds_of_writers_share_no_writer_and_are_alike_in_series_and_classes(train_file):
    labels, known = train_file[1], writers.mnist_writers("train")
    students, validated = known.series == 4, []
    for fold in range(5):
        data = module("fit", split="writers", fold=fold)
        val, train = data.rows["val"], data.rows["train"]
        assert not set(known.writer[val].tolist()) & set(known.writer[train].tolist())
        assert len(val) == pytest.approx(12_000, abs=50)
        share = students[val].double().mean().item()
        assert share == pytest.approx(29_050 / 60_000, abs=0.002)
        classes = torch.bincount(labels[val], minlength=10) / len(val)
        torch.testing.assert_close(classes, torch.bincount(labels) / 60_000, atol=0.001, rtol=0)
        validated.append(val)
    assert torch.equal(torch.cat(validated).sort().values, torch.arange(60_000))


def test_folds_of_writers_are_the_same_on_every_machine(train_file):
    folds = writers.writer_folds(writers.mnist_writers("train"), train_file[1], 0.2)
    digest = hashlib.sha256(folds.numpy().astype("u1").tobytes()).hexdigest()
    assert digest == "7145d632e536d582e6346cc4d6ea078aad30e5f9142d0a9fd0beda8cda986fa7"


def test_series_are_folds_of_their_own():
    known = writers.mnist_writers("train")
    for fold, series in enumerate((0, 4)):
        data = module("fit", split="writers_by_series", val_fraction=0.5, fold=fold)
        assert set(known.series[data.rows["val"]].tolist()) == {series}
        assert len(data.rows["val"]) + len(data.rows["train"]) == 60_000
        assert series not in known.series[data.rows["train"]]


def test_a_relative_path_is_absolute_in_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = resolved(compose(["data=arrays", "data.path=my.npz"], run_dir="run"))
    assert values["data"]["path"] == str(tmp_path / "my.npz")
    values = resolved(compose(["data.root='~/data'"], run_dir="run"))
    assert values["data"]["root"] == "~/data"
    hydra = {"runtime": {"cwd": "/before"}, "mode": RunMode.RUN}  # hydra.job.chdir=true
    changed = OmegaConf.create({"hydra": hydra})
    monkeypatch.setattr(HydraConfig.instance(), "cfg", changed)
    values = resolved(compose(["init_weights=x"], run_dir="run", run_name="x"))
    assert values["init_weights"] == "/before/x"
