"""The checks of a user's parts pass a sound network and fail one that is not."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.process import PATIENCE, environment

NETS = """
import torch
from torch import nn


class Good(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.BatchNorm1d(10))

    def forward(self, x):
        return self.layers(x)


class WrongShape(Good):
    def forward(self, x):
        return super().forward(x)[:, :9]


class RandomInEval(Good):
    def forward(self, x):
        return super().forward(x + 0.01 * torch.randn_like(x))


class SeesItsBatch(Good):
    def forward(self, x):
        return super().forward(x - x.mean(0))


class NotSaved(Good):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(()), persistent=False)

    def forward(self, x):
        if self.training:
            self.scale = 0.9 * self.scale + 0.1 * x.std()
        return super().forward(x / self.scale)


class Unused(Good):
    def __init__(self):
        super().__init__()
        self.extra = nn.Linear(2, 2)
"""


def checks(folder: Path, *options: str) -> tuple[int, str]:
    (folder / "nets.py").write_text(NETS)
    command = [sys.executable, "-m", "mnist_cnn.checks", "-q", *options]
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=PATIENCE
    )
    return done.returncode, done.stdout + done.stderr


def test_a_sound_network_passes(tmp_path):
    code, said = checks(tmp_path, "--network=nets.Good")
    assert code == 0, said
    assert "failed" not in said
    assert "skipped" not in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "check"),
    [
        ("WrongShape", "logits_that_depend"),
        ("RandomInEval", "logits_that_depend"),
        ("SeesItsBatch", "logits_that_depend"),
        ("NotSaved", "safetensors"),
        ("NotSaved", "stopped_and_resumed"),
        ("Unused", "finite_gradient"),
    ],
)
def test_a_broken_network_fails(tmp_path, net, check):
    code, said = checks(tmp_path, f"--network=nets.{net}", f"-k={check}")
    assert code == 1, said


@pytest.mark.slow
def test_a_loss_that_is_a_sum_fails(tmp_path):
    (tmp_path / "loss.yaml").write_text("_target_: torch.nn.CrossEntropyLoss\nreduction: sum\n")
    code, said = checks(tmp_path, "--loss=loss.yaml", "-k=mean_of_a_batch")
    assert code == 1
    assert "it is not the batch's mean" in said
