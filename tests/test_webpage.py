"""The page with the network inside gives the network's probabilities and the reader's images."""

import base64
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from mnist_cnn import pretrained, webpage
from mnist_cnn.reading.picture import load_picture
from mnist_cnn.reading.reader import NO_DIGIT, THRESHOLD, read_digits
from mnist_cnn.readings import written
from tests.helpers.photographs import bundled

# strokes of some digits, in shares of a square
STROKES: dict[str, list[list[tuple[float, float]]]] = {
    "0": [[(0.5 - 0.3 * math.sin(t / 5), 0.5 - 0.3 * math.cos(t / 5)) for t in range(32)]],
    "1": [[(0.5, 0.2 + t / 50) for t in range(31)]],
    "3": [
        [(0.47 + 0.22 * math.sin(t / 4), 0.34 - 0.14 * math.cos(t / 4)) for t in range(-4, 13)]
        + [(0.45 + 0.25 * math.sin(t / 4), 0.65 - 0.17 * math.cos(t / 4)) for t in range(18)]
    ],
    "4": [[(0.4, 0.2), (0.2, 0.6), (0.75, 0.6)], [(0.6, 0.3), (0.58, 0.82)]],
    "5": [
        [(0.32, 0.24), (0.3, 0.48)]
        + [(0.45 + 0.22 * math.sin(t / 4), 0.62 - 0.2 * math.cos(t / 4)) for t in range(-2, 14)],
        [(0.32, 0.23), (0.68, 0.22)],
    ],
    "7": [[(0.25, 0.22), (0.7, 0.22), (0.55, 0.5), (0.4, 0.82)]],
}


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    images = bundled("t10k-images-idx3-ubyte", 16).reshape(-1, 28, 28)
    return torch.from_numpy(images[:100].copy())


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    """The shipped network as one HTML file."""
    file = tmp_path_factory.mktemp("page") / "mnist_cnn.html"
    file.write_text(webpage.webpage(pretrained.load(), {"a": "<b>"}), "utf-8")
    return file


@pytest.fixture
def offline_page(browser, page_file) -> Iterator[Any]:
    """The file in a browser without a network, in which nothing may fail or be asked for."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_offline(True)
    page = context.new_page()
    wrong: list[str] = []
    page.on("request", lambda request: wrong.append(request.url.partition(":null/")[0]))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(page_file.as_uri())
    page.wait_for_selector(".reader[data-ready]")
    yield page
    context.close()
    assert wrong == [page_file.as_uri(), "blob"]  # itself, and its own script as a worker


def test_the_page_reads_without_a_network_what_the_network_and_the_reader_read(
    offline_page, digits
):
    expected = pretrained.load()(digits).numpy()
    flat = digits.flatten(1).tolist()
    found = offline_page.evaluate("all => all.map(probabilities)", flat)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    soft = offline_page.evaluate(
        "all => all.map((image) => [...softened(Uint8Array.from(image))])", flat
    )
    black = cv2.BORDER_CONSTANT  # beyond the image, as in the reader
    blurred = [cv2.GaussianBlur(image, (3, 3), 0, None, 0, black) for image in digits.numpy()]
    np.testing.assert_allclose(soft, np.reshape(blurred, (100, 784)), rtol=0, atol=0.5)  # of 255
    assert offline_page.locator(".upload").is_hidden()
    drawn = "5710"
    width = 1 / (len(drawn) + 0.5)
    height = min(0.75, 1.5 * width)
    for place, digit in enumerate(drawn):
        for points in STROKES[digit]:
            offline_page.evaluate(
                "points => { done.push({ points }); change(); }",
                [[(x + place + 0.25) * width, y * height] for x, y in points],
            )
    offline_page.wait_for_function(
        'text => find("reading").textContent === text', arg=drawn, timeout=5000
    )
    assert readings_beside_tiles(offline_page) == drawn


def test_the_page_thins_a_pen_that_is_wide_for_its_digit_as_the_reader_does(offline_page):
    (points,) = STROKES["0"]
    small = [[0.45 + x / 6, 0.45 + y / 6] for x, y in points]
    offline_page.evaluate("points => { done.push({ points }); change(); }", small)
    offline_page.wait_for_function("() => digits.length === 1 && digits[0].image", timeout=5000)
    readings_beside_tiles(offline_page)


def readings_beside_tiles(page: Any) -> str:
    """The page's drawing as the reader reads it, from the same images as the page."""
    picture = page.evaluate('() => (paint(copy, "#fff"), copy.toDataURL())')
    image = load_picture(base64.b64decode(picture.partition(",")[2]))
    readings = read_digits(image, pretrained.load())
    tiles = page.evaluate("() => digits.map((digit) => digit.image)")
    for reading, tile in zip(readings, tiles, strict=True):
        seen = np.frombuffer(base64.b64decode(tile), np.uint8).reshape(28, 28) / 255
        # where a half is rounded the other way, it is centred a pixel beside
        moved = [np.roll(seen, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
        assert min(np.abs(each - reading.image / 255).mean() for each in moved) < 0.02
    return written(readings)


def test_rows_close_to_each_other_stay_apart_and_only_a_new_digit_is_read_again(offline_page):
    def draw(digit: str, left: float, top: float) -> None:
        strokes = [[(left + x / 5, top + y / 4) for x, y in points] for points in STROKES[digit]]
        offline_page.evaluate(
            "strokes => { strokes.forEach((points) => done.push({ points })); change(); }", strokes
        )

    offline_page.evaluate(
        "() => { readDigit = ((old) => (part) => (reads++, old(part)))(readDigit); }"
    )
    offline_page.evaluate("() => { window.reads = 0; }")
    # the flag of the lower 5 is 10 pixels below the upper
    below = 0.17 + 0.034 + 10 / offline_page.evaluate("sheet.clientWidth")
    for place, digit in enumerate("5005"):
        draw(digit, 0.1 + place % 2 / 4, 0.1 + place // 2 * below)
    offline_page.evaluate("() => done.push({ points: [[0.6, 0.2]] })")  # a dot
    draw("1", 0.7, 0.1)
    offline_page.wait_for_function(
        'text => find("reading").textContent === text', arg="50·1\n05", timeout=5000
    )
    assert offline_page.evaluate("reads") == 6  # each part once


@pytest.mark.parametrize("upper", [0.6, 1])  # the height of the upper row by that of the lower
def test_rows_of_different_height_are_read_with_gaps_of_ten_pixels(offline_page, upper):
    width = offline_page.evaluate("sheet.clientWidth")
    pen = offline_page.evaluate("PEN") * width
    top = left = 40.0
    drawn = []
    for height in (100 * upper, 100):
        left = 40
        for digit in "345":
            xs, ys = np.array([point for points in STROKES[digit] for point in points]).T
            scale = np.array([60 / np.ptp(xs), height / np.ptp(ys)])
            for points in STROKES[digit]:
                drawn.append((np.array(points) - [xs.min(), ys.min()]) * scale + [left, top])
            left += 60 + pen + 10
        top += height + pen + 10
    offline_page.evaluate(
        "all => { all.forEach((points) => done.push({ points })); change(); }",
        [(points / width).tolist() for points in drawn],
    )
    offline_page.wait_for_function(
        'text => find("reading").textContent === text', arg="345\n345", timeout=5000
    )


def test_a_sixth_digit_asks_the_network_once_and_not_in_the_thread_that_draws(offline_page):
    offline_page.evaluate(
        """() => {
            window.asked = [];
            const post = Worker.prototype.postMessage;
            Worker.prototype.postMessage = function (image, ports) {
                window.asked.push(image);
                return post.call(this, image, ports);
            };
            probabilities = () => { throw new Error("it is computed in the thread that draws"); };
        }"""
    )
    for place in range(6):
        offline_page.evaluate(
            """points => {
                done.push({ points: [] });
                for (const point of points) (last().points.push(point), grow());
                askNow();  // as at the end of a stroke
            }""",
            [[(place + x) / 7, y / 4] for x, y in STROKES["0"][0]],
        )
        offline_page.wait_for_function("n => digits.length === n", arg=place + 1)
        assert offline_page.evaluate("window.asked.length") == place + 1
    assert offline_page.locator(".reading").text_content() == "000000"


@pytest.mark.parametrize("name", ["FastCNN", "VGG"])
def test_a_page_has_any_network_of_this_project(name, digits):
    pytest.importorskip("py_mini_racer", reason="comes with the extra export")
    configs: dict[str, dict[str, Any]] = {
        "FastCNN": {"channels": [4, 8], "hidden": 16, "mean": 0.13, "std": 0.31},
        "VGG": {"stages": [[4], [6, 6]], "channel_dropout": 0.1, "dropout": 0.1},
    }
    net = pretrained.build_network({"_target_": f"mnist_cnn.model.{name}", **configs[name]})
    with torch.no_grad():
        for _ in range(5):  # batch normalisation of its own mean and variance
            net(torch.rand(32, 1, 28, 28))
        for layer in net.modules():
            if isinstance(layer, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
                layer.weight.uniform_(-1, 1)
                layer.bias.uniform_(-1, 1)
    trained = pretrained.Trained(net, tuple("0123456789"), {"model": {}, "data": {"name": "mnist"}})
    found = webpage.run_webpage(webpage.webpage(trained, {}))(digits)
    torch.testing.assert_close(found, trained(digits), rtol=0, atol=1e-5)


class Branched(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + x.relu()).flatten(1)[:, :10]


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Branched(), "and dense layers, got a branch at add"),
        (torch.nn.Sequential(torch.nn.GELU()), "and dense layers, got gelu"),
        (torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, dilation=2)), "got conv2d"),
    ],
)
def test_a_network_that_the_page_cannot_compute_is_refused_in_one_line(net, message):
    about = {"model": {}, "data": {"name": "mnist"}}
    with pytest.raises(ValueError, match=re.escape(message)):
        webpage.webpage(pretrained.Trained(net, tuple("0123456789"), about), {})
    other = pretrained.Trained(net, ("shirt",), {"data": {"name": "fashion_mnist"}})
    with pytest.raises(ValueError, match="got one of fashion_mnist, 1 x 28 x 28"):
        webpage.webpage(other, {})


def test_the_page_calls_unsure_what_the_reader_does():
    script = (webpage.PAGE / "network.js").read_text("utf-8")
    assert f"const THRESHOLD = {THRESHOLD};" in script
    assert f"const NO_DIGIT = {NO_DIGIT};" in script
