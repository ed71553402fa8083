"""The data module splits the training file as the tutorial does and leaves the test set apart."""

from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from mnist_cnn.config.compose import compose
from mnist_cnn.data import datamodule, sets, sources
from mnist_cnn.data.datamodule import MNISTDataModule


def module(**changes) -> MNISTDataModule:
    config: Any = OmegaConf.to_container(compose(run_dir="unused").data, resolve=True)
    data = MNISTDataModule(**{**{k: v for k, v in config.items() if k != "_target_"}, **changes})
    data.prepare_data()
    return data


@pytest.fixture(scope="module")
def train_file():
    data = module()
    return sources.load("mnist", data.root, "train")


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
        assert torch.equal(labels, sources.load("mnist", data.root, "test")[1])


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
    before = datamodule.load.cache_info()
    data = module()
    data.setup("fit")
    after = datamodule.load.cache_info()
    assert (after.hits, after.misses) == (before.hits + 1, before.misses)
    images, labels = (torch.cat([data.splits[k][i] for k in ("val", "train")]) for i in (0, 1))
    assert torch.equal(images.squeeze(1), train_file[0])
    assert torch.equal(labels, train_file[1])
