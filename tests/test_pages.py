"""Forms, tables, signs and text: what stands beside digits."""

import tracemalloc
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from benchmarks.pictures import common
from mnist_cnn.pretrained import Trained, load
from mnist_cnn.reading.frames import Cell, in_grids
from mnist_cnn.reading.ink import is_light_on_dark
from mnist_cnn.reading.reader import read_digits
from mnist_cnn.readings import written
from tests.helpers.pages import KINDS, Pen, page

FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@pytest.fixture(scope="module")
def shipped() -> Trained:
    return load()


@pytest.mark.parametrize("seed", [1, 54])  # in the other, digits touch the rules of nine cells
def test_a_grid_is_read_by_row_and_column_and_its_empty_cells_are_told(
    shipped: Trained, seed: int
) -> None:
    picture, text = page("sudoku", seed)
    readings = [r for r in read_digits(picture, shipped) if r.is_candidate or r.sign == " "]
    cells = {(reading.row, reading.column): reading.symbol for reading in readings}
    assert len(cells) == 81
    expected = {(n, k): s for n, row in enumerate(text.split("\n")) for k, s in enumerate(row)}
    assert {at for at, sign in cells.items() if sign == " "} == {
        at for at, sign in expected.items() if sign == " "
    }
    assert sum(cells[at] == sign for at, sign in expected.items()) >= 76
    assert max(reading.row for reading in readings) == 8


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "sudoku"])
def test_forms_and_signs_come_out_as_written(shipped: Trained, kind: str) -> None:
    pages = [page(kind, seed) for seed in range(8)]
    signs = [common(written(read_digits(picture, shipped)), text) for picture, text in pages]
    assert sum(signs) >= 0.85 * sum(len(text) for _, text in pages)


@pytest.mark.parametrize(
    ("kind", "seed"),
    [
        pytest.param("underlines", 31, id="two digits touch their underline"),
        pytest.param("underlines", 163, id="underlined digits enclose as much as a frame"),
        pytest.param("boxes", 113, id="digits touch upright strokes of a frame"),
        pytest.param("dates", 167, id="a low digit is no point"),
        pytest.param("phones", 118, id="a dash touches the digits beside it"),
        pytest.param("phones", 94, id="a plus touches a digit"),
        pytest.param("tables", 13, id="a flag stands apart from its 5"),
        pytest.param("tables", 39, id="a 4 that is open below looks like a plus"),
        pytest.param("tables", 87, id="a 0 is half as wide again as it is high"),
        pytest.param("tables", 95, id="a small 8 has lost its loops to the lens"),
        pytest.param("tables", 180, id="some cells hold several digits, most hold one"),
    ],
)
def test_lines_and_signs_are_told_from_digits(shipped: Trained, kind: str, seed: int) -> None:
    picture, text = page(kind, seed)
    assert written(read_digits(picture, shipped)) == text


def test_of_text_nothing_is_sure_although_some_letters_look_like_digits(shipped: Trained) -> None:
    sheet = Image.new("L", (1200, 400), 240)
    font = ImageFont.truetype(FONT, 60)
    text = "Reading what people\nwrite is another skill\nbesides counting"
    ImageDraw.Draw(sheet).multiline_text((40, 40), text, 30, font, spacing=30)
    readings = read_digits(sheet, shipped)
    assert len(readings) >= 6
    assert all(reading.digit is None for reading in readings)


def test_a_number_under_words_is_read_and_they_are_not(shipped: Trained) -> None:
    pen = Pen(np.random.default_rng(1), 300, 1000)
    pen.text("4027136", 100, 170, 80)
    sheet = Image.fromarray((240 - 200 * pen.ink).astype(np.uint8))
    font = ImageFont.truetype(FONT, 60)
    ImageDraw.Draw(sheet).text((40, 40), "Amount paid", 30, font)
    words, number = written(read_digits(sheet, shipped)).split("\n")
    assert set(words) <= set("?·")
    assert number == "4027136"


def test_a_leaning_stroke_is_a_sign_between_digits_and_a_one_at_an_end(shipped: Trained) -> None:
    for text, expected in (("25/36", "25/36"), ("/25", "125")):
        pen = Pen(np.random.default_rng(1), 240, 80 * (len(text) + 3))
        pen.text(text, 80, 80, 80)
        sheet = Image.fromarray((240 - 200 * pen.ink).astype(np.uint8))
        assert written(read_digits(sheet, shipped)).replace("?", "1") == expected


def test_a_long_strip_is_read(shipped: Trained) -> None:
    pen = Pen(np.random.default_rng(3), 150, 6000)
    digits = "0123456789" * 4
    for n, digit in enumerate(digits):
        pen.digit(digit, 60 + 145 * n, 45, 60)
    readings = read_digits(Image.fromarray((235 - 190 * pen.ink).astype(np.uint8)), shipped)
    assert len(readings) == 40
    sure = [reading.symbol for reading in readings]
    assert sum(one == other for one, other in zip(sure, digits, strict=True)) >= 37


def test_squared_paper_is_no_table(shipped: Trained) -> None:
    pen = Pen(np.random.default_rng(5), 400, 900)
    pen.text("40271", 100, 120, 110)
    paper = np.asarray(pen.picture()).copy()
    for at in range(20, 900, 50):
        cv2.line(paper, (at, 0), (at, 400), 150, 2)
        cv2.line(paper, (0, at), (900, at), 150, 2)
    readings = read_digits(Image.fromarray(paper), shipped)
    assert written(readings) == "40271"
    assert {reading.column for reading in readings} == {None}


def test_a_comma_below_a_high_digit_is_kept(shipped: Trained) -> None:
    picture, text = page("prices", 7)
    assert written(read_digits(picture, shipped)) == text == "09,25"


def test_dark_writing_is_told_from_light_where_the_light_fades(shipped: Trained) -> None:
    pen = Pen(np.random.default_rng(1), 700, 1000)
    for n, text in enumerate(("4027136", "5813642", "3056174")):
        pen.text(text, 150, 100 + 200 * n, 60)
    y, x = np.mgrid[0:1:700j, 0:1:1000j]
    light = 110 + 140 * np.exp(-12 * ((x - 0.2) ** 2 + y**2))  # of a lamp
    sheet = (light * (1 - 0.45 * pen.ink)).astype(np.uint8)
    assert not is_light_on_dark(sheet)
    assert written(read_digits(Image.fromarray(sheet), shipped)) == "4027136\n5813642\n3056174"


def test_a_fine_grid_is_completed_in_memory_that_grows_with_its_cells() -> None:
    corners = np.array([(0, 0), (8, 0), (8, 8), (0, 8)], float)
    places = [(column, row) for row in range(50) for column in range(50) if (row, column) != (7, 9)]
    cells = [Cell(corners + 10 * np.array(place), group=1) for place in places]
    tracemalloc.start()
    found = in_grids(cells)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 2500
    assert found[7 * 50 + 9].corners.tolist() == (corners + np.array((90, 70))).tolist()
    assert peak < 20e6  # bytes; one number for each pair of cells takes 50e6
