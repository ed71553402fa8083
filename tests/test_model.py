"""The networks match their descriptions."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mnist_cnn.config.compose import CONF, compose, files, plain
from mnist_cnn.model import CNN, VGG, Normalize, rounded
from mnist_cnn.weights.networks import build_network


def parameters(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("config", files("model"))
def test_a_network_has_as_many_parameters_as_its_file_says(config):
    net = build_network(plain(compose([f"model={config}"], run_dir="unused"), "model"))
    comment = (CONF / "model" / f"{config}.yaml").read_text().splitlines()[0]
    assert f"{parameters(net):,} parameters" in comment
    if not config.endswith("_tiny"):
        assert f"{parameters(net):,} parameters" in str(type(net).__doc__)


def test_pooling_before_relu_gives_the_logits_and_gradients_of_relu_before_pooling():
    net = CNN((32, 64), 128, 0.0).double()
    x = torch.rand(8, 1, 28, 28, dtype=torch.float64)

    def usual(x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(net.conv1(x)), 2)
        x = F.max_pool2d(F.relu(net.conv2(x)), 2)
        return net.dense2(F.relu(net.dense1(x.flatten(1))))

    gradients = []
    for forward in (net, usual):
        net.zero_grad()
        logits = forward(x)
        logits.square().sum().backward()
        gradients.append(
            [logits, *(p.grad.clone() for p in net.parameters() if p.grad is not None)]
        )
    assert len(gradients[0]) == 9
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("config", ["cnn", "fast_cnn", "vgg"])
def test_a_networks_first_layer_normalises_its_images(config):
    options = plain(compose([f"model={config}"], run_dir="unused"), "model")
    net = build_network({**options, "mean": 0.1307, "std": 0.3081}).eval()
    plain_net = build_network(options).eval()
    plain_net.load_state_dict(net.state_dict())  # the constants come with the weights
    x = torch.rand(4, 1, 28, 28)
    logits = net(x)
    assert torch.equal(plain_net(x), logits)
    as_it_is = Normalize(0.0, 1.0).state_dict(prefix="normalize.")
    plain_net.load_state_dict(net.state_dict() | as_it_is)
    assert torch.equal(plain_net((x - 0.1307) / 0.3081), logits)


def test_each_channel_may_have_a_mean_and_std_of_its_own_and_a_constant_one_stays_finite():
    x = torch.rand(4, 3, 8, 8)
    x[:, 1] = 0.3
    mean, std = x.mean((0, 2, 3)), x.std((0, 2, 3))
    std[1] = 0
    fitted = Normalize("auto", "auto", 3)
    fitted.fit(mean, std)
    assert torch.equal(fitted(x), Normalize(mean.tolist(), std.where(std > 0, 1).tolist(), 3)(x))
    torch.testing.assert_close(fitted(x).mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": [1, 1]}, "CNN.*'stages'"),
        ({"hidden": -1}, "negative"),
        ({"mean": [0.1, 0.2]}, "must match"),
        ({"_target_": "torch.nn.Linear"}, "'channels'"),
    ],
)
def test_an_argument_that_does_not_fit_the_network_is_refused(changes, message):
    config = {"channels": [4, 8], "hidden": 8, "dropout": 0.0, **changes}
    with pytest.raises(ValueError, match=f"^model.*{message}"):
        build_network({"_target_": "mnist_cnn.model.CNN", **config})


def test_a_layer_of_torch_that_is_too_large_is_refused_before_it_takes_memory():
    vast = {"_target_": "torch.nn.Linear", "in_features": 10**9, "out_features": 10**6}
    with pytest.raises(ValueError, match="at most 100,000,000 parameters"):
        build_network({"_target_": "torch.nn.Sequential", "_args_": [vast]})


def test_weights_of_few_bits_are_odd_multiples_of_a_step_of_their_channel():
    weight = torch.randn(4, 3, 3, 3, requires_grad=True)
    (found := rounded(weight, 3)).sum().backward()
    torch.testing.assert_close(weight.grad, torch.ones_like(weight))
    multiples = found.detach() * 7 / weight.detach().abs().amax((1, 2, 3), keepdim=True)
    torch.testing.assert_close(multiples, 2 * (multiples / 2).floor() + 1)
    assert (found - weight).abs().amax((1, 2, 3)).le(weight.abs().amax((1, 2, 3)) / 7 + 1e-6).all()
    torch.testing.assert_close(rounded(found, 3), found)


def test_a_network_with_weights_of_few_bits_computes_with_them_and_trains_floats():
    plain, few = (VGG([[4], [4]], 0.0, 0.0, bits=bits) for bits in (None, 4))
    few.load_state_dict(plain.state_dict())
    for layer in plain.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.weight.data = rounded(layer.weight.data, 4)
    x = torch.rand(5, 1, 28, 28)
    torch.testing.assert_close(few(x), plain(x))
    few(x).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in few.parameters())
