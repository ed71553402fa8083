"""The page to draw on, served by the real server in a real browser."""

import base64
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from mnist_cnn.weights import predictor
from tests.helpers.classifier import save_classifier
from tests.helpers.pictures import png
from tests.helpers.server import running

pytest.importorskip("fastapi_offline", reason="needs the extra demo")

from mnist_cnn.reading import service

Points = list[tuple[float, float]]  # as fractions of the sheet's width and height
STROKE: Points = [(0, 0.2), (0, 0.8)]
RING: Points = [(0.11 * math.sin(t / 3), 0.5 - 0.28 * math.cos(t / 3)) for t in range(20)]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a demo, and yield its address."""
    with running(tmp_path_factory.mktemp("server") / "log") as (port, _):
        yield f"http://127.0.0.1:{port}"


def pdf(*digits: int) -> bytes:
    """Return a PDF with a page for each digit."""
    pages = [Image.open(io.BytesIO(png(digit))).resize((240, 240)) for digit in digits]
    file = io.BytesIO()
    pages[0].save(file, "PDF", save_all=True, append_images=pages[1:])
    return file.getvalue()


class Sheet:
    """A page of the demo, with methods to draw on it."""

    def __init__(self, page: Any, wrong: list[str]):
        self.page, self.wrong = page, wrong
        page.wait_for_selector(".reader[data-ready]")
        self.area = page.locator(".ink").bounding_box()

    def at(self, point: tuple[float, float], shift: float) -> tuple[float, float]:
        x, y = point
        left, top, width, height = (self.area[side] for side in ("x", "y", "width", "height"))
        return left + (x + shift) * width, top + y * height

    def draw(self, points: Points, shift: float = 0.5, lift: bool = True) -> None:
        mouse = self.page.mouse
        mouse.move(*self.at(points[0], shift))
        mouse.down()
        for point in points[1:]:
            mouse.move(*self.at(point, shift), steps=2)
        if lift:
            mouse.up()

    def forgive(self, text: str) -> None:
        """Ignore the browser's messages about failed requests that contain a text."""
        self.wrong[:] = [line for line in self.wrong if text not in line]

    def upload(self, *files: tuple[str, bytes]) -> None:
        kind = "image/png"
        chosen = [{"name": name, "mimeType": kind, "buffer": content} for name, content in files]
        self.page.set_input_files("input[type=file]", chosen)

    def reads(self, text: str) -> None:
        """Wait until the page has read a text."""
        self.page.wait_for_function(
            """text => document.querySelector(".reading").textContent === text &&
                document.querySelector(".reader").dataset.state !== "reading" """,
            arg=text,
            timeout=60_000,
        )

    def says(self, text: str) -> None:
        """Wait until the page's message contains a text."""
        self.page.wait_for_function(
            'text => document.querySelector(".message").textContent.includes(text)',
            arg=text,
            timeout=60_000,
        )


@pytest.fixture
def sheet(browser: Any, url: str) -> Iterator[Sheet]:
    with opened(browser, url) as sheet:
        yield sheet


@contextmanager
def opened(browser: Any, url: str) -> Iterator[Sheet]:
    """Open the page; a failure or a request to another machine fails the test."""
    wrong: list[str] = []

    def note_request(request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and parts.hostname != "127.0.0.1":
            wrong.append(f"asked {request.url}")

    def note_message(message: Any) -> None:
        if message.type in ("error", "warning"):
            wrong.append(f"console: {message.text}")

    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.on("request", note_request)
    page.on("console", note_message)
    page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
    page.goto(url)
    yield Sheet(page, wrong)
    page.close()
    assert wrong == []


def test_what_is_drawn_is_read_and_can_be_undone(sheet: Sheet) -> None:
    best = sheet.page.locator(".bar.best b")
    sheet.says("empty")
    sheet.draw(STROKE, 0.3)
    sheet.reads("1")
    sheet.draw(RING, 0.65, lift=False)
    sheet.reads("10")  # before the stroke ends
    sheet.page.mouse.up()
    assert sheet.page.locator(".seen button").count() == 2
    assert sheet.page.locator(".bar").count() == 10
    assert best.inner_text() == "0"
    sheet.page.mouse.click(*sheet.at((0, 0.5), 0.3))  # on the first digit's box
    assert best.inner_text() == "1"
    sheet.page.click("text=Undo")  # the click has drawn nothing
    sheet.reads("1")
    sheet.page.click("text=Clear")
    sheet.says("empty")
    sheet.page.keyboard.press("Control+z")
    sheet.reads("1")
    sheet.page.click("text=Undo")
    sheet.says("empty")
    assert sheet.page.locator(".undo").is_disabled()


def test_an_uploaded_picture_is_read_shown_and_not_drawn_on(sheet: Sheet) -> None:
    sheet.upload(("seven.png", png(7)))
    sheet.reads("7")
    shown = sheet.page.evaluate(
        """() => {
            const { width, height } = document.querySelector(".ink");
            const pixels = document.querySelector(".ink").getContext("2d");
            return [...pixels.getImageData(0, 0, width, height).data]
                .filter((value, i) => i % 4 === 3 && value === 255).length / width / height;
        }"""
    )
    assert shown == pytest.approx(3 / 4, abs=0.02)  # a square on a sheet of 4 by 3
    sheet.upload(("row.png", png(*[7, 2, 1, 0] * 3)))
    sheet.reads("721072107210")
    assert sheet.page.locator(".more").inner_text() == "(scroll: 12)"
    sheet.page.locator(".boxes i").nth(1).evaluate("() => choose(1)")
    assert sheet.page.locator(".bar.best b").inner_text() == "2"
    assert sheet.page.locator(".seen button").nth(1).get_attribute("aria-pressed") == "true"


def test_a_refused_file_is_named_and_leaves_the_reading_as_it_was(sheet: Sheet) -> None:
    sheet.upload(("seven.png", png(7)))
    sheet.reads("7")
    for name, content, reason in (
        ("notes.png", b"no picture at all", "notes.png cannot be read: not a picture"),
        ("none.png", b"", "none.png is empty"),
        ("huge.png", bytes(service.MAX_BYTES + 1), "huge.png is too big: at most 20 MB"),
    ):
        sheet.upload((name, content))
        sheet.says(reason)
        sheet.reads("7")
        assert sheet.page.locator(".seen button").count() == 1
    sheet.page.click("text=Undo")
    sheet.says("empty")  # a refused file is not undone
    sheet.page.route("**/read?*", lambda route: route.fulfill(status=500, body="{}"))
    sheet.draw(STROKE)
    sheet.says("The server gives no answer")
    sheet.page.unroute("**/read?*")
    failed = {"status": 500, "json": {"detail": "the server failed"}}
    sheet.page.route("**/read?*", lambda route: route.fulfill(**failed))
    sheet.draw(RING, 0.8)
    sheet.says("The drawing cannot be read: the server failed.")
    sheet.page.unroute("**/read?*")
    sheet.page.click("text=Undo")
    sheet.draw(RING, 0.8)
    sheet.reads("10")
    sheet.forgive("422")
    sheet.forgive("500")


def test_several_files_and_their_pages_are_read_each_in_its_turn(sheet: Sheet) -> None:
    sheet.upload(("a.png", png(1)), ("b.pdf", pdf(7, 2)), ("notes.png", b"none"))
    sheet.reads("1")
    for place, text in (
        ("2 of 3: b.pdf", "7"),
        ("3 of 4: b.pdf, page 2 of 2", "2"),
        ("4 of 4: notes.png", ""),
    ):
        sheet.page.click(".next")
        sheet.page.wait_for_function(
            "text => find('place').textContent.startsWith(text)", arg=place
        )
        sheet.reads(text)
    sheet.says("notes.png cannot be read")
    assert sheet.page.locator(".next").is_disabled()
    sheet.page.click(".previous")
    sheet.reads("2")
    sheet.page.click("text=Undo")  # they were added in one step
    sheet.says("empty")
    sheet.forgive("422")


def test_the_picture_shown_stays_where_pages_are_added_before_it(sheet: Sheet) -> None:
    sheet.page.evaluate(
        """() => {
            const own = read;
            const first = new Promise((next) => { window.next = next; });
            read = async (asked) => {
                const reply = await own(asked);
                if (asked.picture.name === "a.pdf") await first;
                return reply;
            };
        }"""
    )
    sheet.upload(("a.pdf", pdf(7, 2)), ("b.png", png(1)))
    sheet.page.click(".next")
    sheet.reads("1")
    sheet.page.evaluate("next()")
    sheet.page.wait_for_function("() => find('place').textContent === '3 of 3: b.png'")
    sheet.reads("1")
    sheet.page.click(".previous")
    sheet.reads("2")


def test_a_sheet_is_not_cleared_while_a_stroke_is_drawn(sheet: Sheet) -> None:
    sheet.draw(RING, lift=False)
    sheet.page.locator(".clear").evaluate("(button) => button.click()")
    sheet.page.mouse.move(*sheet.at((0, 0.5), 0.5))  # without an error
    sheet.page.mouse.up()
    sheet.page.click("text=Undo")
    sheet.says("empty")


def test_a_picture_that_met_no_server_is_read_when_it_is_shown_again(sheet: Sheet) -> None:
    sheet.page.route("**/read?*", lambda route: route.fulfill(status=500, body="{}"))
    sheet.upload(("a.png", png(7)), ("b.png", png(2)))
    sheet.says("The server gives no answer")
    sheet.page.unroute("**/read?*")
    for button, text in ((".next", "2"), (".previous", "7")):
        sheet.page.click(button)
        sheet.reads(text)
    sheet.forgive("500")


def test_a_picture_that_is_still_being_read_shows_no_other_s_reading(sheet: Sheet) -> None:
    held: list[Any] = []
    sheet.page.route("**/read?*", lambda route: route.continue_() if held else held.append(route))
    sheet.upload(("a.png", png(7)), ("b.png", png(2)))
    sheet.says("a.png")
    sheet.page.click(".next")
    sheet.reads("2")
    sheet.page.click(".previous")
    sheet.says("a.png")
    held[0].continue_()
    sheet.reads("7")


def test_what_the_browser_fails_at_is_refused_and_the_next_is_read(sheet: Sheet) -> None:
    sheet.page.evaluate("() => { window.own = decode; decode = () => Promise.reject(); }")
    sheet.upload(("a.png", png(7)))
    sheet.says("a.png cannot be read.")
    sheet.page.evaluate("() => { decode = window.own; }")
    sheet.draw(STROKE)
    sheet.reads("1")
    sheet.upload(("a.png", png(7)))
    sheet.reads("7")


def test_a_slow_upload_shows_how_far_it_is_and_no_reading_of_another(sheet: Sheet) -> None:
    sheet.draw(STROKE)
    sheet.reads("1")
    devices = sheet.page.context.new_cdp_session(sheet.page)
    devices.send("Network.enable")
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 100_000}
    devices.send("Network.emulateNetworkConditions", slow)
    noise = np.random.default_rng(0).integers(0, 255, (300, 300), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    sheet.upload(("noise.png", file.getvalue()))
    sheet.page.wait_for_function(
        "() => /Sending noise.png: [1-9]/.test(find('message').textContent)"
    )
    assert sheet.page.locator(".seen button, .boxes i, .bar.best").count() == 0
    assert sheet.page.locator(".reading").text_content() == ""


@pytest.mark.parametrize("on_light", [False, True])
@pytest.mark.parametrize("shape", [(3, 24, 32), (1, 28, 28)])
def test_a_network_of_other_classes_shows_the_likeliest_five(
    browser: Any, tmp_path: Path, shape: tuple[int, ...], on_light: bool
) -> None:
    path = save_classifier(tmp_path, *shape, on_light=on_light)
    net = predictor.load(path)
    expected = [name for name, _ in net.classify(png(3, 5))]
    draws = shape == (1, 28, 28)
    with (
        running(tmp_path / "log", f"ckpt_path={path}") as (port, _),
        opened(browser, f"http://127.0.0.1:{port}") as sheet,
    ):
        sheet.says("Drop a picture")
        sheet.draw(STROKE)
        if draws:  # in MNIST's format, on the ground of training's images
            sheet.page.wait_for_selector(".bar")
            drawn = sheet.page.locator(".seen img").get_attribute("src")
            image = np.array(Image.open(io.BytesIO(base64.b64decode(drawn.partition(",")[2]))))
            assert image[0, 0] == 255 * on_light
            assert np.argwhere((image > 127) != on_light).mean(0) == pytest.approx(
                [13.5, 13.5], abs=0.5
            )
        sheet.upload(("some.png", png(3, 5)))
        sheet.reads(expected[0])
        assert sheet.page.locator(".bar b").all_inner_texts() == expected
        assert sheet.page.locator(".bar.best b").all_inner_texts() == expected[:1]
        assert sheet.page.evaluate("done.length") == 1 + draws  # else a stroke draws nothing
        sheet.upload(("notes.png", b"no picture at all"))
        sheet.says("notes.png cannot be read")
        sheet.reads(expected[0])
        sheet.forgive("422")


def test_a_digit_on_its_side_is_said_to_lie_so(sheet: Sheet) -> None:
    file = io.BytesIO()
    Image.open(io.BytesIO(png(4))).resize((168, 168)).rotate(90).save(file, "PNG")
    sheet.upload(("side.png", file.getvalue()))
    sheet.says("A 4, if the picture is turned by 90° clockwise.")
    assert sheet.page.locator(".seen button").inner_text() == "4? ↻ 90°"


def test_long_results_are_whole_lines_that_keys_can_scroll(sheet: Sheet) -> None:
    rows = [np.hstack([np.array(Image.open(io.BytesIO(png(7, 2, 1, 0))))] * 2)] * 7
    paper = Image.fromarray(np.vstack(rows)).resize((1120, 980))
    file = io.BytesIO()
    paper.save(file, "PNG")
    sheet.upload(("rows.png", file.getvalue()))
    sheet.page.wait_for_function("() => find('reading').innerText.trim().split('\\n').length == 7")
    reading = sheet.page.locator(".reading")
    height, line = reading.evaluate(
        "e => [e.clientHeight, e.firstChild.getBoundingClientRect().height]"
    )
    assert height == pytest.approx(5 * line, abs=1)
    reading.focus()
    sheet.page.keyboard.press("End")
    sheet.page.wait_for_function("() => find('reading').scrollTop > 0")
    tiles = sheet.page.locator(".seen button").count()
    assert tiles > 50
    for chosen in (tiles - 1, 0, tiles // 2):
        sheet.page.evaluate("chosen => choose(chosen)", chosen)
        tile = sheet.page.locator(".seen button").nth(chosen).bounding_box()
        strip = sheet.page.locator(".seen").bounding_box()
        ring = 5  # pixels of the focus ring
        assert strip["x"] + ring <= tile["x"]
        assert tile["x"] + tile["width"] + ring <= strip["x"] + strip["width"]
        assert strip["y"] + ring <= tile["y"]
