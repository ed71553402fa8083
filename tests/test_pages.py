"""Reading of forms, tables, signs and text around digits."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from mnist_cnn.data.drawn.pages import KINDS, Pen, common, page
from mnist_cnn.data.fonts import load_font
from mnist_cnn.reading.answers import written
from mnist_cnn.reading.ink import is_light_on_dark
from mnist_cnn.reading.reader import read_digits


def test_a_grid_is_read_by_row_and_column_and_its_empty_cells_are_told() -> None:
    alike = []
    for seed in range(3):
        picture, text = page("sudoku", seed)
        readings = [r for r in read_digits(picture) if r.is_digit or r.sign == " "]
        cells = {(reading.row, reading.column): reading.symbol for reading in readings}
        for n, row in enumerate(text.split("\n")):
            alike += [cells.get((n, k)) == sign for k, sign in enumerate(row)]
    assert len(alike) == 3 * 81
    assert np.mean(alike) >= 0.93


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"sudoku", "crossed out"}))
def test_forms_and_signs_come_out_as_written(kind: str) -> None:
    pages = [page(kind, seed) for seed in range(8)]
    signs = [common(written(read_digits(picture)), text) for picture, text in pages]
    assert sum(signs) >= 0.85 * sum(len(text) for _, text in pages)


def test_a_crossed_out_digit_seldom_corrupts_its_row_in_silence() -> None:
    silent = told = 0
    for seed in range(12):
        picture, text = page("crossed out", seed)
        symbols = "".join(reading.symbol for reading in read_digits(picture) if reading.is_digit)
        silent += "?" not in symbols and symbols != text.replace("?", "")
        told += symbols == text
    assert silent <= 2
    assert told >= 4


def test_of_text_nothing_is_sure_although_some_letters_look_like_digits() -> None:
    sheet = Image.new("L", (1200, 400), 240)
    font = load_font("DejaVuSans", 60)
    text = "Reading what people\nwrite is another skill\nbesides counting"
    ImageDraw.Draw(sheet).multiline_text((40, 40), text, 30, font, spacing=30)
    readings = read_digits(sheet)
    assert len(readings) >= 6
    assert all(reading.digit is None for reading in readings)


def test_a_number_under_words_is_read_and_they_are_not() -> None:
    pen = Pen(np.random.default_rng(1), 300, 1000)
    pen.text("4027136", 100, 170, 80)
    sheet = Image.fromarray((240 - 200 * pen.ink).astype(np.uint8))
    font = load_font("DejaVuSans", 60)
    ImageDraw.Draw(sheet).text((40, 40), "Amount paid", 30, font)
    words, number = written(read_digits(sheet)).split("\n")
    assert set(words) <= set("?·")
    assert number == "4027136"


def test_a_long_strip_is_read() -> None:
    pen = Pen(np.random.default_rng(3), 150, 6000)
    digits = "0123456789" * 4
    for n, digit in enumerate(digits):
        pen.digit(digit, 60 + 145 * n, 45, 60)
    readings = read_digits(Image.fromarray((235 - 190 * pen.ink).astype(np.uint8)))
    assert len(readings) == 40
    sure = [reading.symbol for reading in readings]
    assert sum(one == other for one, other in zip(sure, digits, strict=True)) >= 37


def test_squared_paper_is_no_table() -> None:
    read = 0
    for seed in range(5, 11):
        pen = Pen(np.random.default_rng(seed), 400, 900)
        pen.text("40271", 100, 120, 110)
        paper = np.asarray(pen.picture()).copy()
        for at in range(20, 900, 50):
            cv2.line(paper, (at, 0), (at, 400), 150, 2)
            cv2.line(paper, (0, at), (900, at), 150, 2)
        readings = read_digits(Image.fromarray(paper))
        sure = "".join(each.symbol for each in readings if each.digit is not None)
        assert common(sure, "40271") == len(sure)  # all are right
        assert {reading.column for reading in readings} == {None}
        read += len(sure)
    assert read >= 20  # of 30


def test_dark_writing_is_told_from_light_where_the_light_fades() -> None:
    pen = Pen(np.random.default_rng(1), 700, 1000)
    for n, text in enumerate(("4027136", "5813642", "3056174")):
        pen.text(text, 150, 100 + 200 * n, 60)
    y, x = np.mgrid[0:1:700j, 0:1:1000j]
    light = 110 + 140 * np.exp(-12 * ((x - 0.2) ** 2 + y**2))  # of a lamp
    sheet = (light * (1 - 0.45 * pen.ink)).astype(np.uint8)
    assert not is_light_on_dark(sheet)
    assert written(read_digits(Image.fromarray(sheet))) == "4027136\n5813642\n3056174"
