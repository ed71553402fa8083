"""Files of another format version are refused in one line."""

from pathlib import Path

import pytest
import torch

from mnist_cnn.analysis.found import read_runs
from mnist_cnn.checks.folders import last
from mnist_cnn.runs.folder import LAST, RESULTS
from mnist_cnn.weights import predictor
from tests.helpers.training import trained

LINE = "format_version must be 1, got 2"


def changed(file: Path, old: bytes, new: bytes) -> Path:
    content = file.read_bytes()
    assert old in content
    file.write_bytes(content.replace(old, new))
    return file


def test_files_of_another_version_are_refused(tmp_path):
    run = trained(tmp_path / "run", "trainer.max_epochs=1")
    weights = changed(run / "weights.safetensors", b'_version\\": 1', b'_version\\": 2')
    with pytest.raises(ValueError, match=LINE):
        predictor.load(weights)
    results = changed(run / RESULTS, b'_version": 1', b'_version": 2')
    message = f"ValueError: {RESULTS}: {LINE}: another release wrote it"
    assert read_runs([run])["message"].tolist() == [message]
    with pytest.raises(ValueError, match=f"{RESULTS}: {LINE}"):
        trained(run, "trainer.max_epochs=1")
    results.unlink()
    torch.save(last(run) | {"format_version": 2}, run / LAST)
    with pytest.raises(ValueError, match=f"^ckpt_path must be .*{LINE}"):
        trained(run, "trainer.max_epochs=1")
