"""Muon steps like torch.optim's optimizers; a schedule over a whole training knows its length."""

import functools
import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from mnist_cnn.callbacks.certified import CertifiedTraining
from mnist_cnn.detection.module import CharacterDetector
from mnist_cnn.module import DigitClassifier
from mnist_cnn.optim import Muon, make_schedule, orthogonalized
from tests.helpers.training import bare_trainer

STEPS = 5


def stepped(make, shape: tuple[int, ...]) -> torch.Tensor:
    """Return a parameter after steps of an optimizer on random gradients."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(shape))
    optimizer = make([weight])
    for _ in range(STEPS):
        weight.grad = torch.randn(shape)
        optimizer.step()
    return weight.detach()


@pytest.mark.parametrize("start", [None, "x"])
def test_a_warm_up_that_is_no_number_is_refused_in_one_line(start):
    cycle = {"_target_": "torch.optim.lr_scheduler.OneCycleLR", "max_lr": 0.1, "pct_start": start}
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1)
    with pytest.raises(ValueError, match=r"^scheduler: "):
        make_schedule(cycle, optimizer, lambda: 10)


def test_vectors_are_moved_as_by_adamw():
    ours = stepped(lambda of: Muon(of, lr=0.01, weight_decay=0.1), (50,))
    theirs = stepped(lambda of: torch.optim.AdamW(of, lr=0.01, weight_decay=0.1), (50,))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch before 2.9")
@pytest.mark.parametrize("shape", [(8, 30), (30, 8)])
def test_matrices_are_moved_as_by_torchs_muon(shape):
    ours = stepped(lambda of: Muon(of, lr=0.01, weight_decay=0.1), shape)
    scaled = functools.partial(torch.optim.Muon, adjust_lr_fn="match_rms_adamw")
    theirs = stepped(lambda of: scaled(of, lr=0.01, weight_decay=0.1), shape)
    moved = ours - stepped(lambda of: Muon(of, lr=0.0), shape)
    assert (ours - theirs).abs().mean() < 0.02 * moved.abs().mean()  # computed in bfloat16 by torch


@pytest.mark.parametrize("shape", [(16, 90), (90, 16)])
def test_orthogonalized_keeps_the_singular_vectors_and_sets_the_values_to_about_one(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape) * torch.logspace(0, -1, shape[1])
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    values = u.T @ orthogonalized(matrix) @ v.T
    assert values.diagonal().min() > 0.6
    assert values.diagonal().max() < 1.3
    assert (values - values.diagonal().diag()).abs().max() < 0.05


def test_filters_are_rows_in_any_memory_format():
    usual = stepped(lambda of: Muon(of, lr=0.01), (6, 4, 3, 3))
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(6, 4, 3, 3).contiguous(memory_format=torch.channels_last))
    optimizer = Muon([weight], lr=0.01)
    for _ in range(STEPS):
        weight.grad = torch.randn(6, 4, 3, 3).contiguous(memory_format=torch.channels_last)
        optimizer.step()
    torch.testing.assert_close(weight.detach(), usual)
    flat = stepped(lambda of: Muon(of, lr=0.01), (6, 36))
    torch.testing.assert_close(usual.flatten(1), flat)


@pytest.mark.parametrize(
    ("argument", "key"),
    [
        ({"lr": math.nan}, "lr"),
        ({"weight_decay": -1}, "weight_decay"),
        ({"momentum": 2}, "momentum"),
        ({"momentum": "a"}, "momentum"),
        ({"betas": [0.9, 1.0]}, r"betas\.1"),
        ({"betas": [0.9]}, "betas"),
        ({"eps": -1}, "eps"),
    ],
)
def test_an_argument_out_of_range_is_named(argument, key):
    with pytest.raises(ValueError, match=rf"^{key} must be .*, got "):
        Muon([nn.Parameter(torch.zeros(2))], **{"lr": 0.1, **argument})


class Stream(IterableDataset):
    """Digits of zeros, of which nobody says how many they are."""

    def __iter__(self):
        yield from [(torch.zeros(1, 28, 28), torch.tensor(0))] * 12


CLIPPED = {"_target_": "mnist_cnn.model.ClippedCNN", "channels": [4, 4], "hidden": 8}
DETECTOR = {"_target_": "mnist_cnn.detection.network.Detector", "width": 8, "deep_width": 8}
LOADER = DataLoader(Stream(), 4)
SGD = {"_target_": "torch.optim.SGD", "lr": 0.1}
COSINE = {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "interval": "step"}
ONE_CYCLE = {"_target_": "torch.optim.lr_scheduler.OneCycleLR", "max_lr": 0.1}


@pytest.mark.parametrize(
    ("kind", "model", "scheduler", "callbacks"),
    [
        (DigitClassifier, CLIPPED, COSINE, []),
        (DigitClassifier, CLIPPED, {**ONE_CYCLE, "interval": "step"}, []),
        (DigitClassifier, CLIPPED, {}, [CertifiedTraining(epsilon=0.1, grown=0.5)]),
        (CharacterDetector, {**DETECTOR, "blocks": 1}, ONE_CYCLE, []),
    ],
)
def test_what_spans_a_training_of_unknown_length_asks_for_its_steps(
    kind, model, scheduler, callbacks
):
    module = kind(model=model, optimizer=SGD, scheduler=scheduler)
    trainer = bare_trainer(max_epochs=2, num_sanity_val_steps=0, callbacks=callbacks)
    with pytest.raises(ValueError, match=r"^trainer\.max_steps must be .*, got -1$"):
        trainer.fit(module, LOADER, LOADER)


def test_a_schedule_spans_the_steps_of_a_stream():
    module = DigitClassifier(model=CLIPPED, optimizer=SGD, scheduler=COSINE)
    trainer = bare_trainer(max_steps=6, max_epochs=2)
    trainer.fit(module, LOADER, LOADER)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)


def test_a_schedule_over_epochs_asks_for_their_number():
    scheduler = {**COSINE, "interval": "epoch"}
    module = DigitClassifier(model=CLIPPED, optimizer=SGD, scheduler=scheduler)
    with pytest.raises(ValueError, match=r"^trainer\.max_epochs must be .*, got -1$"):
        bare_trainer(max_steps=6).fit(module, LOADER, LOADER)


def test_a_schedule_over_epochs_spans_those_that_the_steps_reach():
    module = DigitClassifier(
        model=CLIPPED, optimizer=SGD, scheduler={**COSINE, "interval": "epoch"}
    )
    trainer = bare_trainer(max_steps=6, max_epochs=9, limit_train_batches=2)
    trainer.fit(module, LOADER, LOADER)
    assert trainer.current_epoch == 3
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)
