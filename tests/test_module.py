"""DigitClassifier: exact metrics, checkpoints that stand alone, weights that fit or are refused."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open

from mnist_cnn import pretrained
from mnist_cnn.data import mnist
from mnist_cnn.metrics import Tally
from mnist_cnn.module import DigitClassifier
from tests.helpers.training import bare_trainer

CNN = {"name": "CNN", "channels": [4, 8], "hidden": 16, "dropout": 0.0, "mean": 0.1, "std": 0.3}
ADAM = {"name": "Adam", "lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-7, "weight_decay": 0.0}


def module(label_smoothing: float = 0.0, **model) -> DigitClassifier:
    return DigitClassifier(
        model={**CNN, **model},
        optimizer=ADAM,
        scheduler={"name": None},
        label_smoothing=label_smoothing,
        monitor="val/loss",
    )


def test_a_tally_counts_every_image_once_whatever_the_batches():
    logits, labels = torch.randn(103, 10), torch.randint(10, (103,))
    tally = Tally()
    for part, truth in zip(logits.split(10), labels.split(10), strict=True):
        tally.add(F.cross_entropy(part, truth), part, truth)
    loss, hits, images = tally.totals()
    assert images == 103
    assert hits == (logits.argmax(1) == labels).sum()
    assert loss / images == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-6)
    assert tally.totals(last=2)[2] == 13


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
    torch.testing.assert_close(net.tallies["val"].losses[0], F.cross_entropy(logits, batch[1]))


def test_a_checkpoint_rebuilds_the_network_without_any_config(short_run, tmp_path):
    short_run("run", "model.hidden=32", "trainer.max_epochs=1", "test=false")
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)  # only plain values and tensors in it
    assert content["hyper_parameters"]["model"]["hidden"] == 32
    loaded = DigitClassifier.load_from_checkpoint(path, weights_only=True)
    assert loaded.net.dense1.out_features == 32
    assert torch.equal(loaded.net.conv1.weight, content["state_dict"]["net.conv1.weight"])


def test_auto_takes_the_mean_and_std_of_the_training_images(short_run, tmp_path):
    changes = ["model.mean=auto", "model.std=auto", "trainer.max_epochs=1", "test=false"]
    short_run("run", *changes, "callbacks=averaging", "trainer.limit_train_batches=3")
    for file in ("checkpoints/best.ckpt", "weights.safetensors"):
        net = pretrained.load(tmp_path / "run" / file)
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
    assert about == {"model": CNN, "data": {"fold": 0}}


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


def test_weights_of_another_network_name_what_is_missing_and_what_is_too_many(tmp_path):
    other = DigitClassifier(
        model={"name": "MLP", "hidden": 16, "dropout": 0.0},
        optimizer=ADAM,
        scheduler={"name": None},
        label_smoothing=0.0,
        monitor="val/loss",
    )
    other.save_weights(tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"conv1\.weight: not in the file"):
        module().load_weights(tmp_path / "w.safetensors")
    module().save_weights(tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"conv1\.weight: not in the network"):
        other.load_weights(tmp_path / "w.safetensors")


def test_a_file_that_holds_no_weights_is_refused(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="holds no weights of a network"):
        module().load_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("group", "config", "message"),
    [
        (
            "optimizer",
            {"name": "Foo"},
            r"optimizer\.name must be a subclass of Optimizer in torch\.optim, got Foo",
        ),
        # what else lies there: a module, a function, a class of another kind
        (
            "optimizer",
            {"name": "swa_utils"},
            r"optimizer\.name must be a subclass of Optimizer in torch\.optim, got swa_utils",
        ),
        (
            "optimizer",
            {"name": "__loader__"},
            r"optimizer\.name must be a subclass of Optimizer in torch\.optim, got __loader__",
        ),
        (
            "scheduler",
            {"name": "Counter"},
            r"scheduler\.name must be a subclass of LRScheduler .*, got Counter",
        ),
        ("scheduler", {"name": "_warn_get_lr_called_within_step"}, r"subclass of LRScheduler"),
        ("optimizer", {**ADAM, "lr": -1.0}, r"optimizer\.name=Adam: Invalid learning rate"),
        ("optimizer", {**ADAM, "foo": 1}, r"optimizer\.name=Adam: .*foo"),
        (
            "scheduler",
            {"name": "Foo"},
            r"scheduler\.name must be a subclass of LRScheduler .*, got Foo",
        ),
    ],
)
def test_an_optimizer_or_schedule_that_does_not_exist_is_named(group, config, message):
    parts = {"optimizer": ADAM, "scheduler": {"name": None}, group: config}
    with pytest.raises(ValueError, match=message):
        DigitClassifier(
            model=CNN, label_smoothing=0.0, monitor="val/loss", **parts
        ).configure_optimizers()


def test_prediction_gives_probabilities():
    probabilities = module().predict_step((torch.rand(4, 1, 28, 28), torch.zeros(4)), 0)
    assert probabilities.shape == (4, 10)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(4))
