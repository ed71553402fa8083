"""The service, with the real server in a subprocess."""

import asyncio
import base64
import contextlib
import http.client
import io
import json
import signal
import socket
import sys
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from mnist_cnn import demo, predict
from mnist_cnn.data.drawn.photographs import digits_of
from mnist_cnn.weights import predictor
from tests.helpers.classifier import save_classifier
from tests.helpers.pictures import png
from tests.helpers.server import post, request, running

pytest.importorskip("fastapi_offline", reason="needs the extra demo")

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from mnist_cnn.reading import arrivals, service

BLANK = [[0] * 28] * 28
SECRET = "not for anybody else"
UPWARDS = (*("../" * depth for depth in (1, 3, 9)), "%2e%2e/" * 9, "..%2f" * 9, "..%5c" * 9, "//")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Run a demo, and yield its port."""
    log = tmp_path_factory.mktemp("server") / "log"
    with running(log, "--max-seconds", "8") as (port, _):
        yield port


def classify(port: int, images: object) -> tuple[int, Any]:
    return post(port, "/classify", json.dumps({"images": images}).encode(), "application/json")


def test_images_are_classified_as_the_network_itself_does(port: int) -> None:
    images = digits_of("test")[0][:100]
    status, answer = classify(port, images.tolist())
    with torch.no_grad():
        expected = predictor.load()(torch.from_numpy(images))
    assert status == 200
    assert answer["digits"] == expected.argmax(1).tolist()
    np.testing.assert_allclose(answer["probabilities"], expected, rtol=0, atol=1e-5)


def test_a_network_of_other_classes_classifies_pictures_and_images(tmp_path: Path) -> None:
    path = save_classifier(tmp_path, 3, 24, 32)
    net = predictor.load(path)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 24, 32), np.uint8)
    with running(tmp_path / "log", f"ckpt_path={path}") as (port, _):
        status, answer = post(port, "/read?preview=true", png(3, 5))
        arrays = classify(port, images.tolist())
        refused = classify(port, images[:, :, :7].tolist())
    assert status == 200
    assert answer["preview"].startswith("data:image/jpeg;base64,")
    found = [(each["name"], each["probability"]) for each in answer["classes"]]
    expected = net.classify(png(3, 5))
    assert [name for name, _ in found] == [name for name, _ in expected]
    np.testing.assert_allclose([p for _, p in found], [p for _, p in expected], atol=1e-4)
    seen = Image.open(io.BytesIO(base64.b64decode(answer["image"].partition(",")[2])))
    assert np.array_equal(np.array(seen), net.image_of(png(3, 5)).permute(1, 2, 0))
    named = [[each["name"] for each in every] for every in arrays[1]["classes"]]
    assert named == [[name for name, _ in net.named(p)] for p in net(images)]
    assert refused == (422, {"detail": ANY})


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        ([], "at least 1 item"),
        ([BLANK] * (service.MAX_IMAGES + 1), "at most 1000 items"),
        ([BLANK[1:]], "at least 28 items"),
        ([[*BLANK[1:], [0] * 29]], "at most 28 items"),
        ([[*BLANK[1:], [256] * 28]], "less than or equal to 255"),
        ([[*BLANK[1:], [0.5] * 28]], "multiple of 1"),
        ([[*BLANK[1:], [True] * 28]], "valid number"),
        ([[*BLANK[1:], ["5"] * 28]], "valid number"),
        ([[*BLANK[1:], ["/etc/hostname"] * 28]], "valid number"),
        ("/etc/hostname", "valid list"),
    ],
)
def test_what_are_no_images_is_refused_with_its_place(port: int, images: Any, reason: str) -> None:
    status, answer = classify(port, images)
    assert (status, answer.keys()) == (422, {"detail"})
    assert answer["detail"].startswith("body.images")
    assert reason in answer["detail"]


def test_of_many_wrong_numbers_one_is_kept_as_an_error() -> None:
    images = TypeAdapter(service.images_of((3, 28, 28)))
    wrong: Any
    for wrong in ([[[-1] * 28] * 28] * 3, [[[]] * 28] * 3, [[]] * 3, []):
        with pytest.raises(ValidationError) as error:
            images.validate_python([wrong] * 20)
        assert error.value.error_count() == 1


def form(*files: bytes) -> bytes:
    """Return the body that curl -F file=@x.png sends, with the boundary B."""
    head = b'--B\r\nContent-Disposition: form-data; name="file"; filename="x.png"\r\n\r\n'
    return b"".join(head + file + b"\r\n" for file in files) + b"--B--\r\n"


def test_a_picture_is_read_whatever_its_content_type_and_in_a_form(port: int) -> None:
    for kind in ("image/png", "application/json", "multipart/mixed", ""):
        assert post(port, "/read", png(7), kind)[1]["text"] == "7"
    kind = "multipart/form-data; boundary=B"
    status, answer = post(port, "/read?page=1", form(png(7)), kind)
    assert (status, answer["text"], answer["pages"]) == (200, "7", 1)
    (digit,) = answer["digits"]
    assert (digit["row"], digit["turned"], digit["is_digit"]) == (0, 0, True)
    assert (answer["rotation"], answer["lines"]) == (0, [{"text": "7", "confidence": ANY}])
    assert digit["confidence"] == max(digit["probabilities"])
    loud = "Multipart/Form-Data; Boundary=B"
    assert post(port, "/read", form(png(7)), loud)[1]["text"] == "7"
    for files in ([], [png(7)] * 2, [b""]):
        status, answer = post(port, "/read", form(*files), kind)
        assert (status, answer.keys()) == (422, {"detail"})
    rng = np.random.default_rng(0)
    for alphabet in (bytes(range(256)), b"\r\n-B\0\xff"):
        file = bytes(rng.choice(list(alphabet), 10_000).astype(np.uint8))
        assert service.file_in(form(file), kind) == file


def test_an_error_is_json_and_a_wrong_method_is_told_the_right_one(port: int) -> None:
    for method, path, status in (
        ("GET", "/read", 405),
        ("HEAD", "/read", 405),
        ("PUT", "/classify", 405),
        ("GET", "/nothing", 404),
        ("POST", "/read", 422),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request(method, path, b"" if method == "POST" else None)
        response = connection.getresponse()
        content = response.read()
        assert response.status == status, path
        assert response.getheader("allow") == ("POST" if status == 405 else None)
        assert method == "HEAD" or json.loads(content).keys() == {"detail"}
        connection.close()
    schema = json.loads(request(port, "GET", "/openapi.json")[1])
    for path in ("/read", "/classify"):
        statuses = {"200", "400", "403", "404", "408", "411", "413", "422"}
        assert schema["paths"][path]["post"]["responses"].keys() == statuses


def bombs() -> dict[str, bytes]:
    """Make files of a few kilobytes: 100,000 filled triangles, and a picture of 98 megapixels."""
    triangles = zlib.compress(b"0 0 m 600 0 l 300 600 l f\n" * 100_000, 9)
    objects = (
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 600]/Contents 4 0 R>>",
        b"<</Length %d/Filter/FlateDecode>>stream\n%s\nendstream" % (len(triangles), triangles),
    )
    parts = b"".join(b"%d 0 obj%s endobj\n" % part for part in enumerate(objects, 1))
    pdf = b"%PDF-1.4\n" + parts + b"trailer<</Root 1 0 R/Size 5>>\n%%EOF"
    webp = io.BytesIO()
    Image.new("RGB", (9900, 9900), "white").save(webp, "WEBP", lossless=True, method=0)
    return {"triangles.pdf": pdf, "white.webp": webp.getvalue()}


def test_what_takes_too_much_time_or_memory_is_refused_and_the_next_is_read(
    port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for (name, content), limit in zip(bombs().items(), ("5 s", "1000 MB"), strict=True):
        assert len(content) < 10_000
        assert post(port, "/read", content) == (413, {"detail": ANY}), name
        (tmp_path / name).write_bytes(content)
        (tmp_path / "z.png").write_bytes(png(7))
        with pytest.raises(SystemExit):
            predict.main([str(tmp_path / name), str(tmp_path / "z.png"), "--max-seconds", "5"])
        out, err = capsys.readouterr()
        assert f"{name}: reading it takes over {limit}" in err
        assert out.startswith(f"{tmp_path}/z.png: 7 ")
    assert post(port, "/read", png(7))[1]["text"] == "7"


def memory(pid: int) -> int:
    """Return the bytes of a process and its children; shared memory is counted for each."""
    psutil = pytest.importorskip("psutil", reason="comes with the extra monitor")
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(process.memory_info().rss for process in processes)


@pytest.mark.slow
def test_a_flood_of_costly_files_leaves_memory_and_time_to_others(tmp_path: Path) -> None:
    with running(tmp_path / "log", "--max-seconds", "1") as (port, server):
        assert classify(port, [BLANK])[0] == 200
        before = memory(server.pid)
        files = list(bombs().values()) * 30
        with ThreadPoolExecutor(50) as clients:
            flood = [clients.submit(post, port, "/read", file, timeout=600) for file in files]
            waits = []
            while not all(each.done() for each in flood):
                started = time.monotonic()
                assert classify(port, [BLANK])[0] == 200
                waits.append(time.monotonic() - started)
                time.sleep(0.1)
        assert {each.result()[0] for each in flood} == {413}
        assert max(waits) < 1
        assert memory(server.pid) < before + 200e6
        for file in files[:50]:  # these clients disconnect
            client = socket.create_connection(("127.0.0.1", port))
            head = b"POST /read HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n"
            client.sendall(head % len(file) + file)
            client.close()
        assert post(port, "/read", png(7))[0] == 200


def test_pdfs_of_several_clients_are_read_at_once_each_by_its_page(port: int) -> None:
    first, second = (Image.open(io.BytesIO(png(digit))).resize((480, 480)) for digit in (7, 2))
    file = io.BytesIO()
    first.save(file, "PDF", save_all=True, append_images=[second])
    with ThreadPoolExecutor(8) as clients:
        numbers = (1, 2, 1, 2, 3, 0)
        asked = [
            clients.submit(post, port, f"/read?page={number}", file.getvalue())
            for number in numbers
        ]
    answers = [each.result() for each in asked]
    assert [status for status, _ in answers] == [200] * 4 + [404, 422]
    assert [(read["text"], read["pages"]) for _, read in answers[:4]] == [("7", 2), ("2", 2)] * 2
    (digit,) = answers[0][1]["digits"]
    left, top, right, bottom = digit["box"]
    assert 0 <= left < right <= 1
    assert 0 <= top < bottom <= 1
    assert np.frombuffer(base64.b64decode(digit["image"]), np.uint8).size == 28 * 28


def test_other_methods_other_paths_and_other_names_lead_to_nothing(
    port: int, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET)
    here = str(secret).lstrip("/")
    for start in ("/", "/read/", "/docs/", "/static-offline-docs/", "/file="):
        for way in (f"/{here}", *(upwards + here for upwards in UPWARDS)):
            status, content = request(port, "GET", start + way)
            assert SECRET.encode() not in content
            assert status >= 400, start + way
    for path in ("/../demo.py", "/%2e%2e/reader.py", "/__init__.py"):
        assert request(port, "GET", path)[0] == 404
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE", "X"):
        assert request(port, method, "/read")[0] in (400, 405)


def test_what_is_no_picture_is_refused_with_a_sentence(port: int) -> None:
    status, answer = post(port, "/read", b"/etc/hostname", "image/png")
    assert (status, answer.keys()) == (422, {"detail"})
    assert "not a picture" in answer["detail"]


def test_a_server_that_is_told_to_end_answers_what_has_arrived(tmp_path: Path) -> None:
    large = io.BytesIO()
    Image.new("L", (4000, 4000), "white").save(large, "PNG")
    with running(tmp_path / "log", "--host", "0.0.0.0", "--allow-host", "digits.example") as (
        port,
        server,
    ):
        for host, status in (("digits.example", 200), ("localhost", 200), ("evil.example", 400)):
            assert request(port, "GET", "/health", None, {"Host": host})[0] == status
        with ThreadPoolExecutor(4) as clients:
            answers = [clients.submit(post, port, "/read", large.getvalue()) for _ in "1234"]
            time.sleep(0.3)
            server.send_signal(signal.SIGINT)
            assert [answer.result()[0] for answer in answers] == [200] * 4
        server.wait(20)


def test_the_page_refuses_what_the_server_would() -> None:
    script = (service.PAGE / "server.js").read_text("utf-8")
    assert f"const MAX_BYTES = {service.MAX_BYTES:_};" in script


def test_a_pattern_of_names_that_nothing_matches_is_refused(capsys) -> None:
    for name in ("a*b", "name:8080", "http://name", "[::1]:8080", ""):
        with pytest.raises(SystemExit, match="2"):
            demo.main(["--allow-host", name, "--port", "-1"])  # else it would serve
        assert f"--allow-host must be a name, *.NAME or *, got {name}\n" in capsys.readouterr().err


def test_the_address_that_is_printed_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed: list[str] = []
    monkeypatch.setattr(demo, "serve", lambda args, listening, hosts: allowed.extend(hosts))
    for host, more in (("127.1.1", "127.1.0.1"), ("0.0.0.0", "127.0.0.1")):
        allowed.clear()
        demo.main(["--host", host, "--port", "0", "--allow-host=2001:db8::1"])
        assert {more, "127.0.0.1", "localhost", "[::1]", "[2001:db8::1]"} <= {*allowed}
        assert "0.0.0.0" not in allowed


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


def test_a_request_that_is_too_long_is_not_taken_in(port: int) -> None:
    start = b"POST /read HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    for headers, code in (
        (b"Content-Length: %d\r\n" % (service.MAX_BYTES + 1), b" 413 "),
        (b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", b" 411 "),  # the first is false
        (b"Content-Length: -1\r\n", b" 400 "),
        (b"Content-Length: x\r\n", b" 400 "),
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(start + headers + b"\r\n")
            assert code in client.recv(100)
    assert request(port, "POST", "/read", iter([b"{}"]))[0] == 411


def test_bodies_that_come_slowly_hold_no_place_whatever_their_number(port: int) -> None:
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(4 * arrivals.MAX_BODIES)]
    head = b"POST /read HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999999\r\n\r\n"
    for number, client in enumerate(slow):  # half of them need a slot
        client.sendall(head + bytes(2 * arrivals.HEAD if number % 2 else 1))
    time.sleep(1)  # until it has begun to receive them
    started = time.monotonic()
    assert post(port, "/read", png(7))[0] == 200
    assert time.monotonic() - started < 20  # a slot is held for up to 60 s
    assert request(port, "GET", "/health") == (200, b'{"status":"ok"}')
    assert b" 408 " in slow[1].recv(100)
    for client in slow:
        client.close()  # in the middle: neither a traceback nor a slot that stays taken
    for _ in range(arrivals.MAX_BODIES + 1):
        assert post(port, "/read", b"no picture")[0] == 422


def test_a_slow_body_is_read_where_nobody_waits(port: int) -> None:
    file = png(7) + bytes(2 * arrivals.HEAD)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        head = b"POST /read HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % len(file)
        client.sendall(head + file[:-10])
        time.sleep(4 * arrivals.GRACE)
        client.sendall(file[-10:])
        assert b" 200 " in client.recv(100)


def ask(client: socket.socket, head: bytes) -> None:
    """Send a request for the health on a connection, and receive all of the response."""
    client.sendall(head + b"\r\n")
    while not (part := client.recv(1000)).endswith(b"}"):
        assert part


def test_a_connection_ends_where_a_head_does_not_and_no_other_does(tmp_path: Path) -> None:
    # a second in place of a minute
    setup = "from mnist_cnn.reading import arrivals; arrivals.MAX_SECONDS = 1"
    start = "-c", f"{setup}; from mnist_cnn import demo; demo.main()"
    head = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    with running(tmp_path / "log", start=start) as (port, _), contextlib.ExitStack() as stack:
        first, later, busy = (
            # uvicorn closes a connection on which nothing has come for 5 s
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=4))
            for _ in range(3)
        )
        first.sendall(head)
        ask(later, head)
        later.sendall(head)
        for _ in range(5):
            ask(busy, head)
            time.sleep(0.6)
        assert first.recv(1000) == later.recv(1000) == b""


def test_the_wait_for_a_place_is_not_the_body_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "MAX_BODIES", 1)
    monkeypatch.setattr(arrivals, "MAX_SECONDS", 0.5)
    statuses: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert len((await receive())["body"]) == 2 * arrivals.HEAD
        await asyncio.sleep(1.5)
        await Response()(scope, receive, send)

    async def one(middleware: arrivals.Arrivals) -> None:
        parts = [{"body": bytes(arrivals.HEAD), "more_body": more} for more in (True, False)]

        async def receive() -> Message:
            return {"type": "http.request", **parts.pop(0)}

        async def send(message: Message) -> None:
            statuses.extend([message["status"]] if "status" in message else [])

        await middleware({"type": "http", "method": "POST", "path": "/read"}, receive, send)

    async def both() -> None:
        middleware = arrivals.Arrivals(app, ["/read"])
        await asyncio.gather(one(middleware), one(middleware))

    asyncio.run(both())
    assert statuses == [200, 200]


def test_who_serves_all_machines_is_told_a_name_that_works_and_how_to_allow_others() -> None:
    everywhere = "http://127.0.0.1:7860", "http://NAME:7860"
    for address, named, printed in (
        ("127.0.0.1", [], everywhere[:1]),
        ("0.0.0.0", [], everywhere),
        ("0.0.0.0", ["digits.example"], everywhere[:1]),
        ("::", [], ("http://[::1]:7860", "http://NAME:7860")),
        ("192.0.2.1", [], ("http://192.0.2.1:7860",)),
    ):
        lines = demo.invitation(address, 7860, named).splitlines()
        assert len(lines) == len(printed)
        assert all(url in line for url, line in zip(printed, lines, strict=True))
    assert "--allow-host NAME" in demo.invitation("0.0.0.0", 7860, [])


def test_a_port_that_cannot_be_had_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(SystemExit, match=rf"^error: --port {port} of --host 127.0.0.1: .+"):
            demo.main(["--port", port])
    with pytest.raises(SystemExit, match=r"^error: --port 0 of --host a\.\.b: .+"):
        demo.main(["--host", "a..b", "--port", "0"])


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(SystemExit, match=r"^error: uvicorn not installed: pip install"):
        demo.main(["--port", "0"])
