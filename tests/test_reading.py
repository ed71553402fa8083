import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mnist_cnn.reading.reader import draw_readings, read_digits, written
from tests.helpers.photographs import bundled, page

Array = NDArray[np.uint8]


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


def test_the_threshold_can_be_chosen(mnist: Array) -> None:
    (reading,) = read_digits(Image.fromarray(page([mnist[3]])), heaviness, sure=0.5)
    assert reading.digit == 9


def narrow(x: Tensor) -> Tensor:
    """Sure of a 1 in what is narrow, of nothing in what is wide."""
    wide = (x > 0).any(1).sum(1) > 14
    probabilities = torch.full((len(x), 10), 0.1)
    probabilities[~wide] = torch.eye(10)[1]
    return probabilities


@pytest.mark.parametrize(("rungs", "count"), [((70, 130), 2), ((60, 90, 120, 145), 1)])
def test_a_wide_shape_is_cut_only_where_little_joins_two_sure_digits(
    rungs: tuple[int, ...], count: int
) -> None:
    paper = np.full((200, 200), 240, np.uint8)
    for x in (52, 148):
        cv2.line(paper, (x, 50), (x, 150), 30, 8)
    for y in rungs:
        cv2.line(paper, (52, y), (148, y), 30, 8)
    readings = read_digits(Image.fromarray(paper), narrow)
    assert [reading.digit for reading in readings] == ([1, 1] if count == 2 else [None])


def test_a_blank_page_has_no_readings_and_never_reaches_the_network() -> None:
    assert read_digits(Image.new("L", (300, 200), 255), heaviness) == []
    assert written([]) == ""


def test_the_drawing_shows_the_picture_and_what_the_network_saw(mnist: Array) -> None:
    picture = Image.fromarray(page([mnist[2], mnist[3]]))
    readings = read_digits(picture, heaviness)
    bare, drawn = draw_readings(picture, []), draw_readings(picture, readings)
    assert drawn.width == bare.width
    assert drawn.height > bare.height
    colours = {colour for _, colour in drawn.getcolors(1 << 24) or []}
    assert (0x00, 0x7A, 0x3D) in colours  # read
    assert (0xC0, 0x30, 0x00) in colours  # unsure


@pytest.mark.parametrize("size", [(2, 5000), (5000, 2), (1, 1)])
def test_a_picture_of_any_shape_is_shown_in_a_moderate_size(size):
    shown = draw_readings(Image.new("L", size, 255), [])
    assert shown.width == 1000
    assert shown.height <= 4000
