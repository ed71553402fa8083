"""The page to draw on: the real server as a process of its own, and a real browser."""

import base64
import http.client
import io
import itertools
import json
import math
import os
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

pytest.importorskip("gradio", reason="needs the extra demo")

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

# Gradio leaves an event loop unclosed when it is imported
WARNINGS = ("-W", "error", "-W", "ignore:unclosed:ResourceWarning")

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


@pytest.fixture(scope="module")
def url(checkpoint: Path, log: Path) -> Iterator[str]:
    """The address of a running demo."""
    arguments = ["--checkpoint", str(checkpoint), "--port", "0"]
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, *WARNINGS, "-c", WATCHED, *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=Path(__file__).parents[1],
        )
    assert process.stdout is not None
    said = process.stdout.readline()
    address = re.search(r"http://127\.0\.0\.1:\d+", said)
    assert address, said + log.read_text()
    yield address[0]
    process.send_signal(signal.SIGINT)
    process.wait(20)
    process.stdout.close()
    assert process.returncode == 0
    assert log.read_text() == ""  # neither a traceback nor a word to another machine


class Sheet:
    """A page of the demo and the hand that draws on it."""

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


def as_url(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


# --- in the browser -------------------------------------------------------------------------------


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
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    sheet = new_sheet(**phone, device_scale_factor=2)
    assert sheet.page.evaluate("document.documentElement.scrollWidth") == 390
    session = sheet.page.context.new_cdp_session(sheet.page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        places = [dict(zip("xy", sheet.at(point, 0.5), strict=True)) for point in points]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    touch("touchStart", RING[0])
    for point in RING[1:]:
        touch("touchMove", point)
    touch("touchEnd")
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


def test_a_file_that_is_no_picture_or_too_big_is_refused_and_the_sheet_stays(
    sheet: Sheet, tmp_path: Path
) -> None:
    sheet.draw(STROKE)
    sheet.reads("1")
    sheet.upload("notes.png", b"no picture at all")
    sheet.says("This cannot be read: not a picture")
    (tmp_path / "huge.png").write_bytes(bytes(demo.MAX_BYTES + 1))
    sheet.page.set_input_files("input[type=file]", tmp_path / "huge.png")
    sheet.says("huge.png is too big: at most 20 MB")
    sheet.draw(RING, 0.8)
    sheet.reads("10")


def test_a_server_that_has_gone_is_told(sheet: Sheet) -> None:
    sheet.page.route("**/component_server/", lambda route: route.fulfill(status=500, body="{}"))
    sheet.draw(STROKE)
    sheet.says("The server gives no answer")
    sheet.page.unroute("**/component_server/")
    sheet.draw(RING, 0.8)
    sheet.reads("10")
    # the browser tells of the failed requests in its console, and so does Gradio
    assert all(what.startswith("console: ") for what in sheet.wrong)
    sheet.wrong.clear()


# --- the server -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def post(url: str) -> Callable[[object, str], Any]:
    """Sends what the page would send and returns the answer."""
    port = urlsplit(url).port
    config = request(port, "GET", "/config")[1]
    component = next(c["id"] for c in json.loads(config)["components"] if c["type"] == "html")

    def send(data: object, session: str) -> Any:
        body = {"data": data, "component_id": component, "session_hash": session}
        status, content = request(
            port,
            "POST",
            "/gradio_api/component_server/",
            json.dumps({**body, "fn_name": "read_picture"}),
            {"Content-Type": "application/json"},
        )
        assert status == 200
        return json.loads(content)

    return send


def request(port: int | None, method: str, path: str, *content: Any) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, *content)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.mark.slow
def test_twenty_clients_at_once_each_get_their_own_digit_back(
    post: Callable[[object, str], Any],
) -> None:
    """For SECONDS=60 as well as for the two here, 20 clients at once, each with its own picture."""
    digits = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    pictures = [as_url(png(digit)) for digit in digits]
    alone = [post(picture, "alone")["digits"] for picture in pictures]
    assert len({json.dumps(answer) for answer in alone}) == 10
    seconds = float(os.environ.get("SECONDS", 2))
    end = time.monotonic() + seconds

    def client(number: int) -> list[float]:
        waits: list[float] = []
        while time.monotonic() < end:
            digit = (number + len(waits)) % 10
            start = time.monotonic()
            assert post(pictures[digit], f"client {number}")["digits"] == alone[digit]
            waits.append(time.monotonic() - start)
        return waits

    with ThreadPoolExecutor(20) as clients:
        waits = sorted(itertools.chain(*clients.map(client, range(20))))
    print(f"{len(waits):,} answers, median {waits[len(waits) // 2]:.2f} s, longest {waits[-1]:.2f}")
    assert len(waits) >= 20


def test_only_what_the_page_needs_is_served(url: str) -> None:
    port = urlsplit(url).port
    for path in (
        "/gradio_api/file=/etc/hostname",
        "/gradio_api/proxy=http://127.0.0.1/",
        "/gradio_api/upload",
        "/gradio_api/queue/join",
        "/gradio_api/vibe-edit/",
        "/monitoring",
    ):
        assert request(port, "GET", path)[0] == 404
        assert request(port, "POST", path, b"{}")[0] == 404
    assert request(port, "GET", "/static/../../../../../../etc/hostname")[0] in (403, 404)
    assert request(port, "GET", "/assets/%2e%2e/%2e%2e/index.html")[0] in (403, 404)


SECRET = "not for anybody else"
UPWARDS = (*("../" * depth for depth in (1, 3, 9)), "%2e%2e/" * 9, "..%2f" * 9, "..%5c" * 9, "//")


def test_no_path_leads_to_a_file(url: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET)
    port = urlsplit(url).port
    here = str(secret).lstrip("/")
    for start in (
        *("/", "/assets/", "/static/", "/static/img/", "/gradio_api/heartbeat/"),
        *("/gradio_api/file=", "/gradio_api/file/", "/file=", "/gradio_api/stream/"),
        *("/gradio_api/component_server/", "/custom_component/x/client/component/", "/svelte/"),
    ):
        for way in (f"/{here}", *(upwards + here for upwards in UPWARDS)):
            for method in ("GET", "HEAD", "POST"):
                status, content = request(port, method, start + way)
                assert SECRET.encode() not in content
                assert status >= 400 or b"<html" in content or "heartbeat" in start


@pytest.mark.parametrize("name", ["../../evil.txt", "/evil.txt", "evil.txt"])
def test_no_upload_is_written(url: str, name: str) -> None:
    body = (
        f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        f"{SECRET}\r\n--x--\r\n"
    )
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    port = urlsplit(url).port
    for path, refused in (("/gradio_api/upload", 404), ("/gradio_api/component_server/", 422)):
        assert request(port, "POST", path, body, kind)[0] == refused


@pytest.mark.parametrize(
    "change",
    [
        {"fn_name": "__class__"},
        {"fn_name": "os.system"},
        {"fn_name": "preprocess"},
        {"component_id": 999},
        {"component_id": "../../etc/passwd"},
        {"session_hash": None},
        {"event_data": {}},
        {"data": {"path": "/etc/hostname", "meta": {"_type": "gradio.FileData"}}},
        {"data": [{"path": "/etc/hostname", "url": "file:///etc/hostname"}]},
    ],
)
def test_a_request_can_name_neither_code_nor_a_file(url: str, change: Any) -> None:
    port = urlsplit(url).port
    config = json.loads(request(port, "GET", "/config")[1])
    component = next(c["id"] for c in config["components"] if c["type"] == "html")
    sound = {"data": as_url(png(7)), "component_id": component, "fn_name": "read_picture"}
    body = json.dumps({**sound, "session_hash": "s", **change})
    kind = {"Content-Type": "application/json"}
    status, content = request(port, "POST", "/gradio_api/component_server/", body, kind)
    if "data" in change:
        assert "did not arrive as a file" in json.loads(content)["refused"]
    else:
        assert status == 422
    assert socket.gethostname().encode() not in content


def test_a_request_that_is_too_long_is_not_taken_in(url: str) -> None:
    with socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), timeout=10) as client:
        client.sendall(
            b"POST /gradio_api/component_server/ HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Content-Length: %d\r\n\r\n" % (demo.MAX_BODY + 1)
        )
        assert b" 413 " in client.recv(100)
    chunks = iter([b"{}"])
    port = urlsplit(url).port
    assert request(port, "POST", "/gradio_api/component_server/", chunks)[0] == 411
    with socket.create_connection(("127.0.0.1", port or 0), timeout=10) as client:
        client.sendall(  # a length that is not that of the body
            b"POST /gradio_api/component_server/ HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        assert b" 411 " in client.recv(100)


# --- any input gets an answer ---------------------------------------------------------------------


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
        (None, "did not arrive as a file"),
        (["data:image/png;base64,"], "did not arrive as a file"),
        ("/etc/hostname", "did not arrive as a file"),
        ("file:///etc/hostname,", "did not arrive as a file"),
        ("data:image/png;base64,???", "arrived damaged"),
        ("data:image/png;base64,é", "arrived damaged"),
        (as_url(b""), "not a picture"),
        (as_url(png(7)[:-100]), "damaged"),
        (as_url(vast()), "megapixels"),
    ],
)
def test_what_is_no_picture_is_refused_with_a_sentence(sent: object, reason: str) -> None:
    answer = demo.answer(sevens, sent, preview=True)
    assert answer["refused"].startswith("This cannot be read: ")
    assert reason in answer["refused"]
    assert answer["digits"] == []


def test_a_file_over_the_limit_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "MAX_BYTES", len(png(7)) - 1)
    assert "over 0 MB" in demo.answer(sevens, as_url(png(7)), preview=True)["refused"]


def test_an_answer_says_what_was_read_where_and_from_which_image() -> None:
    answer = demo.answer(sevens, as_url(png(7)), preview=True)
    assert (answer["text"], answer["refused"]) == ("7", None)
    assert answer["preview"].startswith("data:image/jpeg;base64,")
    (digit,) = answer["digits"]
    assert (digit["digit"], digit["best"]) == (7, 7)
    assert digit["probabilities"] == [0, 0, 0, 0, 0, 0, 0, 1, 0, 0]
    left, top, right, bottom = digit["box"]
    assert 0 <= left < right <= 1
    assert 0 <= top < bottom <= 1
    seen = np.frombuffer(base64.b64decode(digit["image"]), np.uint8).reshape(28, 28)
    assert seen.max() > 200


# --- the command ----------------------------------------------------------------------------------


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
    monkeypatch.setattr(demo, "NEEDED", ("no_such_module", "gradio"))
    with pytest.raises(SystemExit) as end:
        demo.main()
    assert end.value.code == f"error: no_such_module not installed: {install('demo')}"
