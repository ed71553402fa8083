"""The service: the real server as a process of its own."""

import base64
import contextlib
import io
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mnist_cnn import demo, pretrained
from tests.helpers.photographs import bundled, png
from tests.helpers.process import environment
from tests.helpers.server import post, request, running

pytest.importorskip("fastapi_offline", reason="needs the extra demo")

from mnist_cnn import service

BLANK = [[0] * 28] * 28
SECRET = "not for anybody else"
UPWARDS = (*("../" * depth for depth in (1, 3, 9)), "%2e%2e/" * 9, "..%2f" * 9, "..%5c" * 9, "//")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a running demo."""
    with running(tmp_path_factory.mktemp("server") / "log") as (port, _):
        yield port


def classify(port: int, images: object) -> tuple[int, Any]:
    return post(port, "/classify", json.dumps({"images": images}).encode(), "application/json")


@pytest.mark.parametrize(
    "kind", ["image/png", "application/octet-stream", "application/x-www-form-urlencoded", ""]
)
def test_a_picture_is_read_whatever_it_is_called(port: int, kind: str) -> None:
    status, answer = post(port, "/read", png(7), kind)
    assert (status, answer["text"]) == (200, "7")


def test_images_are_classified_as_the_network_itself_does(port: int) -> None:
    images = bundled("t10k-images-idx3-ubyte", 16).reshape(-1, 28, 28)[:100]
    status, answer = classify(port, images.tolist())
    with torch.no_grad():
        expected = pretrained.load()(torch.from_numpy(images.copy()))
    assert status == 200
    assert answer["digits"] == expected.argmax(1).tolist()
    np.testing.assert_allclose(answer["probabilities"], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        ([], "at least 1 item"),
        ([BLANK] * (service.MAX_IMAGES + 1), "at most 1000 items"),
        ([BLANK[1:]], "at least 28 items"),
        ([[*BLANK[1:], [0] * 29]], "at most 28 items"),
        ([[*BLANK[1:], [256] * 28]], "less than or equal to 255"),
        ([[*BLANK[1:], [0.5] * 28]], "valid integer"),
        ([[*BLANK[1:], ["/etc/hostname"] * 28]], "valid integer"),
        ("/etc/hostname", "valid list"),
    ],
)
def test_what_are_no_images_is_refused_with_its_place(port: int, images: Any, reason: str) -> None:
    status, answer = classify(port, images)
    assert (status, answer.keys()) == (422, {"detail"})
    assert answer["detail"].startswith("body.images")
    assert reason in answer["detail"]


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"/etc/hostname", "not a picture"),
        (png(7)[:-100], "damaged"),
    ],
)
def test_what_is_no_picture_is_refused_with_a_sentence(port: int, sent: bytes, reason: str) -> None:
    status, answer = post(port, "/read", sent)
    assert (status, answer.keys()) == (422, {"detail"})
    assert reason in answer["detail"]


def test_the_schemas_describe_what_is_sent_and_answered(port: int) -> None:
    schema = json.loads(request(port, "GET", "/openapi.json")[1])
    assert schema["paths"].keys() == {"/read", "/classify", "/health"}
    sent = schema["paths"]["/read"]["post"]["requestBody"]["content"]
    assert [*sent] == ["application/octet-stream"]
    shapes = schema["components"]["schemas"]
    assert shapes["Images"]["properties"]["images"]["maxItems"] == service.MAX_IMAGES
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


def test_pdfs_of_several_clients_are_read_at_once(port: int) -> None:
    page = io.BytesIO()
    Image.open(io.BytesIO(png(7))).resize((480, 480)).save(page, "PDF")
    with ThreadPoolExecutor(8) as clients:
        answers = [clients.submit(post, port, "/read", page.getvalue()) for _ in range(6)]
    assert {answer.result()[1]["text"] for answer in answers} == {"7"}


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_what_has_arrived_is_answered_before_the_server_ends(
    tmp_path: Path, stop: signal.Signals
) -> None:
    large = io.BytesIO()
    Image.new("L", (8000, 8000), "white").save(large, "PNG")
    sent = large.getvalue()
    with contextlib.suppress(AssertionError), running(tmp_path / "log") as (port, server):
        with ThreadPoolExecutor(4) as clients:
            answers = [clients.submit(post, port, "/read?preview=true", sent) for _ in "1234"]
            time.sleep(0.3)
            server.send_signal(stop)
            results = [answer.result() for answer in answers]
        server.wait(20)
    assert [status for status, _ in results] == [200] * 4
    assert server.returncode == (0 if stop == signal.SIGINT else -signal.SIGTERM)
    assert (tmp_path / "log").read_text() == ""


def test_the_page_refuses_what_the_server_would() -> None:
    script = (service.PAGE / "server.js").read_text("utf-8")
    assert f"const MAX_BYTES = {service.MAX_BYTES:_};" in script


@pytest.mark.parametrize("start", ["/", "/read/", "/docs/", "/static-offline-docs/", "/file="])
def test_no_path_leads_to_a_file(port: int, tmp_path: Path, start: str) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET)
    here = str(secret).lstrip("/")
    for way in (f"/{here}", *(upwards + here for upwards in UPWARDS)):
        for method in ("GET", "HEAD", "POST"):
            status, content = request(port, method, start + way)
            assert SECRET.encode() not in content
            assert status >= 400, start + way
    for path in ("/../demo.py", "/%2e%2e/reader.py", "/..%2freader.py", "/__init__.py"):
        assert request(port, "GET", path)[0] == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "X"])
def test_other_methods_are_refused(port: int, method: str) -> None:
    for path in ("/", "/read", "/classify", "/health", "/page.js", "/docs"):
        assert request(port, method, path)[0] in (400, 404, 405)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
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


def test_on_all_addresses_it_answers_to_the_names_that_are_allowed(tmp_path: Path) -> None:
    arguments = ("--host", "0.0.0.0", "--allow-host", "digits.example")
    with running(tmp_path / "log", *arguments) as (port, _):
        for host, status in (("digits.example", 200), ("localhost", 200), ("evil.example", 400)):
            assert request(port, "GET", "/health", None, {"Host": host})[0] == status
    assert demo.accepted("0.0.0.0", []) == {"127.0.0.1", "localhost", "::1", "[::1]"}


def test_a_request_that_is_too_long_is_not_taken_in(port: int) -> None:
    start = b"POST /read HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    for headers, code in (
        (b"Content-Length: %d\r\n" % (service.MAX_BYTES + 1), b" 413 "),
        (b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", b" 411 "),  # the first is a lie
        (b"Content-Length: -1\r\n", b" 400 "),
        (b"Content-Length: x\r\n", b" 400 "),
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(start + headers + b"\r\n")
            assert code in client.recv(100)
    assert request(port, "POST", "/read", iter([b"{}"]))[0] == 411


def test_a_body_that_does_not_arrive_leaves_the_server_to_others(port: int) -> None:
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(service.MAX_BODIES - 1)]
    for client in slow:
        client.sendall(b"POST /read HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\nx")
    assert post(port, "/read", png(7))[0] == 200
    assert request(port, "GET", "/health") == (200, b'{"status":"ok"}')
    for client in slow:
        client.close()  # in the middle: neither a traceback nor a place that stays taken
    for _ in range(service.MAX_BODIES):
        assert post(port, "/read", png(7))[0] == 200


def sevens(x: Tensor) -> Tensor:
    """Stands for a network: holds everything for a 7."""
    return torch.eye(10)[7].expand(len(x), 10)


def test_an_answer_says_what_was_read_where_and_from_which_image() -> None:
    answer = service.answer(sevens, png(7), preview=True)
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


def run(*arguments: str) -> str:
    """What a demo that fails prints to standard error."""
    command = [sys.executable, "-m", "mnist_cnn.demo", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment())
    assert done.returncode in (1, 2)
    return done.stderr


def test_mistakes_are_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no checkpoint")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert re.fullmatch(rf"error: --port {port} of .+ in use.*\n", run("--port", str(port)))
    line = run("--port", "0", f"ckpt_path={tmp_path}/notes.txt")
    assert re.fullmatch(r"error: .+: not a checkpoint .+\n", line)
    assert run("--port", "99999").endswith("error: --port must be 0 to 65535, got 99999\n")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(SystemExit, match=r"error: uvicorn not installed: pip install .*\[demo\]"):
        demo.main(["--port", "0"])
