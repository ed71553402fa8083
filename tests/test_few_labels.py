"""Learning from few labels and many images without: batches, steps, and what a run leaves."""

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch.nn.functional import cross_entropy

from mnist_cnn.build import make_module
from mnist_cnn.checks.folders import last, results, weights
from mnist_cnn.config.compose import CONF, compose, resolved
from mnist_cnn.config.parse import Config, parse
from mnist_cnn.data import mnist
from mnist_cnn.data.datamodule import MNISTDataModule
from mnist_cnn.data.loader import MixedLoader
from mnist_cnn.export import export
from mnist_cnn.few_labels import FewLabels
from mnist_cnn.weights.predictor import load
from tests.helpers.process import run as process
from tests.helpers.training import TINY, evaluated, trained

FEW = [
    *("module=few_labels", "data.per_class=10", "+data.unlabeled=128", "data.batch_size=32"),
    *("model=fast_cnn", "optimizer=sgd_fast", "callbacks=no_early_stopping"),
    "trainer.max_epochs=1",
    "module.threshold=0.2",
]
ALL = ["data.val_fraction=0", "scheduler=one_cycle"]


def mixed(**changes) -> MixedLoader:
    labels = torch.cat([torch.arange(10), torch.full((100,), -1)])
    images = torch.arange(110, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 28, 28)
    options = {"batch_size": 4, "seed": 3, "shuffle": True, **changes}
    return MixedLoader(images, labels, 16, **options)


def seen(batches) -> list[tuple[list[int], list[int]]]:
    return [((x[:, 0, 0, 0] * 255).round().int().tolist(), y.tolist()) for x, y in batches]


def test_a_batch_has_images_with_labels_and_an_epoch_each_one_without_once():
    batches = seen(mixed())
    assert len(batches) == len(mixed()) == 7
    assert [len(y) for _, y in batches] == [mixed().size(k) for k in range(7)] == [20] * 6 + [8]
    assert all(y[4:] == [-1] * len(y[4:]) and x[:4] == y[:4] for x, y in batches)
    assert sorted(row for x, _ in batches for row in x[4:]) == list(range(10, 110))
    labeled = [label for _, y in batches for label in y[:4]]
    assert all(2 <= labeled.count(label) <= 3 for label in range(10))
    other = mixed()
    other.set_epoch(1)
    assert seen(other) != batches


def test_a_batch_is_divided_among_processes_and_resumed_in_its_place():
    ranks = [seen(mixed(rank=rank, world_size=2)) for rank in range(2)]
    for (x, _), *parts in zip(seen(mixed()), *ranks, strict=True):
        assert sorted(x) == sorted(row for part, _ in parts for row in part)
    resumed = mixed()
    resumed.load_state_dict({"epoch": 0, "batch": 5})
    assert seen(resumed) == seen(mixed())[5:]


def test_only_the_chosen_images_keep_their_labels():
    data = MNISTDataModule(per_class=2, unlabeled=64, val_fraction=0.2)
    data.setup("fit")
    images, labels = data.splits["unlabeled"]
    assert len(images) == 48_000 - 20
    assert labels.unique().tolist() == [-1]
    rows = torch.cat([data.rows[split] for split in ("train", "unlabeled", "val")])
    assert torch.equal(rows.sort().values, torch.arange(60_000))


def test_the_labels_of_images_without_do_not_reach_the_weights(tmp_path, monkeypatch):
    one = trained(tmp_path / "one", *FEW, *ALL)
    images, labels = mnist.load_split("mnist", "", "train")
    data = MNISTDataModule(per_class=10, val_fraction=0.0)
    data.setup("fit")
    chosen = data.rows["train"]
    other = labels[torch.randperm(len(labels))]
    other[chosen] = labels[chosen]
    monkeypatch.setattr(MNISTDataModule, "training_rows", lambda *args: chosen)
    monkeypatch.setattr(mnist, "load_split", lambda *args: (images, other))
    two = trained(tmp_path / "two", *FEW, *ALL)
    assert results(one)["train/confident"] > 0
    for name, weight in last(one)["state_dict"].items():
        assert torch.equal(weight, last(two)["state_dict"][name])


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    whole = "trainer.limit_val_batches=1.0"
    return trained(tmp_path_factory.mktemp("few_labels") / "run", *FEW, whole)


def test_the_average_of_the_weights_is_what_is_measured_saved_loaded_and_exported(run, tmp_path):
    kept = last(run)["state_dict"]
    net = {k.removeprefix("net."): weight for k, weight in kept.items() if k.startswith("net.")}
    assert not torch.equal(net["dense2.weight"], kept["student.dense2.weight"])
    loaded = load(run)
    export(loaded, ["safetensors"], tmp_path)
    exported = load(tmp_path / "mnist_cnn.safetensors")
    for found in (weights(run), loaded.net.state_dict(), exported.net.state_dict()):
        assert all(torch.equal(weight, net[name]) for name, weight in found.items())
    assert results(run)["parameters"] == sum(p.numel() for p in loaded.parameters())
    assert evaluated(run, tmp_path / "val", "split=val")["acc"] == results(run)["val/acc"]


NOTHING = dict.fromkeys(("degrees", "shift", "scale", "stretch", "shear", "erase"), 0)


def module(bias: torch.Tensor, **changes) -> FewLabels:
    """Return a module after many steps, whose average predicts by this bias (10,) alone."""
    cfg: Any = OmegaConf.merge(compose([*TINY, *FEW], run_dir="unused"), {"module": changes})
    few: Any = make_module(parse(resolved(cfg), Config))
    few.trainer = SimpleNamespace(world_size=1, global_step=10**6)
    few.log = lambda *args, **options: None
    few.on_train_epoch_start()
    few.net.dense2.weight.zero_()
    few.net.dense2.bias.copy_(bias)
    return few


@pytest.mark.parametrize("confident", [True, False])
def test_a_confident_prediction_is_the_label_of_an_image_without_one(confident):
    few = module(20.0 * confident * torch.eye(10)[3], strong=NOTHING, threshold=0.9)
    images, labels = torch.rand(6, 1, 28, 28), torch.tensor([1, 2, -1, -1, -1, -1])
    loss = few.training_step((images, labels), 0)
    logits = few.student(images)
    wanted = cross_entropy(logits[:2], labels[:2])
    if confident:
        wanted = wanted + cross_entropy(logits[2:], torch.full((4,), 3))
    torch.testing.assert_close(loss, wanted)
    assert few.confident.compute() == float(confident)


def test_predictions_come_to_have_classes_that_are_nearly_equally_frequent():
    few = module(torch.linspace(0, 3, 10))
    images = torch.rand(2, 1, 28, 28)
    assert few.predictions(images)[0, 9] > 0.25
    for _ in range(500):
        aligned = few.predictions(images)
    assert aligned.min() > 0.07
    assert aligned.max() < 0.13


def test_offsets_are_exact_in_any_precision_and_go_where_the_images_are():
    few = module(torch.linspace(0, 3, 10))
    with torch.autocast("cpu", torch.bfloat16):
        few.predictions(torch.rand(2, 1, 28, 28))
    assert few.offsets is not None
    assert few.offsets.dtype == torch.float32
    few.to("meta")  # as a resumed run moves it to a GPU, after the checkpoint is read
    few.predictions(torch.rand(2, 1, 28, 28, device="meta"))
    assert few.offsets.device.type == "meta"


def test_a_class_that_is_lost_to_another_is_predicted_again():
    few = module(8.0 * torch.eye(10)[8])
    images = torch.rand(2, 1, 28, 28)
    assert few.predictions(images)[0, 3] < 0.001
    for _ in range(500):
        aligned = few.predictions(images)
    assert aligned[0, 3] > 0.05


def test_the_average_follows_the_student_and_has_no_gradient():
    few = module(torch.zeros(10), decay=0.75)
    few.student.dense2.bias.data.fill_(4.0)
    few.student.norm1.running_mean.fill_(8.0)
    few.on_train_batch_end(None, (torch.empty(0), torch.empty(0)), 0)
    assert few.net.dense2.bias.tolist() == [1.0] * 10
    assert few.net.norm1.running_mean.tolist() == [2.0] * 4
    assert not any(p.requires_grad for p in few.net.parameters())


def test_strokes_that_tell_the_label_are_for_digits_alone():
    few: Any = module(torch.zeros(10), strong={**NOTHING, "flourish": 0.25})
    for name in ("mnist", "fashion_mnist"):
        few.trainer = SimpleNamespace(datamodule=MNISTDataModule(name=name), callbacks=[])
        refused = pytest.raises(
            ValueError, match=r"^module\.strong\.flourish must be 0 .*, got 0\.25$"
        )
        with contextlib.nullcontext() if name == "mnist" else refused:
            few.setup("fit")


@pytest.mark.slow
def test_the_checks_pass_it(tmp_path):
    data = tmp_path / "data" / "few.yaml"
    data.parent.mkdir()
    data.write_text("defaults: [mnist, _self_]\nper_class: 10\nunlabeled: 128\n")
    module = CONF / "module" / "few_labels.yaml"
    done = process(tmp_path, "mnist_cnn.checks", "-q", f"--module={module}", f"--data={data}")
    assert done.returncode == 0, done.stdout
