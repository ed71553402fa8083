"""Augmentation changes each digit by its own random amounts, within the configured ranges."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from mnist_cnn.config.compose import compose
from mnist_cnn.data import mnist
from mnist_cnn.data.augment import Augment
from mnist_cnn.data.loader import generator
from mnist_cnn.data.transforms import Transforms
from mnist_cnn.runs.generators import generators

ON = {
    **{"degrees": 12.0, "shift": 1.5, "scale": 0.12, "stretch": 0.2, "shear": 12.0},
    **{"elastic": 0.7, "thickness": 1.0, "blur": 0.3, "gamma": 0.5, "strike": 0.05},
    **{"contrast": 2.0, "flourish": 0.2, "hollow": 0.1, "gap": 0.2, "coarse": 0.25},
    **{"background": 0.5, "noise": 0.3, "inverted": 0.3, "erase": 0.5},
}


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    images, labels = mnist.load_split("mnist", "unused", "test")
    return images[:256].unsqueeze(1).float() / 255, labels[:256]


def changed(digits: tuple[Tensor, Tensor], amounts: dict[str, float], seed: int = 0) -> Tensor:
    return Augment(**amounts)(*digits, Generator().manual_seed(seed))


def test_a_seed_gives_the_same_batch_and_another_seed_another(digits):
    copy, before = digits[0].clone(), torch.random.get_rng_state()
    one, same, other = changed(digits, ON, 1), changed(digits, ON, 1), changed(digits, ON, 2)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)  # the global generator is not used
    assert torch.equal(digits[0], copy)  # not written to


@pytest.mark.parametrize("key", ON)
def test_every_change_does_something_and_stays_an_image(digits, key):
    x = changed(digits, {key: ON[key]})
    assert (x.shape, x.dtype) == (digits[0].shape, digits[0].dtype)
    assert x.min() >= 0
    assert x.max() <= 1
    assert (x - digits[0]).abs().amax((1, 2, 3)).gt(0.1).float().mean() > 0.01


def test_each_digit_draws_its_own_amounts(digits):
    x, y = digits
    same = x[:1].expand(8, -1, -1, -1), y[:1].expand(8)
    several = changed(same, ON)
    assert len({image.numpy().tobytes() for image in several}) == 8


def test_a_fraction_of_the_images_stays_as_it_is(digits):
    moved = {"degrees": 12.0, "shift": 1.5}
    same = (changed(digits, moved | {"unchanged": 0.4}) == digits[0]).all(3).all(2).all(1)
    assert 0.3 < same.float().mean() < 0.5  # 256 images: three standard deviations
    assert torch.equal(changed(digits, moved | {"unchanged": 1.0}), digits[0])
    assert not (changed(digits, moved) == digits[0]).all(3).all(2).any()


def test_a_shift_moves_by_at_most_that_many_pixels(digits):
    axis, centres = torch.arange(28.0), []
    for x in (digits[0], changed(digits, {"shift": 2.0})):
        rows, columns = (x.sum((1, k)) @ axis for k in (3, 2))
        centres.append(torch.stack([rows, columns]) / x.sum((1, 2, 3)))
    moved = (centres[1] - centres[0]).abs()
    assert moved.max() < 2.05
    assert moved.mean() == pytest.approx(1.0, abs=0.1)


def test_a_move_with_contrast_greys_no_more_pixels_than_there_were(digits):
    def grey(x: Tensor) -> float:
        return ((x > 0.2) & (x < 0.8)).float().mean().item()

    before = grey(digits[0])
    assert grey(changed(digits, {"shift": 1.0})) > 1.4 * before
    crisp = compose(["augment=crisp"], run_dir="unused").data.augment
    assert grey(changed(digits, crisp)) == pytest.approx(before, rel=0.05)


def test_thickness_makes_some_pens_wider_and_some_finer(digits):
    ratio = changed(digits, {"thickness": 0.7}).sum((1, 2, 3)) / digits[0].sum((1, 2, 3))
    assert ratio.gt(1.1).float().mean() > 0.25
    assert ratio.lt(0.9).float().mean() > 0.25


def test_only_ones_fours_sevens_and_zeros_get_stroke_variants(digits):
    x, y = digits
    different = (changed(digits, {"flourish": 1.0}) - x).abs().amax((1, 2, 3)) > 0.1
    usual = torch.isin(y, torch.tensor([0, 1, 7]))
    assert not different[~usual & (y != 4)].any()
    assert different[usual].float().mean() > 0.95
    assert 0.1 < different[y == 4].float().mean() < 0.8  # the rest are unchanged


def test_an_empty_image_stays_finite():
    blank = torch.zeros(3, 1, 28, 28), torch.tensor([0, 1, 7])
    assert changed(blank, ON).isfinite().all()


@pytest.mark.parametrize(("key", "value"), [("strike", 1.5), ("degrees", -1.0), ("scale", 1.0)])
def test_an_amount_out_of_range_is_refused_by_its_key(key, value):
    with pytest.raises(ValueError, match=rf"^{key} must be .*, got {value}$"):
        Augment(**{key: value})


COLOURS: Any = {
    "none": None,
    "flip": {"_target_": "torchvision.transforms.v2.RandomHorizontalFlip"},
    "crop": {"_target_": "torchvision.transforms.v2.RandomResizedCrop", "scale": [0.5, 0.9]},
    "light": {"_target_": "torchvision.transforms.v2.ColorJitter", "brightness": 0.4},
}


def test_transforms_are_drawn_for_each_picture_and_a_seed_gives_the_same():
    x = torch.rand(1, 3, 20, 30).expand(6, -1, -1, -1)
    y, before = torch.zeros(6, dtype=torch.int64), torch.get_rng_state()
    change = Transforms(COLOURS, (20, 30))
    one, same, other = (change(x, y, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.shape == x.shape
    assert 0 <= one.min() < one.max() <= 1
    assert len({tuple(image.flatten().tolist()) for image in one}) == 6
    assert torch.equal(torch.get_rng_state(), before)


def test_transforms_may_draw_from_any_global_generator_and_leave_it_as_it_was():
    class Draw:
        def __call__(self, image: Tensor) -> Tensor:
            drawn = random.random(), np.random.random(), float(torch.rand(()))
            return torch.full_like(image, sum(drawn) / 3)

    change = Transforms({}, (2, 2))
    change.transforms = {"draw": Draw()}
    x, y = torch.zeros(3, 1, 2, 2), torch.zeros(3)

    def batch() -> Tensor:
        return change(x, y, generator(5))

    states = generators(x.device)
    first = batch()
    after = generators(x.device)
    assert after["python"] == states["python"]
    assert torch.equal(after["numpy"][1], states["numpy"][1])
    assert torch.equal(after["cpu"], states["cpu"])
    random.seed(9)
    np.random.seed(9)
    assert torch.equal(first, batch())
    assert len(first.unique()) == 3


def test_a_transform_that_does_not_fit_is_refused_by_its_key():
    smaller = {"crop": {**COLOURS["crop"], "size": [8, 8]}}
    with pytest.raises(ValueError, match=r"^data.augment must be transforms that keep .*3, 20, 30"):
        Transforms(smaller, (20, 30))(torch.rand(2, 3, 20, 30), torch.zeros(2), generator(0))
    for node in ({"_target_": "torch.nn.ReLU"}, {**COLOURS["crop"], "scales": 1}):
        with pytest.raises(ValueError, match=r"^data\.augment\.crop"):
            Transforms({"crop": node}, (20, 30))
