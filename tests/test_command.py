"""How the commands end: by a mistake, by Ctrl-C, by a reader that is gone."""

import importlib
import importlib.metadata
import os
import signal
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
import torch

from mnist_cnn.command import command
from tests.helpers.process import environment
from tests.helpers.training import SHORT

# stands for PyTorch, whose import takes a second
SLOW = 'import time\nprint("importing", flush=True)\ntime.sleep(60)\n'


def start(folder: Path, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *args],
        cwd=folder,
        env={**environment(), "PYTHONPATH": f"{folder}{os.pathsep}{Path(__file__).parents[1]}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["predict x.png", "export", "evaluate", "demo --port 0"],
)
def test_ctrl_c_while_a_command_imports_ends_it_silently(name, tmp_path):
    (tmp_path / "torch.py").write_text(SLOW)
    process = start(tmp_path, *f"mnist_cnn.{name}".split())
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (out, err) == ("", "")
    assert process.returncode in (130, -signal.SIGINT)  # a shell calls both 130


@pytest.mark.parametrize("name", ["mnist_cnn.predict missing.png --json", "benchmarks.records"])
def test_a_reader_that_is_gone_ends_a_command_silently(name, tmp_path):
    process = start(tmp_path, *name.split())
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(60) == 141
    process.stderr.close()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("no\n  number"), "error: no number"),
        (FileNotFoundError(2, "missing", "x.png"), "error: [Errno 2] missing: 'x.png'"),
        (KeyboardInterrupt(), 130),
    ],
)
def test_what_stops_a_command_is_one_line_or_an_exit_code(error, code):
    @command
    def main(argv):
        raise error

    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == code


def test_a_fault_of_the_project_keeps_its_traceback():
    @command
    def main(argv):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        main()


def test_a_library_that_turns_ctrl_c_into_an_error_of_its_own_ends_silently_too(tmp_path):
    (tmp_path / "torch.py").write_text(
        SLOW.replace("time.sleep(60)", "try: time.sleep(60)\nexcept KeyboardInterrupt: 1 / 0")
    )
    process = start(tmp_path, "mnist_cnn.predict", "x.png")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 130


@pytest.mark.slow
def test_a_training_whose_output_nobody_reads_says_how_to_resume(tmp_path):
    short = [*SHORT, "trainer.limit_train_batches=2", "logger=none", "hydra.run.dir=run"]
    process = start(tmp_path, "mnist_cnn.train", *short)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    last = process.stderr.read().splitlines()[-1]
    assert last == f"output closed; resume it with ckpt_path={tmp_path}/run"
    assert process.wait(60) == 141
    process.stderr.close()


@pytest.mark.parametrize("name", ["train", "evaluate", "predict", "export", "report", "demo"])
def test_each_command_prints_the_versions_in_one_line(name, capsys):
    importlib.import_module(f"mnist_cnn.{name}").main(["--version"])
    out = capsys.readouterr().out
    assert out.startswith(f"mnist-cnn {importlib.metadata.version('mnist-cnn')}, python 3.")
    assert f", torch {torch.__version__.partition('+')[0]}" in out
    assert f", lightning {L.__version__}, " in out
    assert out.count("\n") == 1
