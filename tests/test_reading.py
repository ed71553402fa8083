"""Reading of digits, and how unsure ones are reported."""

from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from mnist_cnn.data.drawn import pages
from mnist_cnn.data.drawn.pages import common
from mnist_cnn.data.drawn.photographs import digits_of
from mnist_cnn.data.fonts import load_font
from mnist_cnn.data.synthetic.sheet import SIGNS
from mnist_cnn.detection import find
from mnist_cnn.detection.network import Detector
from mnist_cnn.reading.answers import found_lines, rotation, written
from mnist_cnn.reading.drawing import Labels, draw_readings, font_of
from mnist_cnn.reading.ink import like_mnist
from mnist_cnn.reading.reader import read_digits
from mnist_cnn.weights.predictor import load
from tests.helpers.pictures import find_digits, page

Array = NDArray[np.uint8]


def picked(digits: str, number: int = 2) -> list[Array]:
    """Return the test image with a given number of each digit, and blanks for spaces."""
    images, labels = digits_of("test")
    blank = np.zeros((28, 28), np.uint8)
    return [blank if d == " " else images[labels == int(d)][number] for d in digits]


def torn(x: Tensor) -> Tensor:
    """Mock a network: sure of a 1 for the image with least ink, torn between 4 and 9 otherwise."""
    assert x.dtype == torch.uint8
    assert x.shape[1:] == (28, 28)
    probabilities = torch.zeros(len(x), 10)
    probabilities[:, 4], probabilities[:, 9] = 0.4, 0.6
    probabilities[x.float().sum((1, 2)).argmin()] = torch.eye(10)[1]
    return probabilities


def test_a_network_that_is_given_classifies_the_digits_that_are_found_at_once() -> None:
    asked: list[Tensor] = []

    def network(x: Tensor) -> Tensor:
        asked.append(x)
        return torn(x)

    picture = Image.fromarray(page(picked("24"), picked("3")))
    readings, own = read_digits(picture, network), find_digits(picture)
    assert len(asked) == 1
    seen = {bytes(image.numpy().tobytes()) for image in asked[0]}
    assert seen == {each.image.tobytes() for each in readings}
    least = min(range(3), key=lambda k: readings[k].image.sum())
    for k, (each, alone) in enumerate(zip(readings, own, strict=True)):
        assert (each.symbol, each.best) == (("1", 1) if k == least else ("?", 9))
        # the confidence includes the probability that there is a digit
        there = each.confidence / (1.0 if k == least else 0.6)
        assert alone.confidence - 0.02 < there <= 1
    assert sorted(written(read_digits(picture, network, threshold=0.3))) == sorted("19\n9")
    # an unsure network makes the lines unsure
    assert min(each.line for each in readings) < min(each.line for each in own)


@pytest.mark.parametrize("number", [0, 2, 5, 22])
def test_a_digit_that_fills_a_large_picture_is_read(number: int) -> None:
    image, label = (part[number] for part in digits_of("test"))
    large = cv2.resize(image, (1680, 1680), interpolation=cv2.INTER_CUBIC)
    ink = (cv2.GaussianBlur(large, (0, 0), 30) > 110) * np.uint8(255)
    paper = 255 - np.pad(ink, ((100, 100), (200, 200)))
    # a part of it, cut off, looks like another character
    assert written(read_digits(paper)) == str(label)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"net": "outputs/run"}, r"^net must be a network of 28x28 digits, .*, got str$"),
        (
            {"net": Detector(width=8, deep_width=8)},
            r"^net must be a network of 28x28 digits, .*, got Detector$",
        ),
        ({"net": lambda x: torch.ones(len(x), 12) / 12}, r"^net must be .* \(N, 10\), got .*12"),
        ({"net": lambda x: 9 * torch.ones(len(x), 10)}, r"^net must be .*, got numbers up to 9$"),
        ({"reader": "outputs/run"}, r"^reader must be what load_reader\(PATH\) gives, got str$"),
        ({"reader": torch.nn.Identity()}, r"^reader must be .*, got Identity$"),
    ],
)
def test_an_argument_that_is_no_network_of_its_kind_is_named(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        read_digits(Image.fromarray(page(picked("27"))), **arguments)


def test_the_crop_of_what_has_no_ink_is_black() -> None:
    assert like_mnist(np.full((20, 7), 0.001, np.float32)).max() == 0
    assert like_mnist(np.zeros((20, 7), np.float32)).max() == 0


def test_the_network_that_ships_classifies_what_is_found() -> None:
    picture = Image.fromarray(page(picked("2435"), picked("0718")))
    assert written(read_digits(picture, load())) == "2435\n0718"


def test_a_path_or_a_files_content_is_read_as_the_picture_is(tmp_path: Path) -> None:
    picture = Image.fromarray(page(picked("27")))
    picture.save(tmp_path / "picture.png")
    for source in (tmp_path / "picture.png", (tmp_path / "picture.png").read_bytes()):
        assert written(read_digits(source)) == "27"
    assert read_digits(Image.new("L", (300, 200), 255)) == []


def test_a_line_has_its_text_and_a_confidence() -> None:
    lines = found_lines(read_digits(Image.fromarray(page(picked("2435"), picked("07")))))
    assert [line.text for line in lines] == ["2435", "07"]
    assert all(0.3 < line.confidence <= 1 for line in lines)
    assert found_lines([]) == []


def test_neighbours_that_touch_are_told_apart() -> None:
    guessed = []
    for number in range(12):
        ink = np.hstack([digit[:, 4:25] for digit in picked("3058", number)])
        ink = np.pad(ink, 10).repeat(5, 0).repeat(5, 1)
        for x in (155, 260, 365):  # connecting neighbours
            cv2.line(ink, (x - 30, 130), (x + 30, 130), 255, 4)
        found = find_digits(Image.fromarray(255 - cv2.GaussianBlur(ink, (0, 0), 2)))
        guessed.append("".join(str(each.best) for each in found))
    assert guessed.count("3058") >= 7


def test_signs_are_written_and_are_no_digits() -> None:
    texts = []
    for number in range(12):
        paper = page(picked("3 14", number), picked(" 42", number))
        cv2.circle(paper, (205, 130), 8, 50, -1)
        cv2.line(paper, (80, 208), (130, 206), 50, 8)
        readings = read_digits(Image.fromarray(paper))
        texts.append(written(readings))
        if texts[-1] == "3.14\n-42":
            assert [n for n, each in enumerate(readings) if not each.is_digit] == [1, 4]
    assert texts.count("3.14\n-42") >= 9


def test_a_line_is_no_surer_than_the_guess_of_its_illegible_digit() -> None:
    illegible = []
    for number in range(4):
        paper = page(picked("2 435", number))
        for x in range(122, 178, 9):  # crossed out
            cv2.line(paper, (x, 45), (x + 12, 125), 50, 7)
        readings = read_digits(Image.fromarray(paper))
        illegible += [each for each in readings if each.is_digit and each.digit is None]
    assert illegible
    for each in illegible:
        assert each.line <= each.confidence + 1e-6


@pytest.mark.parametrize("degrees", [45, 90, 180, 270])
def test_a_row_is_read_whichever_way_it_is_turned(degrees: int) -> None:
    right = 0
    for number in range(6):
        row = Image.fromarray(page(picked("2435", number)))
        turned = row.rotate(degrees, expand=True, fillcolor=235)
        readings = read_digits(turned)
        right += written(readings) == "2435" and abs(rotation(readings) - degrees) <= 3
        for reading in readings:
            left, top, right_side, bottom = reading.box
            assert 0 <= left < right_side <= turned.width
            assert 0 <= top < bottom <= turned.height
            assert np.asarray(turned)[top:bottom, left:right_side].min() < 80
    assert right >= (3 if degrees == 180 else 4)  # upside down digits may look like other writing


def test_a_lone_digit_that_lies_on_its_side_is_told_and_not_read() -> None:
    picture = Image.fromarray(page(picked("2"))).rotate(90)
    (reading,) = read_digits(picture)
    assert (reading.digit, reading.best) == (None, 2)
    assert (reading.rotation, reading.turned) == (90, 90)


@pytest.mark.parametrize("font", ["DejaVuSans", "DejaVuSans-Bold"])
def test_a_letter_is_neither_cut_into_digits_nor_turned_to_one(font: str) -> None:
    sheet = Image.new("L", (260, 260), 230)
    ImageDraw.Draw(sheet).text((130, 130), "m", 40, load_font(font, 130), "mm")
    assert [reading for reading in read_digits(sheet) if reading.digit is not None] == []


@pytest.mark.parametrize("height", [8, 200])
def test_a_digit_that_fills_its_picture_is_read(height: int) -> None:
    right = 0
    for number, digit in enumerate(picked("0123456789")):
        x, y, w, h = cv2.boundingRect(digit)
        ink = Image.fromarray(255 - digit[y : y + h, x : x + w])
        size = max(3, w * height // h), height
        full = ink.resize(size, Image.Resampling.BOX if height < h else Image.Resampling.BICUBIC)
        right += written(read_digits(full)) == str(number)
    assert right >= (9 if height > 8 else 6)


def test_neither_colour_nor_a_large_sheet_hides_a_digit() -> None:
    ink = page(picked("273"))[..., None] < 150
    red_on_equally_light_green = np.where(ink, (220, 60, 50), (120, 150, 90)).astype(np.uint8)
    assert written(read_digits(Image.fromarray(red_on_equally_light_green))) == "273"
    sheet = np.full((2000, 2000), 235, np.uint8)
    sheet[900:928, 700:728] -= (picked("9")[0] * 0.8).astype(np.uint8)
    assert written(read_digits(Image.fromarray(sheet))) == "9"


def test_a_narrow_column_of_digits_is_read_as_with_paper_beside_it() -> None:
    digits = [cv2.resize(digit, (60, 60)) for digit in picked("350137240256561051457445626600")]
    column = 255 - np.vstack([np.pad(digit, ((3, 3), (0, 1))) for digit in digits])
    narrow, wide = (read_digits(np.pad(column, ((0, 0), (0, w)), "edge")) for w in (0, 300))
    assert written(narrow) == written(wide)
    assert len(narrow) == len(digits)
    for k, each in enumerate(narrow):
        assert abs((each.box[1] + each.box[3]) / 2 - (66 * k + 33)) < 15


def test_of_an_empty_strip_only_a_small_copy_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = []
    at_zoom = find.at_zoom

    def remembered(net: Detector, ink: Array, zoom: float, pen: float = np.inf) -> find.Found:
        sides.append(max(ink.shape))
        return at_zoom(net, ink, zoom, pen)

    monkeypatch.setattr(find, "at_zoom", remembered)
    assert read_digits(np.full((100, 5000), 255, np.uint8)) == []
    assert max(sides) == find.SMALL


@pytest.mark.parametrize("reach", [60, 160])
def test_a_table_beside_the_sheet_is_no_digit(reach: int) -> None:
    paper = np.pad(page(picked("2435"), picked("0718")), ((0, 0), (0, 100)), constant_values=235)
    height, width = paper.shape
    corners = (width - reach, 0), (width, 0), (width, height * 3 // 4)
    cv2.fillPoly(paper, [np.array(corners, np.int32)], 40, lineType=cv2.LINE_AA)
    picture = Image.fromarray(cv2.GaussianBlur(paper, (0, 0), 1))
    assert written(read_digits(picture)) == "2435\n0718"


@pytest.mark.parametrize("grain", [0, 8])
@pytest.mark.parametrize("degrees", [0, 4, -7, 12])
def test_a_sheet_on_a_dark_table_is_read(degrees: float, grain: float) -> None:
    paper = np.pad(page(picked("2435"), picked("0718")), 150)
    turned = np.asarray(Image.fromarray(paper).rotate(degrees, Image.Resampling.BICUBIC))
    wood = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 1, turned.shape), (0, 0), 8, None, 1)
    table = np.clip(50 + grain * wood / wood.std(), 0, 255)
    picture = np.where(turned > 0, turned, table).astype(np.uint8)
    for light in (picture, 255 - picture):
        found = read_digits(Image.fromarray(light))
        # the edge of the table may be taken for writing, but not for a digit
        assert "".join(each.symbol for each in found if each.digit is not None) == "24350718"


@pytest.mark.parametrize("middle", [(120, 10), (30, 225)])
def test_light_that_falls_off_around_a_point_is_no_ink(middle: tuple[int, int]) -> None:
    y, x = np.mgrid[:240, :240]
    away = np.hypot(y - middle[0], x - middle[1])
    for dark, light in ((60, 100), (20, 50), (75, 190)):
        sheet = (dark + (light - dark) * away / away.max()).astype(np.uint8)
        assert find_digits(Image.fromarray(sheet)) == []


def test_a_page_of_400_digits_is_read() -> None:
    images, labels = (part[:400].reshape(20, 20, *part.shape[1:]) for part in digits_of("test"))
    readings = read_digits(Image.fromarray(page(*map(list, images), size=56)))
    rows = written(readings).split("\n")
    assert len(rows) == 20
    expected = ["".join(map(str, row)) for row in labels]
    assert sum(map(common, rows, expected)) >= 370
    assert draw_readings(Image.fromarray(page(*map(list, images))), readings).width == 2000


def test_bfloat16_reads_what_float32_does(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [pages.page("dates", seed)[0] for seed in range(2)]
    found = []
    for is_fast in (False, True):
        monkeypatch.setattr(find, "is_bfloat16_fast", partial(bool, is_fast))
        found.append([read_digits(picture) for picture in pictures])
    for exact, close in zip(*found, strict=True):
        assert written(exact) == written(close)
        sure, also = ([each.confidence for each in readings] for readings in (exact, close))
        np.testing.assert_allclose(sure, also, atol=0.02)


def test_the_drawing_shows_the_picture_and_what_was_read() -> None:
    picture = Image.fromarray(page(picked("24"), picked("3")))
    readings = read_digits(picture, torn)
    bare, drawn = draw_readings(picture, []), draw_readings(picture, readings)
    assert drawn.width == bare.width
    assert drawn.height > bare.height
    for size in ((2, 5000), (5000, 2)):
        bare = draw_readings(Image.new("L", size, 255), [])
        assert (bare.width, bare.height <= 4000) == (1000, True)
    colours = {colour for _, colour in drawn.getcolors(1 << 24) or []}
    assert (0x00, 0x7A, 0x3D) in colours  # read
    assert (0xC0, 0x30, 0x00) in colours  # unsure
    assert (0x1F, 0x6F, 0xB4) in colours  # a line


def test_a_drawing_names_each_sign_by_itself() -> None:
    seen = set()
    for sign in SIGNS:
        sheet = Image.new("L", (40, 40))
        Labels(ImageDraw.Draw(sheet), 20).draw.text((5, 5), sign, 255, font_of(20))
        seen.add(sheet.tobytes())
    assert len(seen) == len(SIGNS)  # a font without a sign draws the same box for each


def test_no_label_of_a_drawing_lies_on_another() -> None:
    labels = Labels(ImageDraw.Draw(Image.new("RGB", (200, 200))), 20)
    for _ in range(4):
        labels.add("88%", "black", [(10, 10), (12, 12), (10, 60), (300, 10)], (200, 200))
    (first, second) = labels.taken  # there is no room for the third and the fourth
    assert first[3] <= second[1]
