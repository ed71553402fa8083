"""The data module splits the training file as the tutorial does and leaves the test set apart."""

import hashlib
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from mnist_cnn.config.check import check
from mnist_cnn.config.compose import compose
from mnist_cnn.data import datamodule, sets, sources, writers
from mnist_cnn.data.datamodule import MNISTDataModule


def module(**changes) -> MNISTDataModule:
    config: Any = OmegaConf.to_container(compose(run_dir="unused").data, resolve=True)
    data = MNISTDataModule(**{**{k: v for k, v in config.items() if k != "_target_"}, **changes})
    data.prepare_data()
    return data


@pytest.fixture(scope="module")
def train_file():
    data = module()
    return sources.load_split("mnist", data.root, "train")


def test_validation_is_the_first_fifth_of_the_training_file(train_file):
    images, labels = train_file
    data = module()
    data.setup("fit")
    assert torch.equal(data.splits["val"][0].squeeze(1), images[:12_000])
    assert torch.equal(data.splits["val"][1], labels[:12_000])
    assert torch.equal(data.splits["train"][0].squeeze(1), images[12_000:])
    assert torch.equal(data.splits["train"][1], labels[12_000:])


def test_five_folds_validate_on_every_image_once(train_file):
    _, labels = train_file
    validated = []
    for fold in range(5):
        data = module(fold=fold)
        data.setup("fit")
        validated.append(data.splits["val"][1])
        assert len(data.splits["train"][1]) == 48_000
    assert torch.equal(torch.cat(validated), labels)


def test_all_sixty_thousand_train_where_nothing_validates(train_file):
    data = module(val_fraction=0.0)
    data.setup("fit")
    assert torch.equal(data.splits["train"][1], train_file[1])
    assert len(data.val_dataloader()) == 0
    with pytest.raises(ValueError, match=r"^data.fold must be 0 to 0 with"):
        module(val_fraction=0.0, fold=1)


def test_all_ten_thousand_test_images_are_handed_out_in_order():
    data = module()
    data.setup("test")
    for loader in (data.test_dataloader(), data.predict_dataloader()):
        labels = torch.cat([y for _, y in loader])
        assert torch.equal(labels, sources.load_split("mnist", data.root, "test")[1])


def test_only_training_is_shuffled():
    data = module()
    data.setup()
    assert not torch.equal(next(iter(data.train_dataloader()))[1], data.splits["train"][1][:64])
    assert torch.equal(next(iter(data.val_dataloader()))[1], data.splits["val"][1][:500])
    unshuffled = module(shuffle=False)
    unshuffled.setup()
    first = next(iter(unshuffled.train_dataloader()))[1]
    assert torch.equal(first, unshuffled.splits["train"][1][:64])


def test_images_are_kept_as_bytes():
    data = module()
    data.setup("test")
    assert data.splits["test"][0].dtype == torch.uint8


def test_classes_have_their_names():
    assert module().classes == tuple("0123456789")
    fashion = compose(["data=fashion_mnist"], run_dir="unused").data.name
    assert sets.SETS[fashion].classes[0] == "T-shirt/top"


def test_a_fold_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"^data.fold must be 0 to 4 with"):
        module(fold=5)


def test_a_fraction_too_small_for_one_image_is_refused():
    data = module(val_fraction=1e-6)
    with pytest.raises(ValueError, match=r"data\.val_fraction must be .*, got 1e-06"):
        data.setup("fit")


def test_runs_of_one_process_share_the_files_content_and_leave_it_alone(short_run, train_file):
    short_run("run", "augment=photo", "trainer.max_epochs=1")
    before = datamodule.load_split.cache_info()
    data = module()
    data.setup("fit")
    after = datamodule.load_split.cache_info()
    assert (after.hits, after.misses) == (before.hits + 1, before.misses)
    images, labels = (torch.cat([data.splits[k][i] for k in ("val", "train")]) for i in (0, 1))
    assert torch.equal(images.squeeze(1), train_file[0])
    assert torch.equal(labels, train_file[1])


def test_folds_of_writers_share_no_writer_and_are_alike_in_series_and_classes(train_file):
    labels, known = train_file[1], writers.mnist_writers("train")
    students, validated = known.series == 4, []
    for fold in range(5):
        data = module(split="writers", fold=fold)
        data.setup("fit")
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
        data = module(split="writers_by_series", val_fraction=0.5, fold=fold)
        data.setup("fit")
        assert set(known.series[data.rows["val"]].tolist()) == {series}
        assert len(data.rows["val"]) + len(data.rows["train"]) == 60_000
        assert series not in known.series[data.rows["train"]]


def test_where_all_images_train_the_split_changes_nothing():
    data = module(split="writers", val_fraction=0.0)
    data.setup("fit")
    assert torch.equal(data.rows["train"], torch.arange(60_000))
    check(compose(["experiment=fast", "data=fashion_mnist"], run_dir="unused"))


def test_test_images_are_by_other_writers():
    known = [set(writers.mnist_writers(split).writer.tolist()) for split in ("train", "test")]
    assert [len(each) for each in known] == [539, 297]
    assert not known[0] & known[1]


def test_folds_that_writers_cannot_fill_are_refused():
    data = module(split="writers", val_fraction=1 / 600, fold=599)
    with pytest.raises(ValueError, match=r"^data.val_fraction must be far above 1/539 with"):
        data.setup("fit")


def test_writers_in_a_damaged_file_are_refused(tmp_path, monkeypatch):
    content = bytearray(writers.FILE.read_bytes())
    content[1000] ^= 1
    (tmp_path / "damaged.npz").write_bytes(content)
    monkeypatch.setattr(writers, "FILE", tmp_path / "damaged.npz")
    with pytest.raises(OSError, match=r"damaged.npz: is damaged, its SHA-256 is another"):
        writers.mnist_writers.__wrapped__("train")
