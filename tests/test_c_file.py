"""The C file gives the network's predictions in the stated number of bytes, or is not written."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mnist_cnn.data import mnist
from mnist_cnn.export import main
from mnist_cnn.exporting import c_file
from mnist_cnn.model import CNN, VGG, FastCNN
from mnist_cnn.weights.files import write_weights
from mnist_cnn.weights.predictor import Trained

ABOUT = {"data": {"name": "mnist"}}
SCALED: dict[str, Any] = {"mean": 0.1307, "std": 0.3081}
NETWORKS = {
    "CNN": lambda: CNN((4, 6), 16, 0.0),
    "FastCNN": lambda: FastCNN((4, 6), 16, **SCALED),
    "VGG": lambda: VGG([[4], [5, 6]], 0.0, 0.0, **SCALED),
}


@pytest.fixture(scope="module", autouse=True)
def compiler() -> None:
    try:
        subprocess.run(["size", "--version"], check=True, capture_output=True)
        subprocess.run(["cc", "--version"], check=True, capture_output=True)
    except OSError:
        pytest.skip("a C compiler is missing")


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    return mnist.load_split("mnist", "", "test")[0][:100]


def trained(net: nn.Module) -> Trained:
    """Give a network nontrivial batch normalisations, some with negative weights."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.weight.data.uniform_(-1.0, 2.0)
            for buffer, least in ((layer.running_mean, -0.5), (layer.running_var, 0.5)):
                assert buffer is not None
                buffer.uniform_(least, 1.5)
    if isinstance(net, VGG):
        net.round_weights()
    return Trained(net, mnist.DIGITS, ABOUT | {"model": {}}).requires_grad_(False)


def compiled(net: Trained, bits: int, folder: Path) -> c_file.Compiled:
    c_file.write_c(net, bits, folder)
    return c_file.compile_c(folder)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_gives_the_logits_of_the_network(name, digits, tmp_path):
    torch.manual_seed(1)
    net = trained(NETWORKS[name]())
    expected = net.net(digits[:, None] / 255)
    found = compiled(net, 8, tmp_path)(digits)
    assert (found - expected).abs().max() < 0.05 * expected.std()


def test_weights_that_were_trained_with_few_bits_are_the_same_in_the_file(digits, tmp_path):
    torch.manual_seed(1)
    net = trained(VGG([[4], [5, 6]], 0.0, 0.0, bits=4, **SCALED))
    expected = net.net(digits[:, None] / 255)
    program = compiled(net, 4, tmp_path)
    assert (program(digits) - expected).abs().max() < 0.05 * expected.std()
    weights = sum(p.numel() for p in net.parameters() if p.dim() > 1)
    outputs = 4 + 5 + 6 + 10
    assert 0 <= program.constants - (weights / 2 + 4 * outputs) < 40
    assert program.memory < 4 * 14 * 14 + 5 * 14 * 14 + 2 * 6 * 49 + 64


@pytest.mark.parametrize("bits", range(4, 9))
def test_packed_numbers_have_no_gaps(bits):
    codes = np.random.default_rng(0).integers(2**bits, size=101)
    packed = c_file.pack(codes, bits)
    whole = int.from_bytes(packed.tobytes(), "little")
    assert [whole >> bits * k & 2**bits - 1 for k in range(101)] == codes.tolist()
    assert len(packed) == (101 * bits + 7) // 8 + 1


class Centred(nn.Module):
    """It subtracts a mean image."""

    mean: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.rand(1, 28, 28))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - self.mean


def twice_pooled() -> list[nn.Module]:
    """Return layers of which a normalisation turns the sign between two poolings."""
    norm = nn.BatchNorm2d(4)
    nn.init.constant_(norm.weight, -1.0)
    return [nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(2), norm, nn.MaxPool2d(2), nn.ReLU()]


@pytest.mark.parametrize(
    ("layers", "named"),
    [
        ([Centred(), nn.Flatten(), nn.Linear(784, 10)], "one mean and one std, got 784"),
        ([nn.Conv2d(1, 4, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(2704, 10)], "got sigmoid"),
        ([nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(2704, 10)], "got dense"),
        ([nn.Flatten(), nn.Linear(784, 10), nn.ReLU()], "last layer"),
        ([nn.Flatten(), nn.Linear(784, 20)], r"10 outputs, got \[20, 1, 1\]"),
        ([*twice_pooled(), nn.Flatten(), nn.Linear(196, 10)], "got pool"),
    ],
)
def test_a_network_with_another_layer_is_refused_by_its_name(layers, named, tmp_path):
    with pytest.raises(ValueError, match=f"^c export needs .*{named}"):
        c_file.export_c(trained(nn.Sequential(*layers)), 8, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_network_whose_layers_do_not_fit_each_other_is_refused_in_one_line(tmp_path):
    layers = nn.Conv2d(1, 4, 3), nn.Flatten(), nn.BatchNorm1d(2704), nn.ReLU(), nn.Linear(2704, 10)
    with pytest.raises(ValueError, match=r"^mnist_cnn\.c is not written: .*must match the size"):
        c_file.export_c(trained(nn.Sequential(*layers)), 8, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_network_of_dark_digits_is_refused_as_such(tmp_path):
    about = {"model": {}, "data": {"name": "mine", "on_light": True}}
    net = Trained(CNN((4, 6), 16, 0.0), mnist.DIGITS, about)
    with pytest.raises(ValueError, match=r"light on black, got one of mine, .*, dark on light$"):
        c_file.export_c(net, 8, tmp_path)


def test_the_command_writes_both_files_or_ends_in_one_line_and_writes_none(tmp_path, monkeypatch):
    model = {"_target_": "mnist_cnn.model.CNN", "channels": [4, 6], "hidden": 16, "dropout": 0.0}
    weights, out = tmp_path / "net.safetensors", tmp_path / "out"
    write_weights(CNN((4, 6), 16, 0.0), ABOUT | {"model": model}, weights)
    command = [f"ckpt_path={weights}", "--format", "c", "--out", str(out)]

    def refusal() -> str:
        with pytest.raises(SystemExit) as exit:
            main(command)
        assert not out.exists()
        return str(exit.value.code)

    with monkeypatch.context() as patch:
        patch.setenv("PATH", "")
        assert refusal().startswith("error: c export needs cc")
    (tmp_path / "bin").mkdir()
    for name in ("cc", "size"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\necho no licence >&2\nexit 1\n")
        (tmp_path / "bin" / name).chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
        assert refusal() == "error: c export needs a cc that works: no licence"
    with monkeypatch.context() as patch:
        patch.setattr(c_file.Compiled, "__call__", lambda self, images: torch.zeros(1000, 10))
        assert refusal().startswith("error: mnist_cnn.c is not written: ")
    monkeypatch.setattr(c_file, "AGREEMENT", 0.5)  # an untrained network's logits are close
    main(command)
    assert sorted(path.name for path in out.iterdir()) == ["mnist_cnn.c", "mnist_cnn.h"]
    with pytest.raises(SystemExit, match="--out must be a folder without"):
        main(command)
