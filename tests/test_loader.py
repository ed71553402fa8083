"""The loader yields every image once, in an order that depends on (seed, epoch) alone."""

import itertools

import pytest
import torch

from mnist_cnn.data.augment import Augment
from mnist_cnn.data.loader import BatchLoader


def loader(n: int = 100, **changes) -> BatchLoader:
    images = torch.randint(0, 256, (n, 1, 28, 28), dtype=torch.uint8)
    options = {"batch_size": 8, "seed": 3, "shuffle": True, **changes}
    return BatchLoader(images, torch.arange(n), **options)


def rows(batches) -> list[int]:
    return [row for _, labels in batches for row in labels.tolist()]


def test_every_image_comes_once_an_epoch_with_its_label_and_the_last_batch_is_smaller():
    it = loader(100)
    batches = list(it)
    assert sorted(rows(batches)) == list(range(100))
    assert [len(labels) for _, labels in batches] == [8] * 12 + [4]
    assert len(it) == 13
    for x, labels in batches:
        assert torch.equal(x, it.images[labels].float() / 255)


def test_the_order_depends_on_seed_and_epoch_alone():
    orders = set()
    for seed, epoch in itertools.product(range(3), range(3)):
        it, again = loader(100, seed=seed), loader(100, seed=seed)
        it.set_epoch(epoch)
        again.set_epoch(epoch)
        orders.add(tuple(rows(it)))
        torch.rand(7)
        assert tuple(rows(again)) in orders
    assert len(orders) == 9


def test_the_order_is_the_recorded_one_on_every_machine():
    assert rows(loader(10, batch_size=10, seed=0)) == [6, 3, 1, 5, 8, 7, 0, 2, 9, 4]
    assert rows(loader(20, shuffle=False)) == list(range(20))


@pytest.mark.parametrize("done", [0, 5, 13])
def test_a_loaded_position_resumes_with_the_very_next_batch_of_its_epoch_alone(done):
    whole, interrupted, resumed = loader(), loader(), loader()
    for each in (whole, interrupted):
        each.set_epoch(4)
    seen = rows(itertools.islice(interrupted, done))
    resumed.load_state_dict(interrupted.state_dict())
    resumed.set_epoch(4)
    assert seen + rows(resumed) == rows(whole)
    resumed.load_state_dict(interrupted.state_dict())
    resumed.set_epoch(5)
    assert len(rows(resumed)) == 100


@pytest.mark.parametrize(("n", "ranks"), [(96, 2), (100, 2), (100, 3), (97, 4)])
def test_ranks_share_each_batch_without_dropping_or_repeating(n, ranks):
    shares = [list(loader(n, rank=rank, world_size=ranks)) for rank in range(ranks)]
    assert {len(share) for share in shares} == {len(loader(n))}
    for number, (_, labels) in enumerate(loader(n)):
        together = [row for share in shares for row in share[number][1].tolist()]
        assert sorted(together) == sorted(labels.tolist())


def test_augmentation_is_the_same_again_for_the_same_epoch_and_batch():
    it = loader(24, augment=Augment(degrees=20.0))
    first, again = list(it), list(it)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
    it.load_state_dict({"epoch": 0, "batch": 2})
    assert torch.equal(next(iter(it))[0], first[2][0])
    it.set_epoch(1)
    then, now = (
        {row: image for x, labels in batches for image, row in zip(x, labels.tolist(), strict=True)}
        for batches in (first, list(it))
    )
    assert not any(torch.equal(then[row], now[row]) for row in range(24))


def test_the_epochs_after_the_augmented_ones_see_the_images_as_they_are():
    it = loader(16, shuffle=False, augment=Augment(degrees=20.0), augmented_epochs=2)
    changed = []
    for epoch in range(4):
        it.set_epoch(epoch)
        x = torch.cat([x for x, _ in it])
        changed.append(not torch.equal(x, it.images.float() / 255))
    assert changed == [True, True, False, False]
