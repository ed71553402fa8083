"""Serves a page to draw on, and its reading to programs: python -m mnist_cnn.demo [ckpt_path=PATH]

  GET  /          the page
  POST /read      a picture's file as the body -> the digits in it
  POST /classify  {"images": [28x28 values of 0 to 255, ...]} -> 10 probabilities for each image
  GET  /health    {"status": "ok"} once the network is loaded
  GET  /docs      these in detail, with their JSON schemas

Nothing that is served comes from another machine. Pictures are read from memory, never from a file.
"""

import argparse
import asyncio
import base64
import contextlib
import errno
import importlib.util
import io
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field

from mnist_cnn.command import command, parse
from mnist_cnn.config.messages import install
from mnist_cnn.versions import versions

if TYPE_CHECKING:
    import fastapi

    from mnist_cnn.reading.reader import Net

PAGE = Path(__file__).parent / "reading" / "page"
NEEDED = ("fastapi", "fastapi_offline", "uvicorn", "cv2", "PIL")  # what the extra brings

MAX_BYTES = 20_000_000  # of a request's body; reading/page/server.js has it too
MAX_BODIES = 16  # bodies in memory at once; further requests wait
MAX_SECONDS = 60  # for a body to arrive: a slow one would keep the others waiting
MAX_IMAGES = 1000  # of one POST /classify
PREVIEW = 1000  # longest side in pixels of a picture as it is shown on the sheet

OWN = ("127.0.0.1", "localhost", "::1", "[::1]")  # names of this machine in a request
ANY = ("", "0.0.0.0", "::")  # a --host that listens to all machines, under whatever name

# a browser that keeps to this asks no other machine for anything
POLICY = (
    "default-src 'self' data: blob:; script-src 'self'{scripts}; "
    "style-src 'self' 'unsafe-inline'; form-action 'self'; base-uri 'self'; frame-ancestors 'none'"
)

# pictures worked on at once: each of 100 megapixels takes some hundred megabytes for a while
_working = threading.BoundedSemaphore(os.cpu_count() or 1)
_pdf = threading.Lock()  # PDFium must not run in two threads at once

Pixel = Annotated[int, Field(ge=0, le=255)]
Row = Annotated[list[Pixel], Field(min_length=28, max_length=28)]
Square = Annotated[list[Row], Field(min_length=28, max_length=28)]


class FoundDigit(BaseModel):
    digit: int | None = Field(description="0 to 9, or null where the network is unsure")
    sign: str = Field(description="the digit; ? for an unsure one, · for what is no digit")
    best: int = Field(description="the likeliest digit")
    probabilities: list[float] = Field(description="of the digits 0 to 9")
    box: list[float] = Field(
        description="left, top, right, bottom, as shares of the picture's width and height"
    )
    image: str = Field(description="the 28x28 bytes that the network saw, in base64")


class PictureRead(BaseModel):
    text: str = Field(description="the digits' signs, a line for each row of writing")
    digits: list[FoundDigit]
    preview: str | None = Field(None, description="the upright picture as a data URL, if asked for")


class Images(BaseModel):
    images: list[Square] = Field(
        min_length=1, max_length=MAX_IMAGES, description="28x28 pixels each, 255 for ink"
    )


class Classified(BaseModel):
    digits: list[int] = Field(description="the likeliest digit of each image")
    probabilities: list[list[float]] = Field(description="for each image, of the digits 0 to 9")


class Refusal(BaseModel):
    detail: str = Field(description="why the request is refused")


def answer(net: "Net", content: bytes, preview: bool) -> PictureRead:
    """The digits of a picture's file; preview also asks for the picture as it was understood.

    Raises:
        ValueError: it is no picture that can be read.
    """
    from mnist_cnn.reading.picture import load_picture
    from mnist_cnn.reading.reader import read_digits, written

    with _working:
        with _pdf if b"%PDF-" in content[:1024] else contextlib.nullcontext():
            picture = load_picture(content)
        readings = read_digits(picture, net)
    sides = (*picture.size, *picture.size)
    found = [
        FoundDigit(
            digit=reading.digit,
            sign=reading.sign,
            best=reading.best,
            probabilities=[round(float(p), 6) for p in reading.probabilities],
            box=[place / side for place, side in zip(reading.box, sides, strict=True)],
            image=base64.b64encode(reading.image.tobytes()).decode(),
        )
        for reading in readings
    ]
    shown = None
    if preview:  # a browser shows neither every format nor the rotation that some files ask for
        small, file = picture.convert("RGB"), io.BytesIO()
        small.thumbnail((PREVIEW, PREVIEW))
        small.save(file, "JPEG", quality=85)
        shown = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
    return PictureRead(text=written(readings), digits=found, preview=shown)


def application(net: "Net", hosts: Sequence[str] = ("*",)) -> "fastapi.FastAPI":
    """The page and the service, as an ASGI application.

    Args:
        net: probabilities (N, 10) of uint8 images (N, 28, 28).
        hosts: what a request may call this machine; `*` is anything.
    """
    import fastapi_offline
    import torch
    from fastapi import Body, HTTPException, Request, exceptions, responses
    from fastapi.middleware.trustedhost import TrustedHostMiddleware
    from fastapi.staticfiles import StaticFiles

    refused: dict[int | str, Any] = {422: {"model": Refusal}}
    app = fastapi_offline.FastAPIOffline(
        title="mnist_cnn",
        description="Reads handwritten digits.",
        version=versions().get("mnist-cnn", "not installed"),
        redoc_url=None,
    )

    @app.post("/read", responses=refused)
    def read_picture(
        content: Annotated[bytes, Body(media_type="application/octet-stream")],
        preview: bool = False,
    ) -> PictureRead:
        """Reads the digits of a picture: PNG, JPEG, WebP, GIF, TIFF and others."""
        try:
            return answer(net, content, preview)
        except ValueError as error:
            raise HTTPException(422, str(error).removeprefix("the picture: ")) from None

    @app.post("/classify", responses=refused)
    def classify_images(images: Images) -> Classified:
        """Classifies images of 28x28 pixels, white ink on black, as MNIST's are."""
        with _working, torch.inference_mode():
            found = net(torch.tensor(images.images, dtype=torch.uint8)).float()
        return Classified(digits=found.argmax(1).tolist(), probabilities=found.tolist())

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    app.mount("/", StaticFiles(directory=PAGE, html=True))

    @app.exception_handler(exceptions.RequestValidationError)
    async def explain(_: Request, error: exceptions.RequestValidationError) -> responses.Response:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        return responses.JSONResponse({"detail": f"{place}: {fault['msg']}"}, 422)

    _guard(app)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    return app


def _guard(app: "fastapi.FastAPI") -> None:
    """Makes an application refuse what is too large, too slow or sent by another site's page."""
    from fastapi import Request, Response, responses

    bodies = asyncio.Semaphore(MAX_BODIES)

    @app.middleware("http")
    async def guard(
        request: Request, respond: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        async with bodies if request.method == "POST" else contextlib.nullcontext():
            if refusal := await _refusal(request):
                status, reason = refusal
                response: Response = responses.JSONResponse({"detail": reason}, status)
            else:
                response = await respond(request)
        scripts = " 'unsafe-inline'" if request.url.path == "/docs" else ""
        response.headers["Content-Security-Policy"] = POLICY.format(scripts=scripts)
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


async def _refusal(request: "fastapi.Request") -> tuple[int, str] | None:
    """Takes in the body of a POST; the status and the reason to refuse a request with, or None."""
    from starlette.requests import ClientDisconnect

    headers = request.headers
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != headers.get("host"):
        return 403, f"{origin} must be this server's own page"
    if request.method != "POST":
        return None
    # a body in chunks has no length, whatever the header says
    if "content-length" not in headers or "transfer-encoding" in headers:
        return 411, "the body's length must be given, and no chunks"
    if int(headers["content-length"]) > MAX_BYTES:
        return 413, f"the body must be at most {MAX_BYTES // 10**6} MB"
    try:
        await asyncio.wait_for(request.body(), MAX_SECONDS)
    except (asyncio.TimeoutError, ClientDisconnect):
        return 408, "the body took too long to arrive"
    return None


def serve(ckpt_path: str | None, host: str, port: int) -> None:
    """Serves until SIGINT or SIGTERM, and then answers what has arrived before it ends.

    Raises:
        ValueError: ckpt_path is none of this project's networks that read digits.
        OSError: the address is in use, or not this machine's.
    """
    with _listen(host, port) as listening:  # before the slow imports: the likeliest mistake
        import cv2
        import torch
        import uvicorn

        from mnist_cnn import pretrained

        # many small pictures at once: threads within each would only get in each other's way
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        names = ("*",) if host in ANY else (host, *OWN)
        app = application(pretrained.load_digits(ckpt_path), names)
        config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=MAX_SECONDS)
        host, port = listening.getsockname()[:2]
        name = f"[{host}]" if ":" in host else host
        print(f"Draw at http://{name}:{port} (Ctrl-C stops)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):  # how uvicorn ends after Ctrl-C
            uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        created = socket.create_server((host, port), family=family)
    except OSError as error:
        reason = f"cannot be had: {error.strerror}"
        if error.errno == errno.EADDRINUSE:
            reason = "is in use: choose another with --port"
        raise OSError(f"port {port} of {host} {reason}") from None
    # asyncio sends an answer's body without waiting 40 ms only if the socket is named as TCP
    return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, created.detach())


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        "python -m mnist_cnn.demo", description="Serves a page that reads digits as one draws them."
    )
    parser.add_argument("--host", default="127.0.0.1", help="(default: %(default)s, this machine)")
    parser.add_argument("--port", type=int, default=7860, help="(default: %(default)s; 0: any)")
    args = parse(parser, argv)
    if not 0 <= args.port <= 65_535:
        parser.error(f"--port must be 0 to 65535, got {args.port}")
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"{', '.join(missing)} not installed: {install('demo')}")
    serve(args.ckpt_path, args.host, args.port)


if __name__ == "__main__":
    main()
