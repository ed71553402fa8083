"""How commands end: by a mistake, by a signal, by a reader that is gone."""

import os
import signal

import pytest

from mnist_cnn.command import command
from tests.helpers.process import environment, finish, start
from tests.helpers.training import TINY

# stands for PyTorch, whose import takes seconds; one as a library that hides a Ctrl-C, one that is
# in the callback of a weak reference, where Python ignores errors
SLEEP = 'print("importing", flush=True); time.sleep(60)'
SLOW = f"import time\ntry: {SLEEP}\n"
CALLBACK = f"""
import time, weakref
def callback(reference): {SLEEP}
ref = weakref.ref(weakref.WeakSet(), callback)
time.sleep(60)
"""
IMPORTS = {"plain": SLOW + "finally: pass", "hiding": SLOW + "except BaseException: 1 / 0"}
IMPORTS["ignoring"] = CALLBACK


@pytest.mark.parametrize(
    ("name", "torch", "number", "code"),
    [
        ("train", "plain", signal.SIGTERM, 143),
        ("predict x.png", "hiding", signal.SIGINT, 130),
        ("predict x.png", "ignoring", signal.SIGTERM, 143),
        pytest.param("demo --port 0", "plain", signal.SIGUSR1, 138, marks=pytest.mark.slow),
    ],
)
def test_a_signal_while_a_command_imports_ends_it_in_one_line(name, torch, number, code, tmp_path):
    (tmp_path / "torch.py").write_text(IMPORTS[torch])
    path = f"{tmp_path}{os.pathsep}{environment()['PYTHONPATH']}"
    process = start(tmp_path, *f"mnist_cnn.{name}".split(), PYTHONPATH=path)
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(number)
    ended, out, err = finish(process)
    assert (ended, out) == (code, "")
    assert err.startswith(f"interrupted by {number.name}")
    assert err.count("\n") == 1


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
