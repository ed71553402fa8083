"""Corruptions, attacks and out-of-distribution images, and the metrics of networks on them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mnist_cnn.analysis.robustness import attacks, corruptions, outliers, suites
from mnist_cnn.data.datamodule import MNISTDataModule
from mnist_cnn.data.loader import generator
from mnist_cnn.weights import predictor

CORRUPTIONS = corruptions.CORRUPTIONS
CHANGES: dict[str, Callable[..., Tensor]] = {
    **{name: partial(corruptions.corrupt, name=name) for name in CORRUPTIONS},
    **outliers.OUTLIERS,
}
# by the authors' program (github.com/google-research/mnist-c, commit bba57e4) with ImageMagick
# 7.1.1-43 Q16 and scikit-image 0.26, but the affine maps and canny of 0.15, as in 2019: the first
# 20 test images with the choices `signs`, `angle`, `steps`, `dotted` and `rises`; and as `_spread`
# mean and standard deviation of each pixel over the first 200 images, five times
FILE = Path(__file__).parent / "helpers" / "mnist_c.npz"
MNIST_C = {name: torch.from_numpy(array) for name, array in np.load(FILE).items()}
EXACT = [name for name in CORRUPTIONS if name in MNIST_C]  # all but noise, fog and spatter
RANDOM = [name for name in CORRUPTIONS if f"{name}_spread" in MNIST_C]
assert {*EXACT, *RANDOM} == {*CORRUPTIONS}


@pytest.fixture(scope="module")
def data(data_root) -> MNISTDataModule:
    """Load the first 200 test images."""
    module = MNISTDataModule(root=str(data_root))
    module.prepare_data()
    module.setup("test")
    module.splits["test"] = tuple(part[:200] for part in module.splits["test"])  # type: ignore
    return module


@pytest.fixture(scope="module")
def digits(data) -> tuple[Tensor, Tensor]:
    x, y = data.splits["test"]
    return x.float() / 255, y


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return predictor.load().net


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_makes_other_images_of_the_same_kind_and_always_the_same(digits, name):
    x = digits[0]
    before, state = x.clone(), torch.random.get_rng_state()
    one, same = (CHANGES[name](x, g=generator(0, 1)) for _ in range(2))
    assert (one.shape, one.dtype) == (x.shape, x.dtype)
    assert 0 <= one.min() <= one.max() <= 1
    assert torch.equal(one, same)
    assert (one - x).abs().amax((1, 2, 3)).gt(0.1).float().mean() > 0.9
    assert torch.equal(x, before)
    assert torch.equal(torch.random.get_rng_state(), state)  # the global generator is not used


@pytest.mark.parametrize("name", EXACT)
def test_a_corruption_is_that_of_mnist_c_to_the_last_bit_for_the_same_choices(
    digits, name, monkeypatch
):
    signs, rows = iter(MNIST_C["signs"]), iter(MNIST_C["rises" if name == "zigzag" else "dotted"])
    monkeypatch.setattr(corruptions, "signs", lambda x, g: next(signs).double())
    monkeypatch.setattr(corruptions, "integers", lambda x, g, low, high: next(rows).double())
    dragged, shattered = corruptions.dragged, corruptions.shattered
    monkeypatch.setattr(corruptions, "dragged", lambda x, _: dragged(x, MNIST_C["angle"]))
    monkeypatch.setattr(
        corruptions, "shattered", lambda x, _: shattered(x, MNIST_C["steps"].long())
    )
    x = corruptions.corrupt(digits[0][:20], name, generator(0))
    assert torch.equal((255 * x[:, 0]).round().byte(), MNIST_C[name])


@pytest.mark.parametrize("name", RANDOM)
def test_a_corruption_draws_its_choices_as_mnist_c_does(digits, name):
    x = corruptions.corrupt(digits[0].repeat(5, 1, 1, 1), name, generator(0))[:, 0]
    for found, expected in zip((x.mean(0), x.std(0)), MNIST_C[f"{name}_spread"], strict=True):
        difference = found - expected.float()
        assert difference.square().mean().sqrt() < 0.017  # two draws of one program differ as much
        assert difference.mean().abs() < 0.005


def test_attacks_stay_within_epsilon_and_find_more_by_steps_and_restarts(net, digits, monkeypatch):
    x, y = (part[:50] for part in digits)
    survivors = [attacks.correct(net, x, y)]
    pgd = attacks.restarted_pgd
    for attack, restarts in ((attacks.fgsm, 1), (pgd, 1), (pgd, 3)):
        monkeypatch.setattr(attacks, "RESTARTS", restarts)
        changed = attack(net, x, y, 0.1, generator(0))
        assert (changed - x).abs().max() <= 0.1 + 1e-6
        assert 0 <= changed.min() <= changed.max() <= 1
        survivors.append(attacks.correct(net, changed, y))
    assert survivors[0].sum() > survivors[1].sum() > survivors[2].sum() > survivors[3].sum()
    other = (net(x).argmax(1) + 1) % 10  # if all are wrong already, nothing is changed
    assert torch.equal(pgd(net, x, other, 0.1, generator(0)), x)


def test_false_positives_are_counted_above_what_95_percent_of_the_digits_reach():
    found = suites.separation(torch.arange(100.0) / 100, torch.tensor([0.04, 0.05, 0.06, 0.5]))
    assert found["fpr_95"] == 0.75
    assert found["auroc"] == pytest.approx(1 - (4.5 + 5.5 + 6.5 + 50.5) / 400)


def test_each_suite_gives_each_network_its_figures_on_the_same_images(data, net, monkeypatch):
    monkeypatch.setattr(suites, "ATTACKED", 20)
    monkeypatch.setattr(attacks, "EPSILONS", (0.3,))
    made: list[str] = []

    def counted(x: Tensor, name: str, g: torch.Generator) -> Tensor:
        made.append(name)
        return corruptions.corrupt(x, name, g)

    monkeypatch.setattr(suites, "corrupt", counted)
    nets, device = {"a": net, "b": net}, torch.device("cpu")
    found = suites.measure_robustness(nets, data, "test", suites.DEFAULT, device)["networks"]
    assert [row.pop("network") for row in found] == ["a", "b"]
    first, second = found
    assert first == second
    assert made == [*CORRUPTIONS]  # once for both
    assert first["clean"] >= 0.99
    assert first["corruptions"].keys() == {*CORRUPTIONS, "mean"}
    assert first["corruptions"]["mean"] < first["clean"]
    assert set(first["outliers"]) == set(outliers.OUTLIERS)
    assert all(0.9 < kind["auroc"] <= 1 for kind in first["outliers"].values())
    assert first["adversarial"]["images"] == 20
    assert first["adversarial"]["pgd"]["0.3"] <= first["adversarial"]["fgsm"]["0.3"]
