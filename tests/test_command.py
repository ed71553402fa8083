"""How commands exit after user errors, signals and closed pipes."""

import inspect
import json
import os
import re
import signal
import sys

import numpy as np
import pytest
from torch import Tensor, nn

import mnist_cnn
from mnist_cnn.command import command, help_of
from mnist_cnn.config.compose import compose, resolved
from mnist_cnn.config.parse import Config, parse
from mnist_cnn.runs.errors import one_line
from mnist_cnn.runs.folder import CONFIG, FAILED, LOCK, OVERRIDES, SWEEP
from mnist_cnn.train import main as train_command
from tests.helpers.process import environment, finish, run, start
from tests.helpers.training import TINY

# sends a signal while PyTorch is imported, which takes seconds: Ctrl-C to all processes of the
# command, as a terminal does, others to this one
SIGNAL = """
import os, sys, threading, time
def send():
    while "torch" not in sys.modules:
        time.sleep(0.01)
    number = int(os.environ["SIGNAL"])
    os.kill(0 if number == 2 else os.getpid(), number)
threading.Thread(target=send, daemon=True).start()
"""


@pytest.mark.parametrize(
    ("name", "number", "code"),
    [
        ("train", signal.SIGTERM, 143),
        ("predict x.png", signal.SIGINT, 130),
        pytest.param("demo --port 0", signal.SIGUSR1, 138, marks=pytest.mark.slow),
    ],
)
def test_a_signal_while_a_command_imports_ends_it_in_one_line(name, number, code, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(SIGNAL)
    path = f"{tmp_path}{os.pathsep}{environment()['PYTHONPATH']}"
    sent = str(int(number))
    process = start(tmp_path, *f"mnist_cnn.{name}".split(), PYTHONPATH=path, SIGNAL=sent)
    ended, out, err = finish(process)
    assert (ended, out) == (code, "")
    assert err.startswith(f"interrupted by {number.name}")
    assert err.count("\n") == 1


def test_a_signal_ends_a_command_whose_errors_nobody_reads(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(SIGNAL)
    path = f"{tmp_path}{os.pathsep}{environment()['PYTHONPATH']}"
    process = start(tmp_path, "mnist_cnn.train", PYTHONPATH=path, SIGNAL=str(int(signal.SIGTERM)))
    assert process.stderr is not None
    process.stderr.close()
    assert process.stdout is not None
    process.stdout.read()
    process.stdout.close()
    assert process.wait(60) == 143


@pytest.mark.slow
def test_a_reader_that_is_gone_ends_a_command_without_a_traceback(tmp_path):
    process = start(tmp_path, "mnist_cnn.train", *TINY, "hydra.run.dir=run")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    assert process.wait(60) == 141
    process.stderr.close()
    assert "Traceback" not in err
    assert "error" not in err.lower()


HERE = f"({__file__}, line {{}}; traceback: HYDRA_FULL_ERROR=1)"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("no\n  number"), f"error: no number {HERE}"),
        (FileNotFoundError(2, "missing", "x.png"), f"error: [Errno 2] missing: 'x.png' {HERE}"),
        (KeyboardInterrupt(), 130),
    ],
)
def test_what_stops_a_command_is_one_line_or_an_exit_code(error, code):
    @command
    def main(argv):
        raise error

    line = inspect.currentframe().f_lineno - 2  # type: ignore[union-attr]
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == (code.format(line) if isinstance(code, str) else code)


def test_a_mistake_that_the_project_or_a_library_finds_has_no_place():
    for override in ("data.fold=9", "seed='"):
        with pytest.raises(Exception, match=r".") as found:
            parse(resolved(compose([override], run_dir="unused")), Config)
        assert one_line(found.value).endswith(str(found.value).split()[-1])


def test_the_source_of_compiled_code_is_no_place():
    with pytest.raises(ValueError, match="non-negative") as found:
        np.random.SeedSequence([-1])
    assert f"({__file__}, line " in one_line(found.value)


def test_a_bug_of_the_project_keeps_its_traceback():
    @command
    def main(argv):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        main([])


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(784, 10)

    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("broken here")


def test_a_mistake_in_a_user_s_code_is_one_line_with_its_place(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train"])
    broken = f"+model={{_target_:{__name__}.Broken}}"
    options = ["logger=none", "trainer.accelerator=cpu", "targets=[tests.*]", "~model", broken]
    with pytest.raises(SystemExit) as end:
        train_command([*options, f"hydra.run.dir={tmp_path}/run"])
    assert end.value.code == 1
    line = Broken.forward.__code__.co_firstlineno + 1
    place = f"({__file__}, line {line}; traceback in {tmp_path / 'run' / FAILED})"
    step = "error: the network or the loss fails on 2 image(s): broken here"
    assert capsys.readouterr().err == f"{step} {place}\n"
    assert "in forward" in json.loads((tmp_path / "run" / FAILED).read_text())["traceback"]


@pytest.mark.parametrize(
    ("override", "named"),
    [
        *((f"{group}=null", f"{group} must be ") for group in ("model", "data", "callbacks")),
        ("trainer.foo=1", "trainer.foo"),
        ("optimzer.lr=1", "optimzer.lr"),
        ("model=nope", "model/nope"),
        ("seed='", "seed='"),
        ("-m --cfg hydra", "-m --cfg hydra: Only one of --run"),
        ("hydra.run.dir=/dev/null/x", "hydra.run.dir=/dev/null/x: "),
    ],
)
def test_what_hydra_refuses_is_one_line(override, named, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["train"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        train_command(override.split())
    assert end.value.code == 1
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("error: ")
    assert named in err
    assert not list(tmp_path.iterdir())


BAD = "a: 1\nb: [2\n"


@pytest.mark.parametrize("name", ["model/bad.yaml", f"run/{OVERRIDES}", f"run/{SWEEP}"])
def test_a_file_that_is_no_yaml_is_named_with_the_line(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train"])
    for file in {f"run/{CONFIG}", name}:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(BAD if file == name else "")
    (tmp_path / "run" / LOCK).touch()
    chosen = "model=bad" if "model" in name else f"ckpt_path={tmp_path / 'run'}"
    with pytest.raises(SystemExit) as end:
        train_command(["--config-dir", str(tmp_path), chosen])
    line = capsys.readouterr().err + str(end.value.code)
    assert re.match(rf'error: .*in "{tmp_path / name}", line 2, column 4 ', line)


def test_a_deleted_working_directory_is_named(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SystemExit, match="working directory"):
        train_command([])


def test_each_command_tells_its_own_version_and_those_of_what_it_stands_on(capsys):
    train_command(["--version"])
    assert capsys.readouterr().out.startswith(f"mnist_cnn {mnist_cnn.__version__}, PyTorch ")


@pytest.mark.parametrize("name", ["train", "evaluate", "predict", "export", "report", "demo"])
def test_help_imports_no_torch(name, tmp_path):
    done = run(tmp_path, f"mnist_cnn.{name}", "--help", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0, done.stderr
    assert f"mnist_cnn.{name}" in done.stdout
    assert not re.search(r"\| +torch$", done.stderr, re.MULTILINE)


def test_help_lists_the_files_of_groups_those_of_a_folder_of_the_users_too(tmp_path):
    (tmp_path / "my" / "model").mkdir(parents=True)
    (tmp_path / "my" / "model" / "mine.yaml").touch()
    lines = help_of("train", ["--help", "--config-dir", str(tmp_path / "my")]).splitlines()
    models = "clipped_cnn, clipped_cnn_small, cnn, detector, fast_cnn, mine, vgg, vgg_tiny"
    assert f"model: {models}" in lines
    assert "optimizer: adam, adamw, muon, sgd, sgd_fast" in lines
