"""Muon: steps like those of torch.optim's optimizers, whatever the shape and memory format."""

import functools

import pytest
import torch
from torch import nn

from mnist_cnn.optim import Muon, orthogonalized

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
    assert (ours - theirs).abs().mean() < 0.02 * moved.abs().mean()  # computed in bfloat16


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
