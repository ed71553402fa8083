"""A run trains on the GPU, and its network gives the same predictions on the CPU."""

from pathlib import Path

import pytest
import torch

from mnist_cnn.config.compose import compose
from mnist_cnn.train import train
from tests.helpers.folder import measured
from tests.helpers.training import SHORT

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
]


def run(folder: Path, *overrides: str) -> dict:
    options = [*SHORT, "trainer.accelerator=gpu", *overrides]
    return train(compose(options, run_dir=folder, run_name="x"))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_run_trains_on_the_gpu_and_its_network_reads_alike_on_the_processor(tmp_path, precision):
    options = ["trainer=gpu", "trainer.accelerator=gpu", "trainer.limit_test_batches=1.0"]
    results = run(tmp_path, *options, f"trainer.precision={precision}")
    assert torch.cuda.max_memory_allocated() > 0
    loss, acc = measured(tmp_path)
    assert acc > 0.5
    assert results["test/acc"] == pytest.approx(acc, abs=5e-4)
    assert results["test/loss"] == pytest.approx(loss, rel=1e-3)


def test_a_run_on_the_gpu_is_resumed_exactly_there(tmp_path):
    whole = run(tmp_path / "whole", "trainer.max_epochs=3")
    run(tmp_path / "cut")
    cut = run(tmp_path / "cut", "trainer.max_epochs=3")
    assert cut["val/loss"] == pytest.approx(whole["val/loss"], rel=1e-6)
