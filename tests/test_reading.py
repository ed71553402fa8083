"""Digits that are read, and the doubt about those that are not."""

from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from benchmarks.pictures import common
from mnist_cnn.plots.readings import draw_readings
from mnist_cnn.pretrained import Trained, load
from mnist_cnn.reading.reader import read_digits
from mnist_cnn.readings import written
from tests.helpers.photographs import bundled, find_digits, page

Array = NDArray[np.uint8]
DEJAVU = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@pytest.fixture(scope="module")
def mnist() -> Array:
    return bundled("t10k-images-idx3-ubyte", 16).reshape(-1, 28, 28)[:10]


def heaviness(x: Tensor) -> Tensor:
    """Stands for a network: sure of a 1 in light digits, torn between 4 and 9 in heavy ones."""
    assert x.dtype == torch.uint8
    assert x.shape[1:] == (28, 28)
    heavy = x.float().mean((1, 2)) > 22
    probabilities = torch.zeros(len(x), 10)
    probabilities[~heavy, 1] = 1
    probabilities[heavy, 4], probabilities[heavy, 9] = 0.45, 0.55
    return probabilities


def test_what_the_network_is_unsure_of_has_no_digit(mnist: Array) -> None:
    picture = Image.fromarray(page([mnist[2], mnist[3]], [mnist[5]]))
    readings = read_digits(picture, heaviness)
    assert [reading.digit for reading in readings] == [1, None, 1]
    assert [reading.best for reading in readings] == [1, 9, 1]
    assert readings[1].confidence == pytest.approx(0.55)
    assert readings[1].probabilities.shape == (10,)
    assert written(readings) == "1?\n1"


def test_the_network_is_asked_about_images_as_soft_as_those_of_training(mnist: Array) -> None:
    asked: list[Tensor] = []

    def network(x: Tensor) -> Tensor:
        asked.append(x)
        return heaviness(x)

    (reading,) = read_digits(Image.fromarray(page([mnist[2]])), network)
    assert (asked[0][0].numpy() == cv2.GaussianBlur(reading.image, (3, 3), 0)).all()


def test_a_path_or_a_files_content_is_read_as_the_picture_is(mnist: Array, tmp_path: Path) -> None:
    picture = Image.fromarray(page([mnist[2], mnist[3]]))
    picture.save(tmp_path / "picture.png")
    for source in (tmp_path / "picture.png", (tmp_path / "picture.png").read_bytes()):
        assert written(read_digits(source, heaviness)) == "1?"
        assert written(read_digits(source, heaviness, threshold=0.5)) == "19"
    assert read_digits(Image.new("L", (300, 200), 255), heaviness) == []


def narrow(x: Tensor) -> Tensor:
    """Sure of a 1 in what is narrow, of nothing in what is wide."""
    wide = (x > 64).any(1).sum(1) > 14
    probabilities = torch.full((len(x), 10), 0.1)
    probabilities[~wide] = torch.eye(10)[1]
    return probabilities


@pytest.mark.parametrize(("rungs", "count"), [((70, 130), 2), ((60, 90, 120, 145), 1)])
def test_a_wide_shape_is_cut_only_where_little_joins_two_sure_digits(
    rungs: tuple[int, ...], count: int
) -> None:
    paper = np.full((200, 240), 240, np.uint8)
    for x in (52, 148, 205):
        cv2.line(paper, (x, 50), (x, 150), 30, 8)
    for y in rungs:
        cv2.line(paper, (52, y), (148, y), 30, 8)
    readings = read_digits(Image.fromarray(paper), narrow)
    assert [reading.digit for reading in readings] == ([1, 1, 1] if count == 2 else [None, 1])


@pytest.fixture(scope="module")
def shipped() -> Trained:
    return load()


def picked(digits: str) -> list[Array]:
    """An image of each of the digits; a blank for a space."""
    images = bundled("t10k-images-idx3-ubyte", 16).reshape(-1, 28, 28)
    labels = bundled("t10k-labels-idx1-ubyte", 8)
    blank = np.zeros((28, 28), np.uint8)
    return [blank if d == " " else images[labels == int(d)][2] for d in digits]


def test_neighbours_that_touch_are_cut_apart(shipped: Trained) -> None:
    ink = np.hstack([digit[:, 4:25] for digit in picked("3050")])
    ink = np.pad(ink, 10).repeat(5, 0).repeat(5, 1)
    for x in (155, 260, 365):  # from each to the next
        cv2.line(ink, (x - 30, 130), (x + 30, 130), 255, 4)
    picture = Image.fromarray(255 - cv2.GaussianBlur(ink, (0, 0), 2))
    assert len(find_digits(picture)) == 1
    assert written(read_digits(picture, shipped)) == "3050"


def test_signs_are_written_and_are_no_digits(shipped: Trained) -> None:
    paper = page(picked("3 14"), picked(" 42"))
    cv2.circle(paper, (208, 128), 6, 50, -1)
    cv2.line(paper, (80, 208), (130, 206), 50, 8)
    readings = read_digits(Image.fromarray(paper), shipped)
    assert written(readings) == "3.14\n-42"
    assert [n for n, reading in enumerate(readings) if not reading.is_digit] == [1, 4]


def test_a_filled_mark_between_digits_is_not_left_out_silently(shipped: Trained) -> None:
    paper = page(picked("3 14"))
    cv2.rectangle(paper, (186, 80), (234, 120), 50, -1)  # = with a wide pen
    assert written(read_digits(Image.fromarray(paper), shipped)) == "3·14"


@pytest.mark.parametrize("degrees", [45, 90, 180, 270])
def test_a_row_is_read_whichever_way_it_is_turned(shipped: Trained, degrees: int) -> None:
    row = Image.fromarray(page(picked("2435")))
    turned = row.rotate(degrees, expand=True, fillcolor=235)
    readings = read_digits(turned, shipped)
    assert written(readings) == "2435"
    for reading in readings:
        left, top, right, bottom = reading.box
        assert 0 <= left < right <= turned.width
        assert 0 <= top < bottom <= turned.height
        assert np.asarray(turned)[top:bottom, left:right].min() < 80


def test_a_lone_digit_that_lies_on_its_side_is_told_and_not_read(shipped: Trained) -> None:
    picture = Image.fromarray(page(picked("2"))).rotate(90)
    (reading,) = read_digits(picture, shipped)
    assert (reading.digit, reading.best, reading.rotation) == (None, 2, 90)


@pytest.mark.parametrize("font", ["DejaVuSans.ttf", "DejaVuSans-Bold.ttf"])
def test_a_letter_is_neither_cut_into_digits_nor_turned_to_one(shipped: Trained, font: str) -> None:
    sheet = Image.new("L", (260, 260), 230)
    letters = ImageFont.truetype(DEJAVU.with_name(font), 130)
    ImageDraw.Draw(sheet).text((130, 130), "m", 40, letters, "mm")
    assert [reading for reading in read_digits(sheet, shipped) if reading.digit is not None] == []


@pytest.mark.parametrize("height", [8, 200])
def test_a_digit_that_fills_its_picture_is_read(shipped: Trained, height: int) -> None:
    right = 0
    for number, digit in enumerate(picked("0123456789")):
        x, y, w, h = cv2.boundingRect(digit)
        ink = Image.fromarray(255 - digit[y : y + h, x : x + w])
        size = max(3, w * height // h), height
        full = ink.resize(size, Image.Resampling.BOX if height < h else Image.Resampling.BICUBIC)
        right += written(read_digits(full, shipped)) == str(number)
    assert right >= (9 if height > 8 else 6)


def test_a_pen_wider_than_any_of_mnist_is_thinned() -> None:
    sheet = np.full((400, 400), 235, np.uint8)
    cv2.line(sheet, (200, 100), (200, 300), 40, 110)
    (digit,) = find_digits(Image.fromarray(sheet))
    assert 3 <= (digit.image[14] > 127).sum() <= 5  # of 20; 6 as it is


def test_neither_colour_nor_a_large_sheet_hides_a_digit(shipped: Trained) -> None:
    ink = page(picked("273"))[..., None] < 150
    red_on_equally_light_green = np.where(ink, (220, 60, 50), (120, 150, 90)).astype(np.uint8)
    assert written(read_digits(Image.fromarray(red_on_equally_light_green), shipped)) == "273"
    sheet = np.full((2000, 2000), 235, np.uint8)
    sheet[900:928, 700:728] -= (picked("9")[0] * 0.8).astype(np.uint8)
    assert written(read_digits(Image.fromarray(sheet), shipped)) == "9"


@pytest.mark.parametrize("reach", [60, 160])
def test_a_table_beside_the_sheet_is_no_digit(shipped: Trained, reach: int) -> None:
    paper = np.pad(page(picked("2435"), picked("0718")), ((0, 0), (0, 100)), constant_values=235)
    height, width = paper.shape
    corners = (width - reach, 0), (width, 0), (width, height * 3 // 4)
    cv2.fillPoly(paper, [np.array(corners, np.int32)], 40, lineType=cv2.LINE_AA)
    picture = Image.fromarray(cv2.GaussianBlur(paper, (0, 0), 1))
    assert written(read_digits(picture, shipped)) == "2435\n0718"


@pytest.mark.parametrize("grain", [0, 8])
@pytest.mark.parametrize("degrees", [0, 4, -7, 12])
def test_a_sheet_on_a_dark_table_is_read(shipped: Trained, degrees: float, grain: float) -> None:
    paper = np.pad(page(picked("2435"), picked("0718")), 150)
    turned = np.asarray(Image.fromarray(paper).rotate(degrees, Image.Resampling.BICUBIC))
    wood = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 1, turned.shape), (0, 0), 8, None, 1)
    table = np.clip(50 + grain * wood / wood.std(), 0, 255)
    picture = np.where(turned > 0, turned, table).astype(np.uint8)
    for light in (picture, 255 - picture):
        assert written(read_digits(Image.fromarray(light), shipped)) == "2435\n0718"


@pytest.mark.parametrize("middle", [(120, 10), (30, 225)])
def test_light_that_falls_off_around_a_point_is_no_ink(middle: tuple[int, int]) -> None:
    y, x = np.mgrid[:240, :240]
    away = np.hypot(y - middle[0], x - middle[1])
    for dark, light in ((60, 100), (20, 50), (75, 190)):
        sheet = (dark + (light - dark) * away / away.max()).astype(np.uint8)
        assert find_digits(Image.fromarray(sheet)) == []


def test_more_strokes_than_can_be_read_are_named() -> None:
    sheet = np.full((2000, 2000), 240, np.uint8)
    for x in range(20, 1980, 33):
        for y in range(20, 1980, 33):
            cv2.circle(sheet, (x, y), 9, 30, 3)
    with pytest.raises(ValueError, match=r"the picture: 3,\d+ strokes, over 3,000: crop it"):
        read_digits(Image.fromarray(sheet), heaviness)


def test_a_page_of_400_digits_is_read(shipped: Trained) -> None:
    images = bundled("t10k-images-idx3-ubyte", 16).reshape(-1, 20, 28, 28)[:20]
    labels = bundled("t10k-labels-idx1-ubyte", 8).reshape(-1, 20)[:20]
    readings = read_digits(Image.fromarray(page(*map(list, images), size=56)), shipped)
    rows = written(readings).split("\n")
    assert len(rows) == 20
    expected = ["".join(map(str, row)) for row in labels]
    assert sum(map(common, rows, expected)) >= 390
    assert draw_readings(Image.fromarray(page(*map(list, images))), readings).width == 2000


def test_the_drawing_shows_the_picture_and_what_the_network_saw(mnist: Array) -> None:
    picture = Image.fromarray(page([mnist[2], mnist[3]]))
    readings = read_digits(picture, heaviness)
    bare, drawn = draw_readings(picture, []), draw_readings(picture, readings)
    assert drawn.width == bare.width
    assert drawn.height > bare.height
    for size in ((2, 5000), (5000, 2)):
        bare = draw_readings(Image.new("L", size, 255), [])
        assert (bare.width, bare.height <= 4000) == (1000, True)
    colours = {colour for _, colour in drawn.getcolors(1 << 24) or []}
    assert (0x00, 0x7A, 0x3D) in colours  # read
    assert (0xC0, 0x30, 0x00) in colours  # unsure
