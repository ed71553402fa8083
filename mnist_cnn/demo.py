"""Serve a page to draw on, and an HTTP API: python -m mnist_cnn.demo [ckpt_path=PATH]

  GET  /          the page
  POST /read      a picture's file as the body, or a form with it -> its digits, or its classes
  POST /classify  {"images": [28x28 values of 0 to 255, ...]} -> 10 probabilities for each image;
                  of a network of other images, in their shape -> the classes of each
  GET  /health    {"status": "ok"} once the network is loaded
  GET  /docs      these in detail, with their JSON schemas

The page loads nothing from other machines. Pictures are read from memory, never from a file, by
three processes with limits of time and memory; further requests wait.
"""

import argparse
import ipaddress
import math
import re
import socket
from collections.abc import Sequence
from functools import partial

from mnist_cnn.command import command, docstring_parser, parse
from mnist_cnn.config import instantiate
from mnist_cnn.config.messages import install
from mnist_cnn.reading.limits import Worker, add_limits
from mnist_cnn.runs.imports import without_collection

WORKERS = 3  # pictures that are read at once, whatever the number of processors
OWN = ("127.0.0.1", "localhost", "::1")  # names of this machine in a request
ANY = ("0.0.0.0", "::")  # a --host that listens on all interfaces


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = docstring_parser("mnist_cnn.demo", __doc__)
    parser.add_argument("--host", default="127.0.0.1", help="(default: %(default)s, this machine)")
    parser.add_argument("--port", type=int, default=7860, help="(default: %(default)s; 0: any)")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="name or address by which other machines may ask for it, in addition to --host; may "
        "be repeated; '*' is any, and lets pages of other sites read what is sent",
    )
    add_limits(parser)
    args = parse(parser, argv)
    for name in args.allow_host:
        if not is_host(name):
            parser.error(f"--allow-host must be a name, *.NAME or *, got {name}")
    if not 0 <= args.port <= 65_535:
        parser.error(f"--port must be 0 to 65535, got {args.port}")
    with listen(args.host, args.port) as listening:  # before the slow imports
        address = listening.getsockname()[0]  # of --host, and of the page as it is printed
        names = {*OWN, args.host, address, *args.allow_host} - {*ANY}
        serve(args, listening, sorted(map(in_url, names)))


def is_host(name: str) -> bool:
    """Return whether requests may have a name for their host: NAME, *.NAME, * or an address."""
    try:
        ipaddress.IPv6Address(name.strip("[]"))
    except ValueError:
        return re.fullmatch(r"\*|(\*\.)?[^*/:]+", name) is not None
    return True


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; OSError if the address is in use, wrong or of another machine."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:  # of a name like a..b, too
        reason = getattr(error, "strerror", error)
        raise OSError(f"--port {port} of --host {host}: {reason}") from None
    # connections inherit it; else answers are 40 ms late, as asyncio sees no protocol to set it for
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def serve(args: argparse.Namespace, listening: socket.socket, hosts: Sequence[str]) -> None:
    """Serve until SIGINT or SIGTERM; requests that have arrived by then are still answered.

    Args:
        args: the command's options.
        hosts: allowed Host headers of requests; `*` is any.

    Raises:
        ValueError: ckpt_path is no network that takes pictures, or a package is missing.
    """
    try:
        with without_collection():
            import torch
            import uvicorn

            from mnist_cnn.reading import connections, networks, service
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} not installed: {install('demo')}") from None
    torch.set_num_threads(1)  # for many small pictures more threads only compete
    network = networks.load_network(args.ckpt_path)
    make = partial(service.file_reader, args.ckpt_path, list(instantiate.ALLOWED))
    limit = args.max_seconds, args.max_memory
    workers = [Worker(make, *limit, [service.__name__]) for _ in range(WORKERS)]
    app = service.application(network, hosts, workers)
    grace = math.ceil(4 * args.max_seconds)  # for requests that have arrived
    config = uvicorn.Config(
        app, http=connections.Connection, log_level="error", timeout_graceful_shutdown=grace
    )
    address, port = listening.getsockname()[:2]
    print(invitation(address, port, args.allow_host), flush=True)
    uvicorn.Server(config).run(sockets=[listening])


def invitation(address: str, port: int, allowed: Sequence[str]) -> str:
    """Return the lines that say where to draw, and how to allow other machines to."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
    line = f"Draw at http://{in_url(here)}:{port} (Ctrl-C stops)"
    others = f"On other machines at http://NAME:{port}, with --allow-host NAME"
    return line if here == address or allowed else f"{line}\n{others}"


def in_url(name: str) -> str:
    """Return a name or an address as a URL has it: an IPv6 address in brackets."""
    return f"[{name}]" if ":" in name and "[" not in name else name


if __name__ == "__main__":
    main()
