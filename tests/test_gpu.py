"""On a machine with a GPU a run trains there, and its network reads alike on the processor."""

import pytest
import torch

from tests.helpers.folder import measured

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_run_trains_on_the_gpu_and_its_network_reads_alike_on_the_processor(
    short_run, tmp_path, precision
):
    options = ["trainer=gpu", "trainer.accelerator=gpu", "trainer.limit_test_batches=1.0"]
    results = short_run("run", *options, f"trainer.precision={precision}")
    assert torch.cuda.max_memory_allocated() > 0
    loss, acc = measured(tmp_path / "run")
    assert acc > 0.5
    assert results["test/acc"] == pytest.approx(acc, abs=5e-4)
    assert results["test/loss"] == pytest.approx(loss, rel=1e-3)


def test_a_run_on_the_gpu_is_resumed_exactly_there(short_run, tmp_path):
    whole = short_run("whole", "trainer.accelerator=gpu", "trainer.max_epochs=3")
    short_run("cut", "trainer.accelerator=gpu")
    cut = short_run("cut", "trainer.accelerator=gpu", "trainer.max_epochs=3")
    assert cut["val/loss"] == pytest.approx(whole["val/loss"], rel=1e-6)
