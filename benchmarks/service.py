"""Load on the service: python -m benchmarks.service [--clients 1 20 200] [--seconds 30]

Starts `python -m mnist_cnn.demo` and sends it synthetic photographs of single digits by POST /read
from several clients at once, each of which waits for its answer before it sends the next. An error
is any status but 200; a wrong answer is one that differs from what a lone client got. Clients and
server share this machine.
"""

import asyncio
import io
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import numpy as np
import pandas as pd

from benchmarks.tables import markdown
from mnist_cnn.analysis import results
from mnist_cnn.report import docstring_parser
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


async def send(
    url: str, sent: Sequence[bytes], expected: Sequence[bytes], clients: int, seconds: float
) -> pd.DataFrame:
    """One row a request: `seconds` until its answer, and whether it was an `error` or `wrong`."""
    rows: list[tuple[float, bool, bool]] = []
    end = time.monotonic() + seconds

    async def client(number: int) -> None:
        while time.monotonic() < end:
            picture = (number + len(rows)) % len(sent)
            started = time.monotonic()
            try:
                answer = await session.post("/read", content=sent[picture])
            except httpx.HTTPError:
                rows.append((np.nan, True, False))
                continue
            error = answer.status_code != 200
            wrong = not error and answer.content != expected[picture]
            rows.append((time.monotonic() - started, error, wrong))

    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=120) as session:
        await asyncio.gather(*map(client, range(clients)))
    return pd.DataFrame(rows, columns=["seconds", "error", "wrong"])


def load(
    server: subprocess.Popen[str], sent: Sequence[bytes], clients: Sequence[int], seconds: float
) -> pd.DataFrame:
    """The table of a service's answers, a row for each number of clients."""
    assert server.stdout is not None
    url = re.findall(r"http://\S+", server.stdout.readline())[0]
    expected = [httpx.post(f"{url}/read", content=picture).content for picture in sent]
    rows = []
    for number in clients:
        started = time.monotonic()
        answers = asyncio.run(send(url, sent, expected, number, seconds))
        times = 1e3 * answers["seconds"].dropna()
        status = Path(f"/proc/{server.pid}/status").read_text("ascii")  # Linux
        row = {
            "clients": number,
            "answers": len(times),
            "answers/s": f"{len(times) / (time.monotonic() - started):.1f}",
            "p50 ms": f"{times.quantile(0.5):.0f}",
            "p99 ms": f"{times.quantile(0.99):.0f}",
            "errors": answers["error"].sum(),
            "wrong": answers["wrong"].sum(),
            "MB": int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) // 1024,
        }
        rows.append(row)
    return pd.DataFrame(rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = docstring_parser("benchmarks.service", __doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 20, 200])
    parser.add_argument("--seconds", type=float, default=30, help="of each number of clients (30)")
    args = parser.parse_args(argv)
    sent = pictures()
    command = [sys.executable, "-m", "mnist_cnn.demo", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            print(markdown(load(server, sent, args.clients, args.seconds)))
        finally:
            server.terminate()
    size = sum(map(len, sent)) / len(sent) / 1e3
    print(f"{len(sent)} pictures of {size:.0f} KB on average; {results.processor()}")


if __name__ == "__main__":
    main()
