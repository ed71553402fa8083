"""Runs' folders: what became of a run, and one process to a folder."""

import json

import pytest
from filelock import FileLock

from mnist_cnn import runs
from mnist_cnn.config import Interrupted, compose
from mnist_cnn.train import train
from tests.conftest import SHORT


def test_a_folder_tells_what_became_of_its_run(short_run, tmp_path):
    folder = tmp_path / "run"
    assert runs.state(folder) == "new"
    seen = []

    @runs.recorded
    def look(cfg):
        seen.append(runs.state(folder))
        raise KeyboardInterrupt

    cfg = compose(SHORT, run_dir=folder)
    with pytest.raises(Interrupted, match="go on with ckpt_path="):
        look(cfg)
    assert seen == ["running"]
    assert runs.state(folder) == "interrupted"

    @runs.recorded
    def fail(cfg):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        fail(cfg)
    assert runs.state(folder) == "failed"
    noted = json.loads((folder / "failed.json").read_text())
    assert (noted["type"], noted["error"]) == ("RuntimeError", "out of memory")
    assert "in fail" in noted["traceback"]

    @runs.recorded
    def prune(cfg):
        raise runs.Pruned(epoch=2, metric="val/loss", value=2.3)

    with pytest.raises(runs.Pruned):
        prune(cfg)
    assert runs.state(folder) == "pruned"
    assert not (folder / "failed.json").exists()

    short_run("run", "trainer.max_epochs=1")
    assert runs.state(folder) == "finished"


def test_a_second_process_does_not_train_in_the_same_folder(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with FileLock(folder / runs.LOCK), pytest.raises(ValueError, match="another process"):
        train(compose(SHORT, run_dir=folder))
    assert [p.name for p in folder.iterdir()] == [runs.LOCK]


def test_a_wrong_value_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match=r"optimizer\.lr must be .*, got -1"):
        train(compose([*SHORT, "optimizer.lr=-1"], run_dir=tmp_path / "run"))
    assert not (tmp_path / "run").exists()
