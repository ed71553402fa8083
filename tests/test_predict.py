"""The predict command: readings, unsure ones and errors."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from mnist_cnn import predict
from mnist_cnn.detection import trained
from mnist_cnn.detection.network import Detector
from mnist_cnn.reading import limits
from mnist_cnn.reading.answers import in_words
from mnist_cnn.reading.networks import Digits, load_network
from mnist_cnn.reading.reading import Reading
from mnist_cnn.weights import predictor
from mnist_cnn.weights.files import SHIPPED, write_weights
from tests.helpers.classifier import save_classifier
from tests.helpers.pictures import png
from tests.helpers.process import environment, finish, start


@pytest.fixture
def row(tmp_path):
    """Save a picture of 7 2 1 0, dark on light paper, four times as large as MNIST's digits."""
    path = tmp_path / "row.png"
    with Image.open(io.BytesIO(png(7, 2, 1, 0))) as ink:
        picture = ImageOps.invert(ink)
    picture.resize((4 * picture.width, 4 * picture.height)).save(path)
    return path


def run(capsys, *args: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        predict.main(list(args))
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_json_has_each_digit_with_its_box_and_probabilities(row, capsys):
    _, out, _ = run(capsys, str(row), "--json")
    answer = json.loads(out)
    assert (answer["picture"], answer["page"]) == (str(row), 1)
    assert [digit["digit"] for digit in answer["digits"]] == [7, 2, 1, 0]
    assert answer["rotation"] == 0
    (line,) = answer["lines"]
    assert line["text"] == "7210"
    assert 0.5 < line["confidence"] <= 1
    assert line["confidence"] == round(line["confidence"], 6)
    lefts = [digit["box"][0] for digit in answer["digits"]]
    assert lefts == sorted(lefts)
    for digit in answer["digits"]:
        assert (digit["is_digit"], digit["turned"], digit["row"]) == (True, 0, 0)
        assert max(digit["probabilities"]) == digit["confidence"] > 0.6
        assert digit["best"] == digit["digit"]


def test_what_cannot_be_read_fails_alone(row, tmp_path, capsys):
    (tmp_path / "broken\x1b[31m.jpg").write_bytes(b"no picture")
    names = ("broken\x1b[31m.jpg", "missing.png", "", "row.png")
    code, out, err = run(capsys, *(str(tmp_path / name) for name in names))
    assert code == 1
    assert out.startswith(f"{row}: 7210 (")
    lines = err.splitlines()
    for line, name in zip(lines, ("broken?[31m.jpg", "missing.png", ""), strict=True):
        assert line.startswith("error: ")
        assert str(tmp_path / name) in line


def test_standard_input_and_pages_are_read(row, tmp_path, capsys, monkeypatch):
    pages = tmp_path / "pages.pdf"
    with Image.open(row) as picture:
        picture.save(pages, save_all=True, append_images=[picture])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(row.read_bytes())))
    # ckpt_path may come anywhere among the pictures
    code, out, _ = run(capsys, str(pages), f"ckpt_path={SHIPPED}", "-")
    assert code == 0
    read = [line.partition(" (")[0] for line in out.splitlines()]
    assert read == [f"{pages}: 7210", f"{pages} page 2: 7210", "-: 7210"]


def test_pytorch_is_imported_once_and_lightning_not_at_all(row, tmp_path):
    # of the command and of its processes
    command = start(tmp_path, "mnist_cnn.predict", str(row), PYTHONPROFILEIMPORTTIME="1")
    _, out, err = finish(command)
    assert out.startswith(f"{row}: 7210 (")
    imported = [line.rpartition("|")[2].strip() for line in err.splitlines()]
    assert imported.count("torch") == 1
    assert "lightning" not in imported


def test_a_file_stays_open_for_its_next_pages(row, tmp_path):
    with Image.open(row) as picture:
        picture.save(tmp_path / "pages.tif", save_all=True, append_images=[picture])
    read = predict.PageReader(Digits(), show=False)
    name = str(tmp_path / "pages.tif")
    assert read(name, name, 0) == ({}, "", 2)
    assert read(name, name, 1)[2] == 2
    (tmp_path / "pages.tif").rename(tmp_path / "away.tif")
    assert read(name, name, 2)[1].startswith("7210")
    assert read.pages is not None
    read.pages.close()


@pytest.mark.parametrize("costly", [0, 1, 2])
def test_a_page_that_costs_too_much_does_not_hide_the_others(row, costly):
    def read(name: str, path: str, number: int) -> predict.PageAnswer:
        if number == costly:
            raise limits.LimitError("reading it takes over 1 s")
        return {"page": number}, "words", 3

    answers = [answer for answer, _ in predict.pages(read, str(row))]
    assert [answer["page"] for answer in answers] == ([1, 2, 3] if costly else [1])
    why = [answer["error"] for answer in answers if "error" in answer]
    assert why == [f"{row}: reading it takes over 1 s: see --max-seconds and --max-memory"]


def second_page_fails() -> Callable[[str, str, int], predict.PageAnswer]:
    def read(name: str, path: str, number: int) -> predict.PageAnswer:
        if number == 2:
            raise IndexError("a fault of the program")
        return {"page": number}, "words", 3

    return read


def test_a_page_at_which_the_program_fails_does_not_hide_the_others(row):
    worker = limits.Worker(second_page_fails, 20, 1000)
    answers = [answer for answer, _ in predict.pages(worker, str(row))]
    assert [answer["page"] for answer in answers] == [1, 2, 3]
    why = [answer["error"] for answer in answers if "error" in answer]
    assert why == [f"{row}: the work failed in its process"]


def test_a_drawing_that_cannot_be_encoded_leaves_the_old_one_and_other_files(tmp_path):
    name, other = str(tmp_path / "a.png"), tmp_path / "a.png.read.new"
    other.write_text("somebody's")
    shown = Path(predict.write_shown(Image.new("RGB", (9, 9)), name, 1))
    before = shown.read_bytes()
    with pytest.raises(OSError, match=r"^cannot write mode"):
        predict.write_shown(Image.new("HSV", (9, 9)), name, 1)
    assert shown.read_bytes() == before
    assert other.read_text() == "somebody's"


class OddError(ValueError):
    """An error that cannot be unpickled: its class takes two arguments."""

    def __init__(self, one: str, other: str):
        super().__init__(f"{one} {other}")


def raises_an_odd_error() -> Callable[[], None]:
    def read() -> None:
        raise OddError("it is", "odd")

    return read


def test_an_error_of_any_class_is_told():
    with pytest.raises(ValueError, match=r"^it is odd$"):
        limits.Worker(raises_an_odd_error, 20, 1000)()


def fails_with() -> Callable[[str], None]:
    def read(message: str) -> None:
        raise RuntimeError(message)

    return read


# of oneDNN, and of C++
@pytest.mark.parametrize("message", ["could not create a primitive", "std::bad_alloc"])
def test_too_little_memory_is_told_whichever_library_lacks_it(message):
    with pytest.raises(limits.LimitError, match="over 1000 MB of memory"):
        limits.Worker(fails_with, 20, 1000)(message)


def crashes() -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), signal.SIGSEGV)


def fails_to_load() -> Callable[[], None]:
    raise ValueError("no network")


def test_a_crash_is_not_called_a_limit() -> None:
    with pytest.raises(
        RuntimeError, match=r"^the work failed in its process, which ended with -11"
    ):
        limits.Worker(crashes, 20, 1000)()


def test_a_network_that_cannot_be_loaded_is_told_at_each_call() -> None:
    worker = limits.Worker(fails_to_load, 20, 1000)
    for _ in range(4):
        with pytest.raises(ValueError, match=r"^no network$"):
            worker()


def test_a_closed_standard_input_is_told(tmp_path: Path) -> None:
    closed = ("sh", "-c", 'exec "$@" <&-', "sh")
    code, _, err = finish(start(tmp_path, "mnist_cnn.predict", "-", within=closed))
    assert (code, err) == (1, "error: -: standard input is closed\n")


def test_pages_are_read_within_a_limit_of_the_user_s_own(row, tmp_path):
    limited = ("sh", "-c", 'ulimit -d 4000000 && exec "$@"', "sh")  # in kilobytes
    command = start(tmp_path, "mnist_cnn.predict", str(row), "--max-memory", "9000", within=limited)
    assert finish(command)[1].startswith(f"{row}: 7210 (")


def test_options_may_stand_among_the_pictures(row, capsys):
    code, out, _ = run(capsys, str(row), "--json", str(row))
    assert code == 0
    assert [json.loads(line)["picture"] for line in out.splitlines()] == [str(row)] * 2


def test_a_rotation_is_said_once_and_the_digits_are_kept(row, tmp_path, capsys):
    with Image.open(row) as picture:
        picture.rotate(90, expand=True).save(tmp_path / "lying.png")
    _, out, _ = run(capsys, str(tmp_path / "lying.png"), "--json")
    answer = json.loads(out)
    assert (answer["rotation"], answer["lines"][0]["text"]) == (90, "7210")
    assert {digit["turned"] for digit in answer["digits"]} == {0}
    _, out, _ = run(capsys, str(tmp_path / "lying.png"))
    assert out.startswith(f"{tmp_path / 'lying.png'}: 7210 (")
    assert out.count("clockwise") == 1


def test_a_reader_of_one_s_own_reads_and_a_network_classifies_what_is_found(row, tmp_path, capsys):
    torch.manual_seed(0)
    about = {"_target_": "mnist_cnn.detection.network.Detector", "width": 8, "deep_width": 8}
    blind = Detector(width=8, deep_width=8)
    write_weights(blind, {"model": about}, tmp_path / "weights.safetensors")
    for path in (tmp_path, tmp_path / "weights.safetensors"):
        assert run(capsys, str(row), f"ckpt_path={path}")[1] == f"{row}: no digit found\n"
    assert run(capsys, str(row), f"ckpt_path={trained.SHIPPED}")[1].startswith(f"{row}: 7210 (")
    network = load_network(SHIPPED)
    assert isinstance(network, Digits)
    assert network.reader is trained.shipped()
    net = network.classifier
    read = predict.PageReader(Digits(lambda x: net(x).roll(1, 1), network.reader), show=False)
    answer, _, _ = read(str(row), str(row), 1)
    assert answer["lines"][0]["text"] == "8321"
    assert read.pages is not None
    read.pages.close()


class OwnDetector(Detector):
    pass


def test_a_reader_of_a_class_of_one_s_own_reads(row, tmp_path, capsys):
    own = OwnDetector(width=8, deep_width=8)
    model = {"_target_": f"{__name__}.OwnDetector", "width": 8, "deep_width": 8}
    write_weights(own, {"model": model}, tmp_path / "weights.safetensors")
    (tmp_path / "checkpoints").mkdir()  # as of a run
    weights = {f"net.{key}": weight for key, weight in own.state_dict().items()}
    content = {"state_dict": weights, "hyper_parameters": {"model": model}}
    torch.save(content, tmp_path / "checkpoints" / "best.ckpt")
    arguments = str(row), f"ckpt_path={tmp_path}", f"targets=[{__name__}.*]"
    assert run(capsys, *arguments)[1] == f"{row}: no digit found\n"


def test_a_network_of_other_classes_names_the_likeliest_five(row, tmp_path, capsys):
    path = save_classifier(tmp_path, 3, 24, 32)
    expected = predictor.load(path).classify(row)
    code, out, err = run(capsys, str(row), "missing.png", f"ckpt_path={path}")
    assert code == 1
    assert out == f"{row}: {', '.join(f'{name} {p:.1%}' for name, p in expected)}\n"
    assert "missing.png" in err
    _, out, _ = run(capsys, "--json", str(row), f"ckpt_path={path}")
    classes = [{"name": name, "probability": pytest.approx(p, abs=1e-6)} for name, p in expected]
    assert json.loads(out) == {"picture": str(row), "page": 1, "classes": classes}
    assert len(classes) == 5
    code, _, err = run(capsys, "--show", str(row), f"ckpt_path={path}")
    assert (code, err.count("\n")) == (1, 1)
    assert "--show" in err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["x.png", "seed=3"], "seed=3: the only keys of this command are ckpt_path and targets"),
        (["x.png", "--max-seconds", "abc"], "--max-seconds: must be a number .*, got abc"),
        (["x.png", "--max-memory=nan"], "--max-memory: must be a number .*, got nan"),
    ],
)
def test_a_wrong_argument_is_named(arguments, line, capsys):
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert re.search(line, err.splitlines()[-1])


def test_doubt_is_said():
    none = np.full(10, 0.1, np.float32)
    unread = Reading(None, 0.1, none, (0, 0, 9, 9), np.zeros((28, 28), np.uint8), 0)
    sure = replace(unread, digit=3, confidence=0.98)
    unsure = replace(unread, row=1, confidence=0.51, probabilities=np.eye(10)[8] / 2)
    other = replace(unread, row=2, is_digit=False)
    assert in_words([sure, unsure, other]) == "3 / ? / · (98%, 8? 51%, no digit)"
    lone = replace(unread, rotation=90, confidence=0.97, probabilities=np.eye(10)[4])
    assert in_words([lone]) == "? (4? 97%, turned by 90° clockwise)"
    assert in_words([]) == "no digit found"


def test_show_replaces_its_own_picture_and_no_other(row, tmp_path, capsys):
    mine = tmp_path / "row.png.read.png"
    Image.new("L", (30, 30)).save(mine)
    before = mine.read_bytes()
    code, _, err = run(capsys, str(row), "--show")
    assert (code, mine.read_bytes()) == (1, before)
    assert err == f"error: {mine} exists and is not of this command: move or rename it\n"
    mine.unlink()
    mine.symlink_to(tmp_path / "elsewhere.png")
    assert run(capsys, str(row), "--show")[0] == 1
    assert not (tmp_path / "elsewhere.png").exists()
    mine.unlink()
    for _ in range(2):
        assert run(capsys, str(row), "--show")[0] == 0
    with Image.open(mine) as shown:
        assert shown.width == 1000


def test_a_closed_pipe_ends_it_quietly(row):
    command = [sys.executable, "-m", "mnist_cnn.predict", "--json", *[str(row)] * 3]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
