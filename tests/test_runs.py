"""RunFolder: one process per folder, valid results, and no changes to other files."""

import errno
import gc
import importlib
import json
import logging
import math
import os
import signal
import sys
from enum import Enum
from fcntl import F_GETFL, fcntl
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from omegaconf import OmegaConf

from mnist_cnn.checks.folders import files
from mnist_cnn.config.depends import depends_on, extendable
from mnist_cnn.runs.folder import (
    CONFIG,
    FAILED,
    LAST,
    LOCK,
    OVERRIDES,
    PENDING,
    PRUNED,
    RESULTS,
    SWEEP,
    FolderInUseError,
    Pruned,
    RunFolder,
    flat,
    state,
    write_json,
)
from mnist_cnn.runs.imports import without_collection
from mnist_cnn.runs.names import sweep_name, varied
from mnist_cnn.runs.processor import crowded, emulated
from mnist_cnn.runs.ranks import world_size
from mnist_cnn.runs.signals import Interrupted, StopSignal
from tests.helpers import process


def opened(path, *, neutral="", more=(), ended="", stale=(), **values):
    """Open a run independent of the key `neutral`, with nothing left to train if `ended`."""

    def keep(flat):
        return {key: flat[key] for key in flat if key != neutral}

    folder = RunFolder(path, keep, lambda flat: more, lambda file: ended, stale)
    return folder.opened({"lr": 1, "epochs": 2, **values})


def recorded(path: Path) -> Any:
    return OmegaConf.to_container(OmegaConf.load(path / CONFIG))


def finished(path: Path, **values) -> Path:
    with opened(path, **values) as run:
        run.outdate()
        (path / LAST).parent.mkdir()
        (path / LAST).write_text("weights")
        run.finish({"loss": 0.5})
    return path


def stop(run: RunFolder, error: BaseException, first=lambda: None) -> None:
    assert run.results is None
    first()
    raise error


def test_a_run_is_new_then_running_then_finished(tmp_path):
    path = tmp_path / "a" / "run"
    assert state(path) == "new"
    with opened(path) as run:
        assert (run.results, run.last) == (None, None)
        assert state(path) == "running"
        logging.getLogger("any").info("one line")
        run.finish({"loss": 0.5})
    assert state(path) == "finished"
    assert recorded(path) == {"lr": 1, "epochs": 2}
    assert (path / "run.log").read_text().endswith("] one line\n")
    assert set(files(path)) == {LOCK, RESULTS, str(CONFIG), "run.log"}


def test_a_command_is_imported_where_there_is_no_sigkill(tmp_path):
    code = "import signal; del signal.SIGKILL; import mnist_cnn.train"
    (tmp_path / "windows.py").write_text(code)
    assert process.run(tmp_path, "windows").returncode == 0


def test_a_file_is_synced_through_a_handle_that_may_write(tmp_path, monkeypatch):
    modes = []
    monkeypatch.setattr(os, "fsync", lambda file: modes.append(fcntl(file, F_GETFL) & os.O_RDWR))
    write_json({}, tmp_path / "x.json")
    assert modes == [os.O_RDWR]


def test_results_that_are_no_finite_numbers_are_null(tmp_path):
    with opened(tmp_path) as run:
        run.finish({"loss": math.nan, "each": [{"a": math.inf}, 0.5]})
    refuse = partial(pytest.fail, "JSON has no such number")
    content = json.loads((tmp_path / RESULTS).read_text(), parse_constant=refuse)
    assert content == {"format_version": 1, "loss": None, "each": [{"a": None}, 0.5]}


def test_the_same_call_returns_the_results_of_a_run_that_has_ended(tmp_path):
    finished(tmp_path)
    before = files(tmp_path)
    with opened(tmp_path) as run:
        assert (run.results, run.last) == ({"loss": 0.5}, tmp_path / LAST)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("error", "file", "content"),
    [
        (RuntimeError("no\nmemory"), FAILED, {"type": "RuntimeError", "error": "no\nmemory"}),
        (Pruned(2, "val/loss", 2.3), PRUNED, {"epoch": 2, "metric": "val/loss", "value": 2.3}),
        (BrokenPipeError(32, "no reader"), FAILED, {"type": "BrokenPipeError"}),
    ],
    ids=["failed", "pruned", "a pipe to another program"],
)
def test_a_run_that_did_not_finish_says_why_until_it_is_opened(tmp_path, error, file, content):
    with pytest.raises(type(error)), opened(tmp_path):
        raise error
    assert state(tmp_path) == file.partition(".")[0]
    noted = json.loads((tmp_path / file).read_text())
    assert content.items() <= noted.items()
    assert "traceback" not in noted or "in test_a_run" in noted["traceback"]
    with opened(tmp_path):
        assert not (tmp_path / file).exists()
    assert state(tmp_path) == "interrupted"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyboardInterrupt(), "interrupted by SIGINT"),
        (Interrupted(15), "interrupted by SIGTERM"),
    ],
)
def test_what_stops_a_run_says_how_to_resume_it_and_notes_no_failure(tmp_path, error, words):
    with pytest.raises(Interrupted) as stop, opened(tmp_path):
        raise error
    assert str(stop.value) == f"{words}; the call that started {tmp_path} resumes it"
    assert state(tmp_path) == "interrupted"
    (tmp_path / OVERRIDES).write_text("[]")  # as a command does
    with (
        pytest.raises(Interrupted, match=f"; resume it with ckpt_path={tmp_path}$"),
        opened(tmp_path),
    ):
        raise error


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell")
def test_a_run_whose_output_nobody_reads_any_more_is_interrupted(tmp_path, monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as output:
        monkeypatch.setattr(sys, "__stdout__", output)
        with pytest.raises(Interrupted, match="SIGPIPE"), opened(tmp_path):
            raise BrokenPipeError
    assert state(tmp_path) == "interrupted"


def test_a_stop_signal_is_noted_where_nobody_reads_what_it_says(monkeypatch):
    def broken(*args):
        raise BrokenPipeError

    stop = StopSignal()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", broken)
        stop.note(signal.SIGINT, None)
    assert stop.received == signal.SIGINT


@pytest.mark.parametrize(
    ("load", "threads", "told"), [(0.4, 2, False), (3.0, 2, True), (9.0, 1, False)]
)
def test_the_setting_for_a_busy_machine_is_told_where_threads_would_wait(
    load, threads, told, monkeypatch
):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    line = crowded(threads)
    assert (line is not None) == told
    assert line is None or "OMP_NUM_THREADS=1" in line


@pytest.mark.parametrize(
    ("precision", "has", "told"),
    [
        ("bf16-mixed", {"avx512_bf16": False}, True),
        ("bf16-true", {"avx512_bf16": False, "amx_bf16": True}, False),
        ("bf16-mixed", {"avx512_bf16": True}, False),
        ("bf16-mixed", {}, False),
        ("32-true", {"avx512_bf16": False}, False),
    ],
)
def test_the_setting_for_a_processor_without_bfloat16_is_told(precision, has, told, monkeypatch):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: has, raising=False)
    line = emulated(precision)
    assert (line is not None) == told
    assert line is None or "trainer.precision=32-true" in line


def test_imports_are_made_without_collection_and_frozen(monkeypatch):
    with without_collection():  # torch is imported here: nothing changes
        assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    monkeypatch.delitem(sys.modules, "torch")
    try:
        with without_collection():
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


FOREIGN = [["thesis.txt"], ["train.log", "results.json"], [LOCK, SWEEP], [".lock", "results.json"]]


def test_ctrl_c_while_a_command_is_imported_leaves_no_traceback(tmp_path):
    (tmp_path / "omegaconf.py").write_text("import time; open('here', 'w'); time.sleep(60)")
    path = f"{tmp_path}:{process.environment()['PYTHONPATH']}"
    command = process.start(tmp_path, "mnist_cnn.train", PYTHONPATH=path)
    process.wait_for((tmp_path / "here").exists, command)
    command.send_signal(signal.SIGINT)
    assert process.finish(command) == (-signal.SIGINT, "", "")


def test_a_finished_run_in_a_folder_that_cannot_be_written_returns_its_results(
    tmp_path, monkeypatch
):
    finished(tmp_path / "run")
    before = files(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root can write everywhere
    with opened(tmp_path / "run") as run:
        assert run.results == {"loss": 0.5}
    with (
        pytest.raises(ValueError, match=f"{tmp_path / 'run'} must be a folder"),
        opened(tmp_path / "run", epochs=4, more=["epochs"]),
    ):
        pass
    assert files(tmp_path) == before


def test_nothing_of_a_run_is_written_through_a_link(tmp_path):
    run, mine = tmp_path / "run", tmp_path / "mine"
    mine.write_text("kept")
    finished(run)
    for name in ("results.new", ".hydra/config.new", ".hydra/overrides.new", "run.log"):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(mine)
    with opened(run, epochs=4, more=["epochs"]) as extended, extended.logged():
        logging.getLogger().info("a line")
        extended.finish({"loss": 0.25})
    assert mine.read_text() == "kept"
    assert "a line" in (run / "run.log").read_text()


@pytest.mark.parametrize("content", ["[]", "null", '{"loss": 1'])
def test_damaged_results_are_named(tmp_path, content):
    finished(tmp_path)
    (tmp_path / RESULTS).write_text(content)
    with pytest.raises(ValueError, match=f"^{tmp_path / RESULTS}: "), opened(tmp_path):
        pass


def test_a_full_disk_leaves_the_recorded_configuration_as_it_was(tmp_path, monkeypatch):
    finished(tmp_path)
    before = files(tmp_path)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with opened(tmp_path, epochs=4, more=["epochs"]) as extended:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            extended.commit()
    assert files(tmp_path) == before


@pytest.mark.parametrize("outer", [False, True], ids=["", "in a program that is imported"])
def test_a_signal_during_an_import_is_answered_when_it_is_over(tmp_path, monkeypatch, outer):
    monkeypatch.syspath_prepend(tmp_path)
    name = f"kills_{outer}"
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGTERM); done = True"
    (tmp_path / f"{name}.py").write_text(kill)
    program = "import time\nfrom mnist_cnn.runs.signals import interruptible\n"
    program += f"with interruptible():\n    import {name}\n    time.sleep(60)"
    (tmp_path / "program.py").write_text(program)
    imported = partial(importlib.import_module, "program")
    call = imported if outer else partial(exec, program)
    with pytest.raises(Interrupted):
        call()
    assert sys.modules[name].done


HALF = """
import os, signal, sys
from mnist_cnn.runs.signals import Interrupted, interruptible

class Half:
    def __init__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        self.workers = []

    def __del__(self):
        self.workers.clear()

try:
    with interruptible():
        try:
            Half()
        except BaseException as e:
            if sys.argv[1:]:
                raise Interrupted(e.number) from None
            raise
except Interrupted as e:
    sys.exit(128 + e.number)
"""


@pytest.mark.parametrize("replaced", [(), ("replaced",)], ids=["", "replaced"])
def test_what_an_interruption_leaves_half_made_prints_nothing(tmp_path, replaced):
    (tmp_path / "half.py").write_text(HALF)
    command = process.start(tmp_path, "half", *replaced)
    assert process.finish(command) == (128 + signal.SIGTERM, "", "")


@pytest.mark.parametrize("names", FOREIGN)
def test_a_folder_that_is_no_run_s_is_refused_and_untouched(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text(f"mine: {name}")
    before = files(tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path} .*"), opened(tmp_path):
        pass
    assert files(tmp_path) == before


def test_a_foreign_folder_within_a_sweep_is_refused_and_untouched(tmp_path):
    (tmp_path / SWEEP).write_text("application: train\ncommands: []")
    job = tmp_path / "seed_1"
    job.mkdir()
    (job / "results.json").write_text("mine")
    with pytest.raises(ValueError, match=f"{job} must be empty or a run's"), opened(job):
        pass
    assert files(job) == {"results.json": b"mine"}


def test_a_folder_in_which_another_process_works_is_refused_and_untouched(tmp_path):
    finished(tmp_path)
    before = files(tmp_path)
    with FileLock(tmp_path / LOCK):
        assert state(tmp_path) == "running"
        with pytest.raises(FolderInUseError, match=str(tmp_path)), opened(tmp_path, lr=2):
            pass
    assert files(tmp_path) == before


class Loss(Enum):
    MSE = 1


def test_a_value_that_is_recorded_in_another_form_is_the_same(tmp_path):
    own = {"loss": Loss.MSE, "limit": math.nan, "many": [math.nan, None], "file": Path("x")}
    finished(tmp_path, **own)
    with opened(tmp_path, **own) as run:
        assert run.results == {"loss": 0.5}


def test_a_sweep_of_another_program_is_no_sweep(tmp_path):
    (tmp_path / SWEEP).write_text("program: train.py")
    (tmp_path / PENDING).write_text("mine")
    run = finished(tmp_path / "run")
    (run / OVERRIDES).write_text("[]")
    assert (varied(run), sweep_name(str(run))) == ({}, "")
    assert (tmp_path / PENDING).read_text() == "mine"


def test_another_configuration_is_refused_by_its_keys(tmp_path):
    finished(tmp_path)
    before = files(tmp_path)
    other = opened(tmp_path, lr=3, new="x")
    with pytest.raises(ValueError, match=r"lr must be 1 as recorded, got 3.*; new must be"), other:
        pass
    assert files(tmp_path) == before


def test_what_changes_no_result_may_change_and_is_recorded_with_the_next_checkpoint(tmp_path):
    with pytest.raises(Interrupted), opened(tmp_path, bar=1, neutral="bar"):
        raise KeyboardInterrupt
    with opened(tmp_path, bar=2, neutral="bar") as run:
        assert recorded(tmp_path)["bar"] == 1
        run.outdate()
        assert recorded(tmp_path)["bar"] == 2


def test_an_extended_run_invalidates_the_results_with_its_first_checkpoint(tmp_path):
    finished(tmp_path, stale=["weights"])
    (tmp_path / "weights").write_text("of two epochs")
    before = files(tmp_path)
    longer = {"epochs": 4, "more": ["epochs"], "stale": ["weights"]}
    with pytest.raises(RuntimeError), opened(tmp_path, **longer) as run:
        stop(run, RuntimeError("before there is a newer checkpoint"))
    assert files(tmp_path) == before  # the record is still that of the finished run
    assert state(tmp_path) == "finished"
    with pytest.raises(RuntimeError), opened(tmp_path, **longer) as run:
        stop(run, RuntimeError("after it"), run.outdate)
    assert recorded(tmp_path)["epochs"] == 4
    assert set(before) - set(files(tmp_path)) == {RESULTS, "weights"}
    assert state(tmp_path) == "failed"
    with opened(tmp_path, **longer) as run:
        run.finish({"loss": 0.25})
    with opened(tmp_path, **longer) as run:
        assert run.results == {"loss": 0.25}


def test_force_resumes_with_another_configuration_and_says_which(tmp_path, capsys):
    finished(tmp_path)
    for error in (RuntimeError("no memory"), KeyboardInterrupt()):  # before a checkpoint
        before = files(tmp_path)
        forced = opened(tmp_path, lr=2, force=True)
        with pytest.raises((RuntimeError, Interrupted)), forced as run:
            stop(run, error)
        assert files(tmp_path) == before
        assert "lr must be 1 as recorded, got 2" in capsys.readouterr().err
    with opened(tmp_path, lr=2, force=True) as run:
        run.finish({"loss": 0.1})
    assert recorded(tmp_path)["lr"] == 2


def test_a_users_own_value_called_force_is_compared_like_any_other(tmp_path):
    finished(tmp_path, force=9.8)
    with pytest.raises(ValueError, match=r"force must be 9\.8 as recorded, got 1\.6"):
        opened(tmp_path, force=1.6).__enter__()


def test_force_has_nothing_to_change_where_nothing_is_left_to_train(tmp_path, capsys):
    finished(tmp_path)
    before = files(tmp_path)
    forced = opened(tmp_path, lr=2, force=True, ended="2 epochs are trained")
    with pytest.raises(ValueError, match=r"lr must be 1 as recorded, got 2; .*2 epochs"), forced:
        pass
    assert files(tmp_path) == before
    assert capsys.readouterr().err == ""


def test_forced_values_with_which_nothing_was_trained_are_not_recorded(tmp_path):
    finished(tmp_path)
    before = files(tmp_path)
    forced = opened(tmp_path, lr=2, force=True)
    with pytest.raises(ValueError, match="has trained nothing"), forced as run:
        run.check_forced()
    assert files(tmp_path) == before
    with opened(tmp_path, lr=2, force=True) as run:
        run.outdate()
        run.check_forced()


def test_a_run_that_has_begun_takes_no_other_checkpoint(tmp_path):
    start = {"neutral": "ckpt_path"}
    finished(tmp_path, ckpt_path="/a.ckpt", **start)
    before = files(tmp_path)
    words = r"ckpt_path must be /a\.ckpt as recorded, got /b\.ckpt"
    with pytest.raises(ValueError, match=words), opened(tmp_path, ckpt_path="/b.ckpt", **start):
        pass
    assert files(tmp_path) == before
    for same in ("/a.ckpt", str(tmp_path), str(tmp_path / LAST), None):
        with opened(tmp_path, ckpt_path=same, **start) as run:
            assert run.results == {"loss": 0.5}


def test_processes_are_those_of_torchrun(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert world_size() == 1
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    assert world_size() == 2


def test_a_step_that_is_left_out_takes_nothing_from_the_results(tmp_path, capsys):
    finished(tmp_path, test=True)
    before = files(tmp_path)
    for longer, said in (({}, ""), ({"epochs": 4, "ended": "stopped"}, "left to train: stopped")):
        with opened(tmp_path, test=False, more=["test", "epochs"], **longer) as run:
            assert run.results == {"loss": 0.5}
        assert said in capsys.readouterr().err
    assert files(tmp_path) == before
    with opened(tmp_path, test=False, epochs=4, more=["test", "epochs"]) as run:
        assert run.results is None  # the results need more epochs


@pytest.mark.parametrize("values", [{"test": True}, {"test": False, "epochs": 4}])
def test_a_step_or_a_length_that_is_added_is_carried_out(tmp_path, values):
    finished(tmp_path, test=False)
    with opened(tmp_path, more=["test", "epochs"], ended="2 epochs", **values) as run:
        assert run.results is None


def test_a_run_from_another_s_checkpoint_is_compared_with_that_run(tmp_path):
    old = finished(tmp_path / "old")
    start = {"ckpt_path": str(old / LAST), "neutral": "ckpt_path"}
    with pytest.raises(ValueError, match="lr must be 1"), opened(tmp_path / "new", lr=2, **start):
        pass
    assert not (tmp_path / "new").exists()  # so it counts as no run
    with opened(tmp_path / "new", **start) as run:
        assert (run.results, run.last) == (None, None)
    # wherever the checkpoint is
    with opened(tmp_path / "other", ckpt_path="/copy.ckpt", neutral="ckpt_path"):
        pass


NOW = {
    "callbacks.progress.quiet": True,
    "callbacks.progressive.size": 14,
    "data._target_": "mnist_cnn.data.custom.FolderDataModule",
    "data.root": "/data",
    "data.rooted": 1,
    "data.eval_batch_size": 200,
    "optimizer.lr": 0.001,
    "trainer.max_epochs": 10,
    "trainer.devices": 2,
    "trainer.num_nodes": 2,
    "logger.csv.name": "x",
}


def test_results_depend_on_whole_keys():
    keys = {"callbacks.progressive.size", "data.rooted", "optimizer.lr", "trainer.max_epochs"}
    keys |= {"data._target_"}
    assert set(depends_on({**NOW, "trainer.limit_val_batches": 1.0})) - keys == {
        "trainer.limit_val_batches"
    }
    # a limited validation has as many images as its batches
    limit = "trainer.limit_test_batches"
    assert set(depends_on({**NOW, limit: 1})) - keys == {limit, "data.eval_batch_size"}
    # a class of the user's may read anything from there
    own = depends_on({**NOW, "data._target_": "my_pkg.Large"})
    assert set(own) - keys == {"data.root", "data.eval_batch_size"}


def test_results_do_not_depend_on_where_the_run_lies():
    def values(folder: str) -> dict[str, Any]:
        mine = {"file": f"{folder}/x.csv", "all": [{"db": f"sqlite:///{folder}/y"}, folder, 3]}
        return depends_on(flat({"run_dir": folder, "data": mine}))

    assert values("/runs/1") == values("/moved to/2")
    others = {"data.a": "/runs/12", "data.b": "/old/runs/1", "data.c": "/runs/1.csv"}
    assert depends_on({"run_dir": "/runs/1", **others}) == others


LIGHTNINGS = "lightning.pytorch.callbacks"


@pytest.mark.parametrize(
    ("values", "epochs"),
    [
        ({}, True),
        ({"scheduler._target_": "torch.optim.lr_scheduler.ReduceLROnPlateau"}, True),
        ({"scheduler._target_": "torch.optim.lr_scheduler.OneCycleLR"}, False),
        ({"scheduler._target_": "torch.optim.lr_scheduler.CosineAnnealingLR"}, False),
        ({"data.clean_epochs": 1}, False),
        ({"callbacks.averaging._target_": f"{LIGHTNINGS}.EMAWeightAveraging"}, False),
        ({"callbacks.x._target_": f"{LIGHTNINGS}.WeightAveraging"}, False),
        ({"callbacks.x._target_": f"{LIGHTNINGS}.StochasticWeightAveraging"}, False),
        ({"callbacks.x._target_": "mnist_cnn.callbacks.certified.CertifiedTraining"}, False),
        ({"callbacks.x._target_": f"{LIGHTNINGS}.EarlyStopping"}, True),
        ({"callbacks.averaging": None, "callbacks.x.names": ["WeightAveraging"]}, True),
    ],
)
def test_a_run_may_become_longer_unless_something_is_laid_out_for_its_length(values, epochs):
    found = extendable({**NOW, **values})
    assert "test" in found
    assert ("trainer.max_epochs" in found) is epochs


def test_a_flat_configuration_has_whole_keys():
    config = {"a": {"b": 1, "c": {"d": [1, {"e": 2}]}}, "f": {}, "g": None}
    assert flat(config) == {"a.b": 1, "a.c.d": [1, {"e": 2}], "f": {}, "g": None}
    assert flat({}) == {}
