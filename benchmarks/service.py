"""Measure the service under load: python -m benchmarks.service [--clients 1 20 200] [--seconds 30]

Start `python -m mnist_cnn.demo` and send it synthetic photographs of single digits by POST /read
from several clients at once, each of which waits for an answer before its next request. An error
is a missing answer, or one that differs from what a lone client got. Clients and server share this
machine.
"""

import asyncio
import io
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

import httpx
import pandas as pd

from benchmarks.tables import markdown
from mnist_cnn.command import command, docstring_parser
from mnist_cnn.data.drawn.photographs import KINDS, pictures


async def send(
    url: str, expected: Mapping[bytes, bytes], clients: int, seconds: float
) -> pd.DataFrame:
    """Send pictures from several clients, and return `ms` and `error` of each answer.

    Args:
        expected: the right answers, by picture.
    """
    rows: list[tuple[float, bool]] = []
    end = time.monotonic() + seconds

    async def client(number: int) -> None:
        while time.monotonic() < end:
            sent = list(expected)[(number + len(rows)) % len(expected)]
            started = time.monotonic()
            try:
                answer = (await session.post("/read", content=sent)).content
            except httpx.HTTPError:
                answer = b""
            rows.append((1e3 * (time.monotonic() - started), answer != expected[sent]))

    async with httpx.AsyncClient(base_url=url, limits=httpx.Limits(), timeout=120) as session:
        await asyncio.gather(*map(client, range(clients)))
    return pd.DataFrame(rows, columns=["ms", "error"])


def load(url: str, clients: Sequence[int], seconds: float) -> pd.DataFrame:
    """Measure a service under load, one row for each number of clients."""
    rows, expected = [], {}
    for image, _ in pictures(KINDS["single digits"], 50, seed=0):
        image.save(file := io.BytesIO(), "JPEG", quality=90)
        answer = httpx.post(f"{url}/read", content=file.getvalue(), timeout=60).raise_for_status()
        expected[file.getvalue()] = answer.content
    for number in clients:
        started = time.monotonic()
        answers = asyncio.run(send(url, expected, number, seconds))
        rate = len(answers) / (time.monotonic() - started)
        p50, p99 = answers["ms"].quantile([0.5, 0.99])
        row = [number, len(answers), f"{rate:.1f}", f"{p50:.0f}", f"{p99:.0f}"]
        rows.append([*row, answers["error"].sum()])
    heads = ["clients", "answers", "answers/s", "p50 ms", "p99 ms", "errors"]
    return pd.DataFrame(rows, columns=heads)


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = docstring_parser("benchmarks.service", __doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 20, 200])
    parser.add_argument("--seconds", type=float, default=30, help="of each number of clients (30)")
    args = parser.parse_args(argv)
    demo = [sys.executable, "-m", "mnist_cnn.demo", "--port", "0"]
    with subprocess.Popen(demo, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            (url,) = re.findall(r"http://\S+", server.stdout.readline())
            print(markdown(load(url, args.clients, args.seconds)))
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
