"""DigitClassifier: exact metrics, self-contained checkpoints, loading of weights."""

import json
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler
from torchmetrics.classification import MulticlassF1Score

from mnist_cnn import metrics
from mnist_cnn.checks.folders import results
from mnist_cnn.data import mnist
from mnist_cnn.data.datamodule import MNISTDataModule
from mnist_cnn.metrics import EpochMetrics
from mnist_cnn.module import DigitClassifier
from mnist_cnn.weights import predictor
from tests.helpers.own_data import Own
from tests.helpers.training import bare_trainer, trained

CNN = {
    **{"_target_": "mnist_cnn.model.CNN", "channels": [4, 8], "hidden": 16, "dropout": 0.0},
    **{"mean": 0.1, "std": 0.3},
}
ADAM = {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 1e-3}


def module(label_smoothing: float = 0.0, **model) -> DigitClassifier:
    return DigitClassifier(
        model={**CNN, **model}, optimizer=ADAM, scheduler={}, label_smoothing=label_smoothing
    )


def test_metrics_count_every_image_once_whatever_the_batches():
    logits, labels = torch.randn(103, 10), torch.randint(10, (103,))
    counts = EpochMetrics()
    for part, truth in zip(logits.split(10), labels.split(10), strict=True):
        counts.add(F.cross_entropy(part, truth), part, truth)
    loss, images, hits, labelled = counts.totals()
    assert images == labelled == 103
    assert hits == (logits.argmax(1) == labels).sum()
    assert loss / images == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-6)


def test_images_without_a_label_count_in_the_loss_alone_also_after_a_resume():
    logits, labels = torch.randn(40, 10), torch.arange(40) % 12 - 2
    counts, resumed = EpochMetrics(), EpochMetrics()
    counts.add(torch.tensor(1.0), logits[:25], labels[:25])
    resumed.load_state_dict(counts.state_dict())
    for each in (counts, resumed):
        each.add(torch.tensor(2.0), logits[25:], labels[25:])
        hits = int((logits.argmax(1) == labels).sum())
        assert each.totals() == (25 + 30, 40, hits, int((labels >= 0).sum()))


def test_logits_are_counted_and_dropped_before_they_are_many_also_after_a_resume(monkeypatch):
    logits, labels = torch.randn(500, 10), torch.arange(500) % 12 - 2
    f1 = {"f1": MulticlassF1Score(10, average="macro")}
    each = {"all kept": EpochMetrics(f1), "few": EpochMetrics(f1), "resumed": EpochMetrics(f1)}
    for number, rows in enumerate(torch.arange(500).split(30)):
        for name, found in each.items():
            monkeypatch.setattr(metrics, "KEPT", math.inf if name == "all kept" else 1000)
            found.add(torch.tensor(0.1 * number), logits[rows], labels[rows])
            assert name == "all kept" or sum(x.numel() for x in found.logits) < 1000
        if number in (2, 3, 7):  # before, just after and long after logits are dropped
            state, each["resumed"] = each["resumed"].state_dict(), EpochMetrics(f1)
            each["resumed"].load_state_dict(state)
    totals = {found.totals() for found in each.values()}
    scores = {found.computed()["f1"].item() for found in each.values()}
    assert (len(totals), len(scores)) == (1, 1)
    assert f1["f1"].update_count == 0


def test_labels_are_smoothed_in_training_alone():
    batch = torch.rand(5, 1, 28, 28), torch.arange(5)
    net = module(label_smoothing=0.1)
    logits = net(batch[0])
    net.trainer = bare_trainer()
    net.on_train_epoch_start()
    net.on_validation_epoch_start()
    smooth = F.cross_entropy(logits, batch[1], label_smoothing=0.1)
    torch.testing.assert_close(net.training_step(batch, 0), smooth)
    net.validation_step(batch, 0)
    torch.testing.assert_close(
        net.epoch_metrics["val"].losses[0], F.cross_entropy(logits, batch[1])
    )


def test_auto_takes_the_mean_and_std_of_the_training_images(tmp_path):
    changes = ["model.mean=auto", "model.std=auto", "trainer.max_epochs=1"]
    trained(tmp_path / "run", *changes, "callbacks=averaging", "callbacks.summary=null")
    for file in ("checkpoints/best.ckpt", "weights.safetensors"):
        net = predictor.load(tmp_path / "run" / file)
        images, _ = mnist.load_split("mnist", net.about["data"]["root"], "train")
        pixels = images[12_000:].double() / 255
        found = [net.net.state_dict()[f"normalize.{name}"].item() for name in ("mean", "std")]
        assert found == pytest.approx([pixels.mean().item(), pixels.std().item()], rel=1e-6)


def test_weights_go_into_a_new_network(tmp_path):
    trained, fresh = module(), module()
    x = torch.rand(3, 1, 28, 28)
    assert not torch.equal(trained(x), fresh(x))
    trained.save_weights(tmp_path / "w.safetensors", {"data": {"fold": 0}})
    fresh.load_weights(tmp_path / "w.safetensors")
    assert torch.equal(trained(x), fresh(x))
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        about = json.loads(file.metadata()["about"])
    assert about == {"model": CNN, "data": {"fold": 0}, "format_version": 1}


def test_equal_weights_give_equal_files_that_others_may_read(tmp_path):
    net, (first, *others) = module(), [tmp_path / f"{k}.safetensors" for k in range(9)]
    for path in (first, *others):
        net.save_weights(path, {"data": {"fold": 0, "val_fraction": 0.2}, "seed": 3})
    assert all(path.read_bytes() == first.read_bytes() for path in others)
    (tmp_path / "plain").touch()
    assert first.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_weights_of_another_shape_are_refused_key_by_key_and_change_nothing(tmp_path):
    module(hidden=32).save_weights(tmp_path / "w.safetensors")
    net = module()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(ValueError, match="does not fit this network") as refused:
        net.load_weights(tmp_path / "w.safetensors")
    assert "dense1.weight: (32, 200) in the file, (16, 200) in the net" in str(refused.value)
    assert "dense2.weight: (10, 32) in the file, (10, 16) in the net" in str(refused.value)
    assert "conv1" not in str(refused.value)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("count", [20, 6858])  # batches of 7 among 48,000 images: the last has 1
def test_a_last_batch_of_one_image_is_refused_by_what_cannot_normalise_it(count, tmp_path):
    options = ["model=fast_cnn", "data.batch_size=7", f"trainer.limit_train_batches={count}"]
    options += ["model.hidden=8", "trainer.max_epochs=1"]
    if count == 20:
        trained(tmp_path, *options)
        return
    with pytest.raises(ValueError, match=r"^data\.batch_size=7: .*more than 1 value per channel"):
        trained(tmp_path, *options)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            "optimizer=sgd optimizer.nesterov=false +optimizer.maximize=[1]",
            "optimizer: torch.optim.SGD: ",
        ),
        (
            "optimizer._target_=torch.optim.SparseAdam ~optimizer.fused ~optimizer.weight_decay",
            "optimizer: torch.optim.SparseAdam: SparseAdam does not support .* got lr=0",
        ),
        (
            "scheduler=cosine ~scheduler.eta_min +scheduler.step_size=0"
            " scheduler._target_=torch.optim.lr_scheduler.StepLR",
            "scheduler: StepLR: ",
        ),
    ],
)
def test_what_fails_in_a_step_alone_is_named(options, line, tmp_path):
    with pytest.raises(ValueError, match=f"^{line}"):
        trained(tmp_path, *options.split(), "trainer.max_epochs=2")


class Sampled(MNISTDataModule):
    """The first 200 training images, drawn so that classes are equally frequent."""

    def train_dataloader(self) -> Any:
        images, labels = (part[:200] for part in self.splits["train"])
        sampler = WeightedRandomSampler((1 / labels.bincount()[labels]).tolist(), 200)
        return DataLoader(TensorDataset(images / 255, labels), 64, sampler=sampler)


def test_data_of_this_project_may_have_another_loader():
    trainer = bare_trainer(max_epochs=1, limit_val_batches=0)
    trainer.fit(DigitClassifier(), Sampled())
    assert trainer.global_step == 4


class Seven(Own):
    classes = tuple("abcdefg")


def test_data_that_name_fewer_classes_than_the_network_tells_are_refused():
    line = r"^logits must be \(32, 7\) for data with the classes a, b, .*, got \(32, 10\)$"
    with pytest.raises(ValueError, match=line):
        bare_trainer(max_epochs=1).fit(DigitClassifier(), Seven())


def test_metrics_of_many_classes_are_updated_with_few_images_at_a_time(monkeypatch):
    sizes: list[int] = []

    class Counted(MulticlassF1Score):
        def update(self, preds: Tensor, target: Tensor) -> None:
            sizes.append(len(preds))
            super().update(preds, target)

    found = []
    for pairs in (2**24, 300):
        monkeypatch.setattr(metrics, "COUNTED", pairs)
        epoch = metrics.EpochMetrics({"f1": Counted(10)})
        logits = torch.randn(8, 10, generator=torch.Generator().manual_seed(0))
        epoch.add(torch.tensor(0.0), logits, torch.tensor([0, 1, -1, 3, 4, 5, 6, 7]))
        found.append(epoch.computed()["f1"])
    assert sizes == [7, 3, 3, 1]
    assert found[0] == found[1]
    epoch = metrics.EpochMetrics({"f1": MulticlassF1Score(10)})
    for labels in ([-1, -1], [3, 4]):  # a part without a label is no part
        epoch.add(torch.tensor(0.0), torch.eye(10)[[3, 4]], torch.tensor(labels))
        epoch.update_metrics()
        epoch.logits, epoch.labels = [], []
    assert epoch.computed()["f1"] > 0


def test_lbfgs_trains(tmp_path):
    lbfgs = "+optimizer={_target_:torch.optim.LBFGS,_partial_:true,max_iter:3}"
    assert results(trained(tmp_path, "~optimizer", lbfgs))["train/loss"] < 2.3
