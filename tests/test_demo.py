"""The page to draw on, served by the real server, in a real browser."""

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.helpers.photographs import png
from tests.helpers.server import running

pytest.importorskip("fastapi_offline", reason="needs the extra demo")

from mnist_cnn import service

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
SIDEWAYS = {**PHONE, "viewport": {"width": 667, "height": 375}}
SMALL = {**PHONE, "viewport": {"width": 320, "height": 480}}

Points = list[tuple[float, float]]  # in shares of the sheet's width and height
STROKE: Points = [(0, 0.2), (0, 0.8)]
RING: Points = [(0.11 * math.sin(t / 3), 0.5 - 0.28 * math.cos(t / 3)) for t in range(20)]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running demo."""
    with running(tmp_path_factory.mktemp("server") / "log") as (port, _):
        yield f"http://127.0.0.1:{port}"


class Sheet:
    """A page of the demo and the hand that draws on it."""

    def __init__(self, page: Any, wrong: list[str]):
        self.page, self.wrong = page, wrong
        page.wait_for_selector(".reader[data-ready]")
        self.area = page.locator(".ink").bounding_box()
        self.devtools = page.context.new_cdp_session(page)

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

    def touch(self, kind: str, *points: tuple[float, float]) -> None:
        places = [dict(zip("xy", self.at(point, 0), strict=True)) for point in points]
        event = {"type": kind, "touchPoints": places}
        self.devtools.send("Input.dispatchTouchEvent", event)

    def swipe(self, points: Points) -> None:
        """Moves one finger along points."""
        for number, point in enumerate(points):
            self.touch("touchMove" if number else "touchStart", point)
        self.touch("touchEnd")

    def forgive(self, text: str) -> None:
        """Allows what the browser prints of failed requests, which has this text in it."""
        self.wrong[:] = [what for what in self.wrong if text not in what]

    def upload(self, name: str, content: bytes) -> None:
        file = {"name": name, "mimeType": "image/png", "buffer": content}
        self.page.set_input_files("input[type=file]", [file])

    def press(self, button: str) -> None:
        self.page.click(f"text={button}")

    def reads(self, text: str) -> None:
        """Waits until the page reads text."""
        self.page.wait_for_function(
            """text => document.querySelector(".reading").textContent === text &&
                document.querySelector(".reader").dataset.state !== "reading" """,
            arg=text,
            timeout=10_000,
        )

    def says(self, text: str) -> None:
        """Waits until the page's message contains text."""
        self.page.wait_for_function(
            'text => document.querySelector(".message").textContent.includes(text)',
            arg=text,
            timeout=10_000,
        )


@pytest.fixture
def new_sheet(browser: Any, url: str) -> Iterator[Callable[..., Sheet]]:
    """Opens the page; at the end nothing in it may have failed or asked another machine."""
    contexts: list[Any] = []
    wrong: list[str] = []

    def note_request(request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and parts.hostname != "127.0.0.1":
            wrong.append(f"asked {request.url}")

    def note_message(message: Any) -> None:
        if message.type in ("error", "warning"):
            wrong.append(f"console: {message.text}")

    def open_sheet(**options: Any) -> Sheet:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("request", note_request)
        page.on("websocket", lambda socket: wrong.append(f"asked {socket.url}"))
        page.on("console", note_message)
        page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
        page.goto(url)
        return Sheet(page, wrong)

    yield open_sheet
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture
def sheet(new_sheet: Callable[..., Sheet]) -> Sheet:
    return new_sheet()


# in the browser


def test_a_drawn_1_and_a_drawn_0_are_read(sheet: Sheet) -> None:
    sheet.draw(STROKE)
    sheet.reads("1")
    sheet.press("Clear")
    sheet.says("empty")
    sheet.draw(RING, lift=False)
    sheet.reads("0")  # before the stroke ends
    bars = sheet.page.locator(".bar")
    assert bars.count() == 10
    assert sheet.page.locator(".bar.best b").all_inner_texts() == ["0"]
    heights = [
        float(bar.get_attribute("style").split()[1].rstrip("%;"))
        for bar in sheet.page.locator(".level").all()
    ]
    assert sum(heights) == pytest.approx(100, abs=0.1)
    assert max(heights) == heights[0] > 50


def test_two_digits_in_a_row_are_read_and_each_is_shown_as_the_network_saw_it(sheet: Sheet) -> None:
    sheet.draw(STROKE, 0.3)
    sheet.draw(RING, 0.65)
    sheet.reads("10")
    assert sheet.page.locator(".seen button").count() == 2
    lit = sheet.page.eval_on_selector_all(
        ".seen canvas",
        """tiles => tiles.map(tile => [...tile.getContext("2d").getImageData(0, 0, 28, 28).data]
            .filter((value, i) => i % 4 === 0 && value > 127).length)""",
    )
    assert all(20 < count < 400 for count in lit)
    assert lit[0] < lit[1]
    assert sheet.page.locator(".bar.best b").inner_text() == "0"
    sheet.page.mouse.click(*sheet.at((0, 0.5), 0.3))  # on the first one's box
    assert sheet.page.locator(".bar.best b").inner_text() == "1"
    assert sheet.page.locator(".seen button").first.get_attribute("aria-pressed") == "true"
    sheet.press("Undo")  # the click drew nothing
    sheet.reads("1")


def test_undo_takes_back_one_stroke_after_another_and_clearing_too(sheet: Sheet) -> None:
    sheet.says("empty")
    sheet.draw(STROKE, 0.3)
    sheet.draw(RING, 0.65)
    sheet.reads("10")
    sheet.press("Undo")
    sheet.reads("1")
    sheet.press("Clear")
    sheet.says("empty")
    sheet.reads("")
    sheet.page.keyboard.press("Control+z")
    sheet.reads("1")
    sheet.press("Undo")
    sheet.says("empty")
    assert sheet.page.locator(".undo").is_disabled()


def test_an_uploaded_digit_is_read_and_shown(sheet: Sheet) -> None:
    sheet.upload("seven.png", png(7))
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


def test_a_refused_file_is_named_and_its_refusal_replaces_the_answer(
    sheet: Sheet, tmp_path: Path
) -> None:
    sheet.draw(STROKE)
    sheet.reads("1")
    sheet.upload("notes.png", b"no picture at all")
    sheet.says("notes.png cannot be read: not a picture")
    sheet.reads("")
    assert sheet.page.locator(".seen button, .boxes i, .bar.best").count() == 0
    sheet.press("Undo")
    sheet.says("empty")  # the refused file is no step to take back
    sheet.draw(STROKE)
    sheet.reads("1")
    (tmp_path / "huge.png").write_bytes(bytes(service.MAX_BYTES + 1))
    sheet.page.set_input_files("input[type=file]", tmp_path / "huge.png")
    sheet.says("huge.png is too big: at most 20 MB")
    sheet.draw(RING, 0.8)
    sheet.reads("10")
    sheet.forgive("422")


def test_a_server_that_has_gone_is_told(sheet: Sheet) -> None:
    sheet.page.route("**/read?*", lambda route: route.fulfill(status=500, body="{}"))
    sheet.draw(STROKE)
    sheet.says("The server gives no answer")
    sheet.page.unroute("**/read?*")
    sheet.draw(RING, 0.8)
    sheet.reads("10")
    sheet.forgive("500")


@pytest.mark.parametrize("device", [PHONE, SIDEWAYS], ids=["upright", "sideways"])
def test_neither_a_tap_nor_a_swipe_harms_an_uploaded_photograph(
    new_sheet: Callable[..., Sheet], device: dict[str, Any]
) -> None:
    sheet = new_sheet(**device)
    sheet.upload("four.png", png(7, 2, 1, 0))
    sheet.reads("7210")
    sheet.page.touchscreen.tap(*sheet.at((0, 0.9), 0.5))
    sheet.swipe([(0, 0.9), (0, 0.6), (0, 0.1)])
    sheet.page.touchscreen.tap(*sheet.at((0, 0.1), 0.1))
    assert sheet.page.locator(".reader").get_attribute("data-state") == "read"
    sheet.reads("7210")
    # the photograph's boxes choose a digit
    box = sheet.page.locator(".boxes i").nth(1).bounding_box()
    sheet.page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert sheet.page.locator(".bar.best b").inner_text() == "2"
    assert sheet.page.locator(".seen button").nth(1).get_attribute("aria-pressed") == "true"


def test_on_a_phone_a_finger_draws_and_two_scroll_and_leave_no_stroke(
    new_sheet: Callable[..., Sheet],
) -> None:
    sheet = new_sheet(**SMALL)
    assert sheet.page.evaluate("document.documentElement.scrollWidth") == 320
    sheet.swipe([(x + 0.5, y) for x, y in RING])
    sheet.reads("0")
    for height in (0.9, 0.8, 0.6, 0.4, 0.2):
        kind = "touchStart" if height == 0.9 else "touchMove"
        sheet.touch(kind, (0.1, height), (0.3, height))
    sheet.touch("touchEnd")
    sheet.page.wait_for_function("window.scrollY > 20")
    sheet.reads("0")
    sheet.press("Undo")
    sheet.says("empty")


@pytest.mark.parametrize(
    "size", [(320, 568), (390, 844), (568, 320), (844, 390), (1280, 800), (2560, 1440)]
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_sheet_buttons_and_answer_fit_every_screen(
    new_sheet: Callable[..., Sheet], size: tuple[int, int], scheme: str
) -> None:
    width, height = size
    sheet = new_sheet(viewport={"width": width, "height": height}, color_scheme=scheme)
    sheet.draw(STROKE, 0.3)
    sheet.draw(RING, 0.65)
    sheet.reads("10")
    assert sheet.page.evaluate("document.documentElement.scrollWidth") == width
    needed = [".ink", ".undo", ".clear", ".upload", ".reading"]
    if width > height:
        needed += [".seen button", ".bar.best"]
    for name in needed:
        box = sheet.page.locator(name).first.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["y"] + box["height"] <= height, name
    colour = sheet.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", colour)[:3])) > 384) == (scheme == "light")
    assert sheet.page.locator("main").count() == 1


def test_a_picture_that_is_dropped_beside_the_sheet_is_read_too(sheet: Sheet) -> None:
    for target, digit in (("h1", 7), ("body", 2), (".sheet", 0)):
        dropped = sheet.page.evaluate_handle(
            """bytes => {
                const data = new DataTransfer();
                data.items.add(new File([new Uint8Array(bytes)], "digit.png"));
                return data;
            }""",
            list(png(digit)),
        )
        for event in ("dragenter", "dragover", "drop"):
            left = sheet.page.eval_on_selector(
                target,
                """(target, [event, dataTransfer]) => target.dispatchEvent(new DragEvent(
                    event, {dataTransfer, bubbles: true, cancelable: true}))""",
                [event, dropped],
            )
            assert not left  # the browser would open the file in place of the page
        sheet.reads(str(digit))


def test_a_strip_of_more_digits_than_it_shows_says_so(sheet: Sheet) -> None:
    sheet.upload("two.png", png(7, 2))
    sheet.reads("72")
    assert sheet.page.locator(".more").inner_text() == ""
    sheet.upload("many.png", png(*[7, 2, 1, 0] * 3))
    sheet.reads("721072107210")
    assert sheet.page.locator(".more").inner_text() == "(scroll: 12)"
    strip = sheet.page.locator(".seen")
    assert strip.get_attribute("class") == "seen before"
    strip.evaluate("strip => { strip.scrollLeft = 0; }")
    sheet.page.wait_for_selector(".seen.after:not(.before)")
    sheet.page.locator(".boxes i").first.evaluate("() => choose(6)")
    sheet.page.wait_for_selector(".seen.after.before")


def test_the_documentation_page_asks_no_other_machine(sheet: Sheet, url: str) -> None:
    sheet.page.goto(f"{url}/docs")
    for path in ("/read", "/classify", "/health"):
        sheet.page.wait_for_selector(f'[data-path="{path}"]')
