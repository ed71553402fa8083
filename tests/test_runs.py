"""Runs' folders: what became of a run, one process to a folder, and nothing of others touched."""

import json
from pathlib import Path

import pytest
from filelock import FileLock

from mnist_cnn.config.compose import compose
from mnist_cnn.evaluate import evaluate
from mnist_cnn.runs import claim, state
from mnist_cnn.runs.signals import Interrupted
from mnist_cnn.train import train
from tests.helpers.training import SHORT


def test_a_folder_tells_what_became_of_its_run(short_run, tmp_path):
    folder = tmp_path / "run"
    assert state.state(folder) == "new"
    seen = []

    @claim.recorded
    def look(cfg):
        seen.append(state.state(folder))
        raise KeyboardInterrupt

    cfg = compose(SHORT, run_dir=folder)
    with pytest.raises(Interrupted, match="resume it with ckpt_path="):
        look(cfg)
    assert seen == ["running"]
    assert state.state(folder) == "interrupted"

    @claim.recorded
    def fail(cfg):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        fail(cfg)
    assert state.state(folder) == "failed"
    noted = json.loads((folder / "failed.json").read_text())
    assert (noted["type"], noted["error"]) == ("RuntimeError", "out of memory")
    assert "in fail" in noted["traceback"]

    @claim.recorded
    def prune(cfg):
        raise state.Pruned(epoch=2, metric="val/loss", value=2.3)

    with pytest.raises(state.Pruned):
        prune(cfg)
    assert state.state(folder) == "pruned"
    assert not (folder / "failed.json").exists()

    short_run("run", "trainer.max_epochs=1")
    assert state.state(folder) == "finished"


def test_a_second_process_does_not_train_in_the_same_folder(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with FileLock(folder / state.LOCK), pytest.raises(ValueError, match="another process"):
        train(compose(SHORT, run_dir=folder))
    assert [p.name for p in folder.iterdir()] == [state.LOCK]


def test_a_wrong_value_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match=r"optimizer\.lr must be .*, got -1"):
        train(compose([*SHORT, "optimizer.lr=-1"], run_dir=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["thesis.txt"], "which holds thesis.txt; choose another folder"),
        (["train.log"], "which holds train.log; choose another folder"),
        ([".lock", "checkpoints/best.ckpt"], "a run; resume it with ckpt_path="),
        ([".lock", "results.json"], "a finished run; resume it with ckpt_path="),
        ([".lock", "multirun.yaml"], "a sweep; resume it with ckpt_path="),
    ],
)
def test_a_new_run_takes_no_folder_that_holds_anything(tmp_path, names, message):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    before = files(tmp_path)
    with pytest.raises(ValueError, match=f"run_dir must be a new or empty folder, got .*{message}"):
        train(compose(SHORT, run_dir=tmp_path))
    assert files(tmp_path) == before


def test_a_run_that_ended_without_a_checkpoint_makes_way_but_not_for_what_is_not_its_own(tmp_path):
    own = [".lock", "failed.json", "history.csv", "tensorboard/x/events.out.tfevents.1.host"]
    others = ["notes.txt", "train.log", "tensorboard/notes.txt", "checkpoints/notes.txt"]
    for name in (*own, *others):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("")
    claim.claim(tmp_path, compose(SHORT, run_dir=tmp_path))
    assert set(files(tmp_path)) == {".lock", *others}
    assert state.state(tmp_path) == "running"
    claim.release(tmp_path)
    assert state.state(tmp_path) == "interrupted"


@pytest.mark.slow
def test_a_second_process_changes_nothing_in_the_folder_of_the_first(command, tmp_path):
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    (tmp_path / "run" / ".hydra" / "config.yaml").write_text("the first's")
    with FileLock(tmp_path / "run" / state.LOCK):
        done = command(*SHORT, "hydra.run.dir=run", "data.batch_size=32")
        assert done.returncode == 1
        assert done.stderr == "error: run_dir=run: another process is training there\n"
        assert files(tmp_path / "run") == {".lock": b"", ".hydra/config.yaml": b"the first's"}


def test_a_folder_that_may_not_be_written_is_named(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied")

    (tmp_path / state.LOCK).write_text("")
    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(ValueError, match=f"{tmp_path} cannot be written: Permission denied$"):
        train(compose(SHORT, run_dir=tmp_path))


@pytest.mark.slow
def test_a_run_s_folder_has_one_name(command, tmp_path):
    for kind, args in (("run", []), ("sweep", ["-m", "seed=0,1"])):
        done = command(*SHORT, "run_dir=mine", *args)
        assert done.returncode == 1
        assert done.stderr.endswith(f"own folder; set hydra.{kind}.dir instead\n")
        assert done.stderr.count("\n") == 1
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["thesis.txt", "predictions.csv", ".lock", ".hydra/config.yaml"])
def test_an_evaluation_takes_no_folder_that_holds_anything_else(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("trainer: {}")
    cfg = compose(["data.val_fraction=0", "data.fold=0"], run_dir=tmp_path, entry="evaluate")
    with pytest.raises(ValueError, match=r"or an evaluation's, got .*; choose another folder"):
        evaluate(cfg)
    assert files(tmp_path) == {name: b"trainer: {}"}


def test_an_evaluation_may_be_done_again(tmp_path):
    claim.check_evaluation(tmp_path / "new")
    claim.check_evaluation(tmp_path)
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text("split: test")
    claim.check_evaluation(tmp_path)
