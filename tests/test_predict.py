"""The command that reads pictures: answers, doubts and refusals."""

import io
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageOps
from safetensors import safe_open
from safetensors.torch import save_file

from mnist_cnn import predict, pretrained
from mnist_cnn.data.mnist import CLASSES
from mnist_cnn.reading.reader import Reading
from tests.helpers.photographs import png
from tests.helpers.process import environment


@pytest.fixture
def row(tmp_path):
    """A picture with 7 2 1 0 written in dark ink on light paper, four times as large as MNIST's."""
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


def test_a_row_of_digits_is_read_by_the_shipped_network(row, capsys):
    code, out, _ = run(capsys, str(row))
    assert code == 0
    assert out.startswith(f"{row}: 7210 (")


def test_json_has_each_digit_with_its_box_and_probabilities(row, capsys):
    _, out, _ = run(capsys, str(row), "--json")
    answer = json.loads(out)
    assert (answer["picture"], answer["page"]) == (str(row), None)
    assert [digit["digit"] for digit in answer["digits"]] == [7, 2, 1, 0]
    lefts = [digit["box"][0] for digit in answer["digits"]]
    assert lefts == sorted(lefts)
    for digit in answer["digits"]:
        assert (digit["is_digit"], digit["turned"], digit["row"]) == (True, 0, 0)
        assert sum(digit["probabilities"]) == pytest.approx(1, abs=1e-3)
        assert max(digit["probabilities"]) == digit["confidence"] > 0.6
        assert digit["best"] == digit["digit"]


def test_an_empty_sheet_has_no_digit(tmp_path, capsys):
    Image.new("L", (300, 200), 240).save(tmp_path / "empty.png")
    code, out, _ = run(capsys, str(tmp_path / "empty.png"))
    assert code == 0
    assert out.endswith("no digit found\n")


def test_a_file_that_cannot_be_read_fails_alone(row, tmp_path, capsys):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    code, out, err = run(capsys, str(tmp_path / "broken.jpg"), "missing.png", str(row))
    assert code == 1
    assert "7210" in out
    lines = err.splitlines()
    assert len(lines) == 2
    assert "broken.jpg" in lines[0]
    assert "missing.png" in lines[1]


def test_doubt_is_said():
    none = np.full(10, 0.1, np.float32)
    unread = Reading(None, 0.1, none, (0, 0, 9, 9), np.zeros((28, 28), np.uint8), 0)
    sure = replace(unread, digit=3, confidence=0.98)
    unsure = replace(unread, row=1, confidence=0.51, probabilities=np.eye(10)[8] / 2)
    rotated = replace(unread, row=2, rotation=90, confidence=0.97, probabilities=np.eye(10)[4])
    punctuation = replace(unread, row=2, is_candidate=False)
    assert predict.in_words([sure, unsure, rotated, punctuation]) == (
        "3 (98%) / ? (unsure: 8? 51%) / ?· (unsure: 4 if it is turned by 90° clockwise?, no digit)"
    )
    assert predict.in_words([]) == "no digit found"


def test_a_foreign_checkpoint_is_named(row, tmp_path):
    (tmp_path / "x.ckpt").write_bytes(b"foreign")
    for given in ([f"ckpt_path={tmp_path}/x.ckpt"], ["--checkpoint", str(tmp_path / "x.ckpt")]):
        with pytest.raises(SystemExit, match=r"error: .*x.ckpt: not a checkpoint or weights"):
            predict.main([str(row), *given])


def test_the_network_may_be_named_anywhere_among_the_pictures(row, capsys):
    code, out, _ = run(capsys, str(row), f"ckpt_path={pretrained.SHIPPED}", str(row))
    assert code == 0
    assert out.count(": 7210 (") == 2
    with pytest.raises(SystemExit):
        predict.main([str(row), "ckpt_path="])
    assert "ckpt_path must be a run's folder" in capsys.readouterr().err


def test_a_network_that_was_trained_on_clothes_reads_no_digits(row, tmp_path):
    with safe_open(pretrained.SHIPPED, "pt") as file:
        about = json.loads(file.metadata()["about"])
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    about["data"] |= {"name": "fashion_mnist", "classes": list(CLASSES["fashion_mnist"])}
    metadata = {"about": json.dumps(about)}
    save_file(weights, tmp_path / "clothes", metadata)
    with pytest.raises(SystemExit, match="must be a network trained on digits, got one of fashion"):
        predict.main([str(row), f"ckpt_path={tmp_path}/clothes"])


def test_show_replaces_its_own_picture_and_no_other(row, tmp_path, capsys):
    mine = tmp_path / "row.png.read.png"
    Image.new("L", (30, 30)).save(mine)
    before = mine.read_bytes()
    code, _, err = run(capsys, str(row), "--show")
    assert (code, mine.read_bytes()) == (1, before)
    assert err == f"error: {mine} exists and is not of --show: move or rename it\n"
    mine.unlink()
    for _ in range(2):
        assert run(capsys, str(row), "--show")[0] == 0
    with Image.open(mine) as shown:
        assert shown.width == 1000


def test_a_folder_standard_input_and_pages_are_read(row, tmp_path, capsys, monkeypatch):
    with Image.open(row) as picture:
        picture.save(tmp_path / "pages.pdf", save_all=True, append_images=[picture])
    (tmp_path / "notes.txt").write_text("no picture")
    code, out, _ = run(capsys, str(tmp_path))
    assert code == 0
    assert [line.partition(" (")[0] for line in out.splitlines()] == [
        f"{tmp_path}/pages.pdf page 1: 7210",
        f"{tmp_path}/pages.pdf page 2: 7210",
        f"{row}: 7210",
    ]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(row.read_bytes())))
    assert run(capsys, "-")[1].startswith("-: 7210 (")


def test_an_empty_folder_and_a_damaged_page_do_not_stop_the_others(row, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    with Image.open(row) as picture:
        picture.save(tmp_path / "pages.pdf", save_all=True, append_images=[picture] * 2)
    whole = (tmp_path / "pages.pdf").read_bytes()
    second = whole.split(b"/Type /Page\n")[2]
    damaged = whole.replace(b"/Type /Page\n" + second, b"/Type /Pxge\n" + second)
    (tmp_path / "pages.pdf").write_bytes(damaged)
    code, out, _ = run(capsys, "--json", str(tmp_path / "empty"), str(tmp_path / "pages.pdf"))
    answers = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert [answer["page"] for answer in answers] == [None, 1, 2, 3]
    assert ["error" in answer for answer in answers] == [True, False, True, False]
    assert "no picture in this folder" in answers[0]["error"]


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


def test_a_name_cannot_make_the_terminal_do_anything(row, tmp_path, capsys):
    hostile = tmp_path / "a\x1b[31m\x07.png"
    hostile.write_bytes(row.read_bytes())
    _, out, err = run(capsys, str(hostile), str(tmp_path / "none\x1b[2J.png"))
    assert "a?[31m?.png: 7210" in out
    assert "\x1b" not in out + err
