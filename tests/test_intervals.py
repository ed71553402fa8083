"""Interval bounds contain a network's outputs, and training on them certifies images."""

import copy
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from mnist_cnn import model
from mnist_cnn.analysis.robustness import attacks
from mnist_cnn.analysis.robustness.intervals import Interval, certified
from mnist_cnn.analysis.robustness.suites import Suites
from mnist_cnn.callbacks.certified import CertifiedTraining, try_bounds
from mnist_cnn.data.datamodule import MNISTDataModule
from mnist_cnn.data.loader import generator
from mnist_cnn.data.mnist import load_split
from mnist_cnn.module import DigitClassifier
from tests.helpers.training import bare_trainer

CLIPPED: dict[str, Any] = {"channels": [4, 4], "hidden": 8, "mean": 0.3, "std": 0.4}
NETWORKS = [
    model.CNN(channels=(4, 4), hidden=8, dropout=0.5),
    model.FastCNN(channels=(4, 4), hidden=8, mean=0.13, std=0.31),
    model.VGG(stages=((4,), (4, 4)), channel_dropout=0.1, dropout=0.1),
    model.ClippedCNN(**CLIPPED),
    nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.ReLU()),  # does not end in a linear layer
    nn.Sequential(nn.AdaptiveMaxPool2d(6), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(9, 10)),
]


def digits(n: int) -> tuple[Tensor, Tensor]:
    images, labels = load_split("mnist", "unused", "train")
    return images[:n].unsqueeze(1) / 255, labels[:n]


@pytest.mark.parametrize("net", NETWORKS, ids=lambda net: type(net).__name__)
def test_the_margins_hold_those_of_every_changed_image(net: nn.Module):
    x, y = digits(50)
    net.train()(x)  # statistics other than the initial ones
    net = net.eval().double()
    for epsilon in (0.0, 0.05):
        bounds = net(Interval.around(x.double(), epsilon)).margins(y)
        for noise in (-1, 1, *torch.rand(5, *x.shape, generator=generator(0)).mul(2).sub(1)):
            logits = net((x.double() + epsilon * noise).clamp(0, 1))
            margins = logits - logits.gather(1, y[:, None])
            assert (margins <= bounds + 1e-9).all()
            assert epsilon or torch.allclose(margins, bounds)


def test_training_on_bounds_certifies_images_that_no_attack_changes():
    config = {"_target_": "mnist_cnn.model.ClippedCNN", **CLIPPED}
    L.seed_everything(0)
    options: dict[str, Any] = {"optimizer": {"_target_": "torch.optim.Adam", "lr": 0.01}}
    module = DigitClassifier(model=config, scheduler={}, **options)
    training = CertifiedTraining(epsilon=0.1, grown=0.5)
    batches = {"limit_train_batches": 150, "limit_val_batches": 0}
    trainer = bare_trainer(max_epochs=1, callbacks=[training], **batches)
    trainer.fit(module, MNISTDataModule())
    net = module.net.eval()
    assert not net._forward_pre_hooks  # noqa: SLF001
    assert not net._forward_hooks  # noqa: SLF001
    x, y = digits(300)
    shares = [certified(net, x, y, epsilon).double().mean() for epsilon in (0.0, 0.1, 0.3)]
    assert shares[0] == attacks.correct(net, x, y).double().mean()
    assert shares[0] > shares[1] > 0.6 > shares[2]
    safe = certified(net, x, y, 0.1)
    attacked = attacks.restarted_pgd(net, x[safe], y[safe], 0.1, generator(0))
    assert attacks.correct(net, attacked, y[safe]).all()


def test_a_network_whose_bounds_are_not_known_is_refused_before_the_first_step():
    config: dict[str, Any] = {"_target_": "mnist_cnn.model.VGG", "stages": [[4], [4, 4]]}
    config |= {"channel_dropout": 0.1, "dropout": 0.2}
    module = DigitClassifier(model=config, scheduler={})
    trainer = bare_trainer(max_epochs=1, callbacks=[CertifiedTraining(epsilon=0.1, grown=0.5)])
    line = r"^callbacks\.certified must be null with VGG, got CertifiedTraining: dropout of an int"
    with pytest.raises(ValueError, match=line):
        trainer.fit(module, MNISTDataModule())
    assert trainer.global_step == 0


def test_to_try_bounds_changes_nothing():
    net = model.FastCNN(channels=(4, 4), hidden=8).train()
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    try_bounds(SimpleNamespace(net=net, device=torch.device("cpu")), digits(5))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    frozen = SimpleNamespace(
        net=copy.deepcopy(net).requires_grad_(False), device=torch.device("cpu")
    )
    with pytest.raises(ValueError, match=r"null with FastCNN, .*its net is not what is trained$"):
        try_bounds(frozen, digits(5))
    with pytest.raises(ValueError, match=r"null with SimpleNamespace, .*no attribute 'net'$"):
        try_bounds(SimpleNamespace(device=torch.device("cpu")), digits(5))


def test_a_network_of_other_layers_has_no_certificate():
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.Sigmoid())
    (message,) = Suites(net, *digits(5), torch.device("cpu"), {}).certified().values()
    assert "sigmoid" in message
    # what a change of one image does to the statistics of its batch is not bounded
    net = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten())
    (message,) = Suites(net, *digits(5), torch.device("cpu"), {}).certified().values()
    assert "running statistics" in message
