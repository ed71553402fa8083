"""Load on the service: python -m benchmarks.service [--clients 1 20 200] [--seconds 30]

Starts `python -m mnist_cnn.demo` and sends it synthetic photographs of single digits by POST /read
from several clients at once, each of which waits for its answer before it sends the next. An error
is any status but 200; a wrong answer is one that differs from what a lone client got. Clients and
server share this machine.
"""

import argparse
import asyncio
import io
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import numpy as np
from rich.table import Table

from mnist_cnn import terminal
from mnist_cnn.runs import results
from tests.helpers.photographs import bundled, photograph

PICTURES = 50


def pictures() -> list[bytes]:
    """JPEG files of synthetic photographs, each of one test digit."""
    images = bundled("t10k-images-idx3-ubyte", 16).reshape(-1, 28, 28)
    files = []
    for n in range(PICTURES):
        file = io.BytesIO()
        photograph([images[n]], np.random.default_rng(n)).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def memory(process: subprocess.Popen[str]) -> float:
    """The process's resident memory in MB (Linux)."""
    status = Path(f"/proc/{process.pid}/status").read_text("ascii")
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


async def load(
    url: str, sent: list[bytes], expected: list[bytes], clients: int, seconds: float
) -> tuple[list[float], int, int]:
    """The seconds that each answer took; the numbers of errors and of wrong answers."""
    times: list[float] = []
    errors = wrong = 0
    end = time.monotonic() + seconds

    async def client(number: int) -> None:
        nonlocal errors, wrong
        while time.monotonic() < end:
            picture = (number + len(times)) % len(sent)
            started = time.monotonic()
            try:
                answer = await session.post("/read", content=sent[picture])
            except httpx.HTTPError:
                errors += 1
                continue
            times.append(time.monotonic() - started)
            errors += answer.status_code != 200
            wrong += answer.status_code == 200 and answer.content != expected[picture]

    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=120) as session:
        await asyncio.gather(*map(client, range(clients)))
    return sorted(times), errors, wrong


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.service", description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 20, 200])
    parser.add_argument("--seconds", type=float, default=30, help="of each number of clients (30)")
    args = parser.parse_args(argv)
    sent = pictures()
    table = Table("clients", "answers", "answers/s", "p50 ms", "p99 ms", "errors", "wrong", "MB")
    with subprocess.Popen(
        [sys.executable, "-m", "mnist_cnn.demo", "--port", "0"], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            url = re.findall(r"http://\S+", server.stdout.readline())[0]
            expected = [httpx.post(f"{url}/read", content=picture).content for picture in sent]
            for clients in args.clients:
                started = time.monotonic()
                times, errors, wrong = asyncio.run(load(url, sent, expected, clients, args.seconds))
                rate = len(times) / (time.monotonic() - started)
                p50, p99 = 1e3 * statistics.median(times), 1e3 * times[int(0.99 * len(times))]
                row = (
                    clients,
                    len(times),
                    f"{rate:.1f}",
                    f"{p50:.0f}",
                    f"{p99:.0f}",
                    errors,
                    wrong,
                )
                table.add_row(*map(str, row), f"{memory(server):.0f}")
        finally:
            server.terminate()
    terminal.console().print(table)
    size = sum(map(len, sent)) / len(sent) / 1e3
    print(f"{len(sent)} pictures of {size:.0f} KB on average; {results.processor()}")


if __name__ == "__main__":
    main()
