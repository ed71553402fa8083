"""What the robustness suites do to digits and to networks."""

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_auroc

from mnist_cnn import pretrained
from mnist_cnn.analysis.robustness import attacks, corruptions, outliers, suites
from mnist_cnn.data.datamodule import MNISTDataModule
from mnist_cnn.data.loader import generator

CHANGES = {**corruptions.CORRUPTIONS, **corruptions.AFFINE, **outliers.OUTLIERS}


@pytest.fixture(scope="module")
def data(data_root) -> MNISTDataModule:
    """The first 200 test images."""
    module = MNISTDataModule(root=str(data_root))
    module.prepare_data()
    module.setup("test")
    module.splits["test"] = tuple(part[:200] for part in module.splits["test"])  # type: ignore
    return module


@pytest.fixture(scope="module")
def digits(data) -> tuple[Tensor, Tensor]:
    images, labels = data.splits["test"]
    return images.float() / 255, labels


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return pretrained.load().net


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_makes_other_images_of_the_same_kind_and_always_the_same(digits, name):
    x = digits[0]
    before, state = x.clone(), torch.random.get_rng_state()
    one, same = (CHANGES[name](x, generator(0, 1)) for _ in range(2))
    assert one.shape == x.shape
    assert one.dtype == x.dtype
    assert one.min() >= 0
    assert one.max() <= 1
    assert torch.equal(one, same)
    assert (one - x).abs().amax((1, 2, 3)).gt(0.1).float().mean() > 0.9
    assert torch.equal(x, before)
    assert torch.equal(torch.random.get_rng_state(), state)  # no chance from elsewhere


def centres(x: Tensor) -> Tensor:
    """Centre of mass (B, 2) as (column, row)."""
    axis, mass = torch.arange(28.0), x.sum((1, 2, 3))
    return torch.stack([(x.sum((1, 2)) @ axis) / mass, (x.sum((1, 3)) @ axis) / mass], 1)


def test_a_translation_is_of_3_to_6_pixels_along_both_axes():
    dot = torch.zeros(500, 1, 28, 28)
    dot[..., 13:15, 13:15] = 1
    away = (centres(corruptions.CORRUPTIONS["translate"](dot, generator(0))) - 13.5).abs()
    assert away.min() >= 3 - 1e-3
    assert away.max() <= 6 + 1e-3


def test_a_positive_rotation_is_counter_clockwise():
    right = torch.zeros(1, 1, 28, 28)
    right[..., 13:15, 20:22] = 1  # to the right of the middle
    column, row = (centres(corruptions.rotation(45)(right, generator(0)))[0] - 13.5).tolist()
    assert column == pytest.approx(7 / 2**0.5, abs=0.1)
    assert row == pytest.approx(-7 / 2**0.5, abs=0.1)  # rows count downwards


def test_the_edges_of_a_square_are_its_outline():
    square = torch.zeros(1, 1, 28, 28)
    square[..., 8:20, 8:20] = 1
    edges = corruptions.canny_edges(square, generator(0))[0, 0]
    assert set(edges.unique().tolist()) == {0, 1}
    assert edges[11:17, 11:17].sum() == 0
    assert edges[:6].sum() == edges[22:].sum() == 0
    assert (edges[11:17].sum(1) >= 2).all()  # left and right


def test_attacks_stay_within_epsilon_and_pgd_finds_more_than_fgsm(net, digits):
    x, y = (part[:100] for part in digits)
    stepped = attacks.fgsm(net, x, y, 0.1, generator(0))
    moved = attacks.pgd(net, x, y, 0.1, generator(0), steps=10)
    for changed in (stepped, moved):
        assert (changed - x).abs().max() <= 0.1 + 1e-6
        assert changed.min() >= 0
        assert changed.max() <= 1
    hits = [attacks.correct(net, part, y).sum().item() for part in (x, stepped, moved)]
    assert hits[0] >= 99
    assert hits[2] < hits[1] < hits[0]


def test_a_restart_of_pgd_changes_only_what_still_survives(net, digits, monkeypatch):
    x, y = (part[:50] for part in digits)
    wrong = (y + 1) % 10
    assert torch.equal(attacks.restarted_pgd(net, x, wrong, 0.1, generator(0)), x)
    survivors = []
    for restarts in (1, 3):
        monkeypatch.setattr(attacks, "RESTARTS", restarts)
        moved = attacks.restarted_pgd(net, x, y, 0.12, generator(0))
        survivors.append(attacks.correct(net, moved, y))
    assert survivors[0].sum() > survivors[1].sum()
    assert (survivors[0] | ~survivors[1]).all()


def test_auroc_is_torchmetrics_also_with_ties_and_false_positives_are_at_95_percent():
    g = generator(0)
    digits = (torch.randn(500, generator=g) + 1).round(decimals=1)
    others = torch.randn(300, generator=g).round(decimals=1)
    kinds = torch.cat([torch.ones(500), torch.zeros(300)]).long()
    found = outliers.separation(torch.arange(100.0), torch.tensor([4.0, 5.0, 6.0, 50.0]))
    assert found["fpr_95"] == 0.75  # above the score that 95 of 100 digits reach
    # it takes scores for logits unless all are in [0, 1]
    expected = binary_auroc((torch.cat([digits, others]) + 10) / 20, kinds).item()
    assert outliers.separation(digits, others)["auroc"] == pytest.approx(expected, abs=1e-6)


def measured(data: MNISTDataModule, nets: dict[str, nn.Module], *names: str) -> dict[str, Any]:
    return suites.measure_robustness(nets, data, "test", names, torch.device("cpu"))


def test_suites_give_each_network_its_figures_on_the_same_images(data, net):
    found = measured(data, {"a": net, "b": net}, "affine", "outliers")
    first, second = found["networks"]
    assert first.pop("network") == "a"
    assert second.pop("network") == "b"
    assert first == second
    assert first["clean"] >= 0.99
    assert first["affine"]["+45 degrees"] < first["affine"]["+20 degrees"]
    assert set(first["outliers"]) == set(outliers.OUTLIERS)
    assert all(0.9 < kind["auroc"] <= 1 for kind in first["outliers"].values())


def test_attacks_are_reported_by_epsilon(data, net, monkeypatch):
    monkeypatch.setattr(suites, "ATTACKED", 40)
    monkeypatch.setattr(attacks, "EPSILONS", (0.3,))
    (found,) = measured(data, {"a": net}, "adversarial")["networks"]
    assert found["adversarial"]["images"] == 40
    assert found["adversarial"]["pgd"]["0.3"] <= found["adversarial"]["fgsm"]["0.3"]


def test_images_that_are_no_digits_of_28_pixels_are_refused(data, net, monkeypatch):
    monkeypatch.setattr(MNISTDataModule, "shape", (3, 32, 32))
    with pytest.raises(ValueError, match=r"^robustness must be false with images of \(3, 32, 32\)"):
        measured(data, {"a": net}, "affine")


def test_autoattack_is_reported_by_epsilon_and_leaves_torchs_chance_alone(data, net, monkeypatch):
    monkeypatch.setattr(suites, "ATTACKED", 4)
    monkeypatch.setattr(attacks, "EPSILONS", (0.5,))
    state = torch.random.get_rng_state()
    found = measured(data, {"a": net}, "autoattack")
    assert torch.equal(torch.random.get_rng_state(), state)
    told = {"images": 4, "autoattack": {"0.5": 0.0}}
    assert found["networks"][0]["autoattack"] == told


def test_autoattack_without_its_package_names_the_extra(net, digits, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    x, y = (part[:2] for part in digits)
    with pytest.raises(
        ValueError, match=r"robustness=\[autoattack\] needs pyautoattack: pip.*attack"
    ):
        attacks.autoattack(net, x, y, 0.2, generator(0))
