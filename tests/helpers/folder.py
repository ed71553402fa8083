"""Read the history of a run's folder, and evaluate its network."""

import os
from pathlib import Path

import torch

from mnist_cnn.checks.folders import rows
from mnist_cnn.data import mnist
from mnist_cnn.weights import predictor


def column(run: Path, name: str) -> list[float]:
    return [float(row[name]) for row in rows(run)]


@torch.no_grad()
def measured(run: Path) -> tuple[float, float]:
    """Return loss and accuracy of a run's network on all 10,000 test images."""
    images, labels = mnist.load_split("mnist", os.environ["MNIST_CNN_DATA"], "test")
    assert len(images) == 10_000
    net = predictor.load(run)
    p = torch.cat([net(batch) for batch in images.split(500)]).double()
    losses = -p[torch.arange(len(p)), labels].log()
    return losses.mean().item(), (p.argmax(1) == labels).double().mean().item()
