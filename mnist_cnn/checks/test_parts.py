"""Tests of a network, a loss and a data module: training, resuming, loading and exporting."""

import contextlib
import itertools
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.fabric.utilities.exceptions import MisconfigurationException

from mnist_cnn.build import build_module
from mnist_cnn.checks.runs import different, logged, run
from mnist_cnn.config.compose import resolved
from mnist_cnn.config.instantiate import make_data
from mnist_cnn.config.parse import Config, parse
from mnist_cnn.data.datamodule import class_names, described
from mnist_cnn.export import export
from mnist_cnn.weights.predictor import Trained


def trained(cfg: Any) -> Any:
    """Train the module of a configuration for four steps; return it and its data."""
    config = parse(resolved(cfg), Config)
    L.seed_everything(config.seed, verbose=False)
    data = make_data(config.data)
    module = build_module(config, data)
    off: Any = dict.fromkeys(("logger", "enable_checkpointing", "enable_model_summary"), False)
    trainer = L.Trainer(max_steps=4, accelerator="cpu", enable_progress_bar=False, **off)
    trainer.fit(module, data)
    return module, data


@pytest.fixture(scope="module")
def parts(cfg) -> Any:
    """Return the module after four steps, its data, and a batch of training images and labels."""
    module, data = trained(cfg)
    return module, data, *next(iter(data.train_dataloader()))


def test_data_are_float_images_and_whole_labels(parts):
    _, _, images, labels = parts
    assert images.ndim == 4, "images must be (B, C, H, W)"
    assert images.is_floating_point()
    assert (labels.dtype, labels.shape) == (torch.int64, images.shape[:1])


def test_loss_is_the_mean_of_a_batch_and_has_a_gradient(parts):
    module, _, images, labels = parts
    logits = module.net.eval()(images).detach().requires_grad_()
    loss_of = module.loss or F.cross_entropy
    loss_of(logits, labels).backward()
    assert logits.grad.isfinite().all()
    twice = loss_of(torch.cat([logits, logits]), torch.cat([labels, labels]))
    torch.testing.assert_close(twice, loss_of(logits, labels), msg="it is not the batch's mean")


def test_network_gives_logits_that_depend_on_the_image_alone(parts):
    module, data, images, labels = parts
    net = module.net.eval()
    classes = len(class_names(data)) or int(labels.max()) + 1
    assert net(images).shape == (len(images), classes)
    assert torch.equal(net(images), net(images)), "it draws random numbers in eval mode"
    torch.testing.assert_close(net(images[:1]), net(images)[:1], msg="it sees the whole batch")


def test_every_weight_gets_a_finite_gradient(parts):
    module, _, images, labels = parts
    module.zero_grad()
    F.cross_entropy(module.net.train()(images), labels).backward()
    grads = {name: p.grad for name, p in module.net.named_parameters() if p.requires_grad}
    assert [name for name, g in grads.items() if g is None or not g.isfinite().all()] == []


def test_one_seed_gives_the_same_batches_and_the_same_network(cfg):
    (one, data), (two, again) = trained(cfg), trained(cfg)
    for split in ("train_dataloader", "val_dataloader"):
        batches: tuple[list[Any], list[Any]] = [], []
        for drawn, each in zip(batches, (data, again), strict=True):
            L.seed_everything(cfg.seed, verbose=False)
            with contextlib.suppress(MisconfigurationException):  # it has no such loader
                drawn += [x for x, _ in itertools.islice(getattr(each, split)(), 3)]
        assert all(map(torch.equal, *batches)), f"{split} differs"
    assert different(one.state_dict(), two.state_dict()) == []


def test_a_run_that_is_stopped_and_resumed_ends_bit_for_bit_the_same(cfg, tmp_path):
    whole, resumed = run(cfg, tmp_path / "whole"), run(cfg, tmp_path / "resumed", 1, 4, 6)
    assert different(whole["state_dict"], resumed["state_dict"]) == []
    assert logged(whole) == logged(resumed)


@pytest.mark.parametrize("kind", ["safetensors", "pt2", "onnx"])
def test_network_is_the_same_in_a_file(cfg, parts, tmp_path, kind):
    if kind == "onnx":
        pytest.importorskip("onnxscript")
    module, data, *_ = parts
    about = {"model": module.hparams["model"], "data": described(resolved(cfg)["data"], data)}
    export(Trained(module.net, class_names(data), about), [kind], tmp_path)
