"""The page and the service: the real server as a process of its own, and a real browser."""

import base64
import contextlib
import http.client
import io
import json
import math
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mnist_cnn import demo, pretrained
from mnist_cnn.config.compose import compose
from mnist_cnn.config.messages import install
from mnist_cnn.train import train
from tests.helpers.photographs import bundled

pytest.importorskip("fastapi_offline", reason="needs the extra demo")

# the demo, telling of each address outside this machine that it turns to
WATCHED = """
import sys
def watch(event, args):
    if event == "socket.getaddrinfo":
        address = args[0]
    elif event in ("socket.connect", "socket.sendto") and isinstance(args[1], tuple):
        address = args[1][0]
    else:
        return
    if address not in ("127.0.0.1", "localhost", None):
        print("outside:", address, file=sys.stderr, flush=True)
sys.addaudithook(watch)
from mnist_cnn.demo import main
main()
"""

WARNINGS = ("-W", "error")

Points = list[tuple[float, float]]  # in shares of the sheet's width and height
STROKE: Points = [(0, 0.2), (0, 0.8)]
RING: Points = [(0.11 * math.sin(t / 3), 0.5 - 0.28 * math.cos(t / 3)) for t in range(20)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """The shipped network, or where there is none yet, one that has seen 25,600 digits."""
    if pretrained.SHIPPED.exists():
        return pretrained.SHIPPED
    folder = tmp_path_factory.mktemp("trained")
    short = ["trainer.max_epochs=1", "trainer.limit_train_batches=400", "test=false"]
    train(compose(["trainer.accelerator=cpu", *short], run_dir=folder, run_name="trained"))
    return folder


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server") / "log"


@contextlib.contextmanager
def running(checkpoint: Path, log: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A demo with its address; it is to print nothing to standard error."""
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, *WARNINGS, "-c", WATCHED, f"ckpt_path={checkpoint}", "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=Path(__file__).parents[1],
        )
    assert process.stdout is not None
    try:
        printed = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+", printed)
        assert address, printed + log.read_text()
        yield address[0], process
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert log.read_text() == ""  # neither a traceback nor a word to another machine
    finally:
        process.kill()
        process.stdout.close()


@pytest.fixture(scope="module")
def url(checkpoint: Path, log: Path) -> Iterator[str]:
    """The address of a running demo."""
    with running(checkpoint, log) as (address, _):
        yield address


@pytest.fixture(scope="module")
def port(url: str) -> int:
    return urlsplit(url).port or 0


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


def png(digit: int) -> bytes:
    """The first test image of a digit, as a PNG file."""
    labels = bundled("t10k-labels-idx1-ubyte", 8)
    images = bundled("t10k-images-idx3-ubyte", 16).reshape(-1, 28, 28)
    file = io.BytesIO()
    Image.fromarray(images[int(np.argmax(labels == digit))]).save(file, "PNG")
    return file.getvalue()


# in the browser


def test_a_drawn_1_and_a_drawn_0_are_read(sheet: Sheet) -> None:
    sheet.draw(STROKE)
    sheet.reads("1")
    sheet.press("Clear")
    sheet.says("empty")
    sheet.draw(RING)
    sheet.reads("0")
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
    sheet.page.locator(".seen button").first.click()
    assert sheet.page.locator(".bar.best b").inner_text() == "1"


def test_the_reading_appears_before_the_stroke_ends(sheet: Sheet) -> None:
    sheet.draw(RING, lift=False)
    sheet.reads("0")


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


def test_a_finger_draws_on_a_phone(new_sheet: Callable[..., Sheet]) -> None:
    sheet = new_sheet(**PHONE, device_scale_factor=2)
    assert sheet.page.evaluate("document.documentElement.scrollWidth") == 390
    sheet.swipe([(x + 0.5, y) for x, y in RING])
    sheet.reads("0")


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
    (tmp_path / "huge.png").write_bytes(bytes(demo.MAX_BYTES + 1))
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


PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
SIDEWAYS = {**PHONE, "viewport": {"width": 667, "height": 375}}


def row_of(*digits: int) -> bytes:
    """Test images side by side on a black picture, as a PNG file."""
    row = Image.new("L", (40 * len(digits) + 20, 48))
    for place, digit in enumerate(digits):
        row.paste(Image.open(io.BytesIO(png(digit))), (40 * place + 16, 10))
    file = io.BytesIO()
    row.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("device", [PHONE, SIDEWAYS], ids=["upright", "sideways"])
def test_neither_a_tap_nor_a_swipe_harms_an_uploaded_photograph(
    new_sheet: Callable[..., Sheet], device: dict[str, Any]
) -> None:
    sheet = new_sheet(**device)
    sheet.upload("four.png", row_of(7, 2, 1, 0))
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


def test_a_swipe_over_a_photograph_scrolls_the_page(new_sheet: Callable[..., Sheet]) -> None:
    sheet = new_sheet(**{**PHONE, "viewport": {"width": 320, "height": 480}})
    sheet.upload("seven.png", png(7))
    sheet.reads("7")
    sheet.swipe([(0, 0.9), (0, 0.6), (0, 0.3), (0, 0.1)])
    sheet.page.wait_for_function("window.scrollY > 20")
    sheet.reads("7")


def test_two_fingers_scroll_and_leave_no_stroke(new_sheet: Callable[..., Sheet]) -> None:
    sheet = new_sheet(**{**PHONE, "viewport": {"width": 320, "height": 480}})
    sheet.draw(STROKE, 0.3)
    sheet.reads("1")
    for height in (0.9, 0.8, 0.6, 0.4, 0.2):
        kind = "touchStart" if height == 0.9 else "touchMove"
        sheet.touch(kind, (0.1, height), (0.3, height))
    sheet.touch("touchEnd")
    sheet.page.wait_for_function("window.scrollY > 20")
    sheet.reads("1")
    sheet.press("Undo")
    sheet.says("empty")


def test_a_click_on_a_drawn_digits_box_chooses_it(sheet: Sheet) -> None:
    sheet.draw(STROKE, 0.3)
    sheet.draw(RING, 0.65)
    sheet.reads("10")
    sheet.page.mouse.move(*sheet.at((0, 0.5), 0.3))
    assert sheet.page.eval_on_selector(".ink", "ink => getComputedStyle(ink).cursor") == "pointer"
    sheet.page.mouse.click(*sheet.at((0, 0.5), 0.3))
    assert sheet.page.locator(".bar.best b").inner_text() == "1"
    sheet.press("Undo")  # the click drew nothing
    sheet.reads("1")


@pytest.mark.parametrize(
    "size", [(320, 568), (390, 844), (568, 320), (667, 375), (844, 390), (1280, 800), (2560, 1440)]
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
    sheet.upload("two.png", row_of(7, 2))
    sheet.reads("72")
    assert sheet.page.locator(".more").inner_text() == ""
    sheet.upload("many.png", row_of(*[7, 2, 1, 0] * 3))
    sheet.reads("721072107210")
    assert sheet.page.locator(".more").inner_text() == "(scroll: 12)"
    strip = sheet.page.locator(".seen")
    assert strip.get_attribute("class") == "seen before"
    strip.evaluate("strip => { strip.scrollLeft = 0; }")
    sheet.page.wait_for_selector(".seen.after:not(.before)")
    sheet.page.locator(".boxes i").first.evaluate("() => choose(6)")
    sheet.page.wait_for_selector(".seen.after.before")


def test_the_keyboard_reaches_buttons_files_and_digits(sheet: Sheet) -> None:
    sheet.draw(STROKE, 0.3)
    sheet.draw(RING, 0.65)
    sheet.reads("10")
    reached = []
    for _ in range(5):
        sheet.page.keyboard.press("Tab")
        reached.append(
            sheet.page.evaluate(
                "document.activeElement.ariaLabel || document.activeElement.innerText"
            )
        )
    assert reached[:3] == ["Undo", "Clear", "Read a picture"]
    assert reached[3].startswith("Read as 1, ")
    assert reached[4].startswith("Read as 0, ")
    sheet.page.keyboard.press("Shift+Tab")
    sheet.page.keyboard.press("Enter")
    assert sheet.page.locator(".bar.best b").inner_text() == "1"


def test_the_documentation_page_asks_no_other_machine(sheet: Sheet, url: str) -> None:
    sheet.page.goto(f"{url}/docs")
    for path in ("/read", "/classify", "/health"):
        sheet.page.wait_for_selector(f'[data-path="{path}"]')


# the server


def request(port: int, method: str, path: str, *content: Any) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, *content)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def post(port: int, path: str, body: bytes, kind: str = "image/png") -> tuple[int, Any]:
    status, content = request(port, "POST", path, body, {"Content-Type": kind})
    return status, json.loads(content)


def classify(port: int, images: object) -> tuple[int, Any]:
    return post(port, "/classify", json.dumps({"images": images}).encode(), "application/json")


def test_a_picture_is_read_whatever_it_is_called(port: int) -> None:
    for kind in ("image/png", "application/octet-stream", "application/x-www-form-urlencoded", ""):
        status, answer = post(port, "/read", png(7), kind)
        assert (status, answer["text"]) == (200, "7")


def test_images_are_classified_as_the_network_itself_does(
    port: int, checkpoint: Path, data_root: Path
) -> None:
    images = bundled("t10k-images-idx3-ubyte", 16).reshape(-1, 28, 28)[:100]
    status, answer = classify(port, images.tolist())
    with torch.no_grad():
        expected = pretrained.load(checkpoint)(torch.from_numpy(images.copy()))
    assert status == 200
    assert answer["digits"] == expected.argmax(1).tolist()
    np.testing.assert_allclose(answer["probabilities"], expected, rtol=0, atol=1e-5)


BLANK = [[0] * 28] * 28


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        ([], "at least 1 item"),
        ([BLANK] * (demo.MAX_IMAGES + 1), "at most 1000 items"),
        ([BLANK[1:]], "at least 28 items"),
        ([[*BLANK[1:], [0] * 29]], "at most 28 items"),
        ([[*BLANK[1:], [256] * 28]], "less than or equal to 255"),
        ([[*BLANK[1:], [-1] * 28]], "greater than or equal to 0"),
        ([[*BLANK[1:], [0.5] * 28]], "valid integer"),
        ([[*BLANK[1:], ["/etc/hostname"] * 28]], "valid integer"),
        ("/etc/hostname", "valid list"),
        (None, "valid list"),
    ],
)
def test_what_are_no_images_is_refused_with_its_place(port: int, images: Any, reason: str) -> None:
    status, answer = classify(port, images)
    assert status == 422
    assert answer.keys() == {"detail"}
    assert answer["detail"].startswith("body.images")
    assert reason in answer["detail"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_refused(port: int, body: bytes) -> None:
    status, answer = post(port, "/classify", body, "application/json")
    assert status in (400, 422)
    assert answer.keys() == {"detail"}


def test_the_schemas_describe_what_is_sent_and_answered(port: int) -> None:
    schema = json.loads(request(port, "GET", "/openapi.json")[1])
    assert schema["paths"].keys() == {"/read", "/classify", "/health"}
    sent = schema["paths"]["/read"]["post"]["requestBody"]["content"]
    assert [*sent] == ["application/octet-stream"]
    shapes = schema["components"]["schemas"]
    assert shapes["Images"]["properties"]["images"]["maxItems"] == demo.MAX_IMAGES
    assert shapes["PictureRead"]["properties"].keys() == {"text", "digits", "preview"}


@pytest.mark.slow
def test_twenty_clients_at_once_each_get_their_own_digit_back(port: int) -> None:
    pictures = [png(digit) for digit in range(10)]
    alone = [post(port, "/read", picture) for picture in pictures]
    assert len({json.dumps(answer) for answer in alone}) == 10

    def client(number: int) -> None:
        for turn in range(10):
            digit = (number + turn) % 10
            assert post(port, "/read", pictures[digit]) == alone[digit]

    with ThreadPoolExecutor(20) as clients:
        list(clients.map(client, range(20)))


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_what_has_arrived_is_answered_before_the_server_ends(
    checkpoint: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    with (
        contextlib.suppress(AssertionError),
        running(checkpoint, tmp_path / "log") as (url, server),
    ):
        port = urlsplit(url).port or 0
        large = io.BytesIO()
        Image.new("L", (8000, 8000), "white").save(large, "PNG")
        with ThreadPoolExecutor(4) as clients:
            answers = [
                clients.submit(post, port, "/read?preview=true", large.getvalue()) for _ in "1234"
            ]
            time.sleep(0.3)
            server.send_signal(stop)
            results = [answer.result() for answer in answers]
        server.wait(20)
    assert [status for status, _ in results] == [200] * 4
    assert server.returncode == (0 if stop == signal.SIGINT else -signal.SIGTERM)
    assert (tmp_path / "log").read_text() == ""


def test_the_page_refuses_what_the_server_would() -> None:
    script = (demo.PAGE / "server.js").read_text("utf-8")
    assert f"const MAX_BYTES = {demo.MAX_BYTES:_};" in script


def test_pages_of_several_clients_are_read_at_once(port: int) -> None:
    page = io.BytesIO()
    Image.open(io.BytesIO(png(7))).resize((280, 280)).save(page, "PDF")
    with ThreadPoolExecutor(8) as clients:
        answers = [clients.submit(post, port, "/read", page.getvalue()) for _ in range(6)]
    assert {answer.result()[1]["text"] for answer in answers} == {"7"}


SECRET = "not for anybody else"
UPWARDS = (*("../" * depth for depth in (1, 3, 9)), "%2e%2e/" * 9, "..%2f" * 9, "..%5c" * 9, "//")


def test_no_path_leads_to_a_file(port: int, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET)
    here = str(secret).lstrip("/")
    for start in (
        "/",
        "/read/",
        "/docs/",
        "/static-offline-docs/",
        "/page.css/",
        "/file=",
        "/read?",
    ):
        for way in (f"/{here}", *(upwards + here for upwards in UPWARDS)):
            for method in ("GET", "HEAD", "POST"):
                status, content = request(port, method, start + way)
                assert SECRET.encode() not in content
                assert status >= 400, start + way
    for path in ("/../demo.py", "/%2e%2e/reader.py", "/..%2freader.py", "/__init__.py"):
        assert request(port, "GET", path)[0] == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "X"])
@pytest.mark.parametrize("path", ["/", "/read", "/classify", "/health", "/page.js", "/docs"])
def test_other_methods_are_refused(port: int, method: str, path: str) -> None:
    assert request(port, method, path)[0] in (400, 404, 405)


@pytest.mark.parametrize("name", ["../../evil.txt", "/evil.txt", "evil.txt"])
def test_no_upload_is_written(port: int, name: str) -> None:
    body = (
        f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        f"{SECRET}\r\n--x--\r\n"
    )
    status, answer = post(port, "/read", body.encode(), "multipart/form-data; boundary=x")
    assert (status, answer["detail"].partition(",")[0]) == (422, "not a picture")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 400),
        ({"Host": "evil.example:7860"}, 400),
        ({"Host": ""}, 400),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Host": "localhost"}, 200),
        ({"Host": "localhost:7860", "Origin": "http://localhost:7860"}, 200),
        ({"Host": "[::1]:7860", "Origin": "http://[::1]:7860"}, 200),
    ],
)
def test_neither_another_sites_page_nor_another_name_reaches_it(
    port: int, headers: dict[str, str], status: int
) -> None:
    assert request(port, "POST", "/read", png(7), headers)[0] == status
    assert request(port, "GET", "/", None, headers)[0] == status


def test_a_request_that_is_too_long_is_not_taken_in(port: int) -> None:
    start = b"POST /read HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    for headers, code in (
        (b"Content-Length: %d\r\n" % (demo.MAX_BYTES + 1), b" 413 "),
        (b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", b" 411 "),  # the first is a lie
        (b"Content-Length: -1\r\n", b" 400 "),
        (b"Content-Length: x\r\n", b" 400 "),
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(start + headers + b"\r\n")
            assert code in client.recv(100)
    assert request(port, "POST", "/read", iter([b"{}"]))[0] == 411


def test_a_body_that_does_not_arrive_leaves_the_server_to_others(port: int) -> None:
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(demo.MAX_BODIES - 1)]
    for client in slow:
        client.sendall(b"POST /read HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\nx")
    assert post(port, "/read", png(7))[0] == 200
    assert request(port, "GET", "/health") == (200, b'{"status":"ok"}')
    for client in slow:
        client.close()  # in the middle: neither a traceback nor a place that stays taken
    for _ in range(demo.MAX_BODIES):
        assert post(port, "/read", png(7))[0] == 200


# any input gets an answer


def sevens(x: Tensor) -> Tensor:
    """Stands for a network: holds everything for a 7."""
    return torch.eye(10)[7].expand(len(x), 10)


def vast() -> bytes:
    """A PNG of a few bytes that would be 40 gigapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 200_000, 200_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"/etc/hostname", "not a picture"),
        (png(7)[:-100], "damaged"),
        (vast(), "megapixels"),
    ],
)
def test_what_is_no_picture_is_refused_with_a_sentence(port: int, sent: bytes, reason: str) -> None:
    status, answer = post(port, "/read", sent)
    assert (status, answer.keys()) == (422, {"detail"})
    assert reason in answer["detail"]


def test_an_answer_says_what_was_read_where_and_from_which_image() -> None:
    answer = demo.answer(sevens, png(7), preview=True)
    assert answer.text == "7"
    assert (answer.preview or "").startswith("data:image/jpeg;base64,")
    (digit,) = answer.digits
    assert (digit.digit, digit.sign, digit.best) == (7, "7", 7)
    assert digit.probabilities == [0, 0, 0, 0, 0, 0, 0, 1, 0, 0]
    left, top, right, bottom = digit.box
    assert 0 <= left < right <= 1
    assert 0 <= top < bottom <= 1
    seen = np.frombuffer(base64.b64decode(digit.image), np.uint8).reshape(28, 28)
    assert seen.max() > 200


# the command


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mnist_cnn.demo", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[1],
    )


def test_a_port_in_use_is_told_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("--port", str(port))
    assert result.returncode == 1
    assert (
        result.stderr == f"error: port {port} of 127.0.0.1 is in use: choose another with --port\n"
    )


def test_a_port_that_does_not_exist_is_refused() -> None:
    result = run("--port", "99999")
    assert result.returncode == 2
    assert result.stderr.endswith("error: --port must be 0 to 65535, got 99999\n")


def test_a_wrong_checkpoint_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no checkpoint")
    result = run("--port", "0", f"ckpt_path={tmp_path}/notes.txt")
    assert result.returncode == 1
    assert "not a checkpoint" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_missing_extra_names_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["demo"])
    monkeypatch.setattr(demo, "NEEDED", ("no_such_module", "uvicorn"))
    with pytest.raises(SystemExit) as end:
        demo.main()
    assert end.value.code == f"error: no_such_module not installed: {install('demo')}"
