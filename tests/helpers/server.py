"""Run the demo in a subprocess, and send it requests."""

import contextlib
import http.client
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.helpers.process import environment


@contextlib.contextmanager
def running(
    log: Path, *arguments: str, start: Sequence[str] = ("-m", "mnist_cnn.demo")
) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Run a demo, yield its port and process, and end it by SIGINT.

    Args:
        start: of Python, what runs it.
    """
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", *start, "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment(),
        )
    assert process.stdout is not None
    try:
        printed = process.stdout.readline()
        address = re.search(r"http://([\d.]+):(\d+)", printed)
        assert address, printed + log.read_text()
        host, port = address[1], int(address[2])
        assert request(port, "GET", "/health", None, {"Host": f"{host}:{port}"})[0] == 200
        yield port, process
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 128 + signal.SIGINT
        assert log.read_text() == "interrupted by SIGINT\n"
    finally:
        process.kill()
        process.stdout.close()


def request(
    port: int, method: str, path: str, *content: Any, timeout: float = 120
) -> tuple[int, bytes]:
    """Send a request, and return status and body of the response."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, *content)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def post(
    port: int, path: str, body: bytes, kind: str = "image/png", timeout: float = 120
) -> tuple[int, Any]:
    """Send a POST request, and return status and content of its JSON response."""
    headers = {"Content-Type": kind}
    status, content = request(port, "POST", path, body, headers, timeout=timeout)
    return status, json.loads(content)
