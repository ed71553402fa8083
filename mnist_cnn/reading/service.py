"""The drawing page and the service behind it, as an ASGI application."""

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

import torch
from fastapi import Body, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, FailFast, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware

from mnist_cnn.analysis.results import versions
from mnist_cnn.config import instantiate
from mnist_cnn.data.picture import NoPageError, Pages, page_of
from mnist_cnn.reading.answers import Reply, as_url, constants
from mnist_cnn.reading.arrivals import Arrivals
from mnist_cnn.reading.limits import LimitError, Worker
from mnist_cnn.reading.networks import Classes, Digits, load_network

PAGE = Path(__file__).parent / "page"
FILES = {"/": "index.html"} | {f"/{name}": name for name in ("page.css", "page.js", "server.js")}

MAX_BYTES = 20_000_000  # of a request's body; the same in reading/page/server.js
MAX_IMAGES = 1000  # of one POST /classify
PREVIEW = 1000  # longest side in pixels of a picture shown on the sheet

FileWorker = Worker[[bytes, str, int, bool], Reply]  # calls `read_file`

# forbids requests to other hosts
POLICY = (
    "default-src 'self' data: blob:; script-src 'self'{scripts}; "
    "style-src 'self' 'unsafe-inline'; form-action 'self'; base-uri 'self'; frame-ancestors 'none'"
)

Pixel = Annotated[float, Field(ge=0, le=255, multiple_of=1, strict=True)]  # no true, no "5"


class Refusal(BaseModel):
    detail: str  # why, in one line


REFUSALS: dict[int | str, dict[str, Any]] = {
    status.value: {"model": Refusal, "description": status.phrase}
    for status in map(HTTPStatus, (400, 403, 404, 408, 411, 413, 422))
}
# forms are accepted, too, but their schema cannot say that the file is a picture
BODY = {"image/*": {"schema": {"type": "string", "format": "binary"}}}


def file_reader(
    path: str | None, targets: Sequence[str]
) -> Callable[[bytes, str, int, bool], Reply]:
    """Return `read_file` with the network of `load_network`.

    Args:
        targets: code of the user's that it may name, see `instantiate.allow`.
    """
    instantiate.allow(targets)
    return partial(read_file, load_network(path))


def read_file(network: Digits | Classes, body: bytes, kind: str, page: int, preview: bool) -> Reply:
    """Read or classify a page of a file.

    Args:
        network: see `load_network`.
        body: the file, or a form with it.
        kind: content type of the body.
        page: page of the file, from 1.
        preview: add the decoded picture.

    Raises:
        ValueError: the file cannot be read as a picture, or has no such page.
    """
    if hasattr(os, "setpriority"):  # the server's own process comes first
        # never below the current value, which needs root
        os.setpriority(os.PRIO_PROCESS, 0, max(5, os.getpriority(os.PRIO_PROCESS, 0)))
    with Pages(file_in(body, kind)) as pages:
        picture, count = page_of(pages, page), len(pages)
    reply = network(picture).reply()
    reply.pages = count
    if preview:  # browsers do not show every format, nor apply the rotation in some files
        small = picture.convert("RGB")
        small.thumbnail((PREVIEW, PREVIEW))
        reply.preview = as_url(small, "jpeg")
    return reply


def file_in(body: bytes, kind: str) -> bytes:
    """Return the file in a form of that content type; any other body is the file itself.

    Raises:
        ValueError: the file is empty, or a form has none or several.
    """
    files = [body]
    boundary = re.search('boundary="?([^";]+)', kind, re.IGNORECASE)
    # RFC 7578 in three lines, in place of python-multipart and its spooled files; the module
    # email changes the bytes
    if kind.lower().startswith("multipart/form-data") and boundary:
        parts = (b"\r\n" + body).split(b"\r\n--" + boundary[1].encode())
        heads = [part.partition(b"\r\n\r\n")[::2] for part in parts]
        files = [content for head, content in heads if b"filename=" in head.lower()]
    if len(files) != 1:
        raise ValueError(f"a form must have one file, got {len(files)}")
    if not files[0]:
        raise ValueError("the file is empty")
    return files[0]


def application(
    network: Digits | Classes, hosts: Sequence[str], workers: Sequence[FileWorker]
) -> FastAPI:
    """Create the page and the service.

    Args:
        network: what reads or classifies, see `load_network`.
        hosts: allowed host names of this server; `*` allows any.
        workers: workers that call `read_file` with the network, each for one picture at a time.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        for worker in workers:  # end readings that exceed the time to shut down
            worker.stop()

    app = FastAPIOffline(
        title="mnist_cnn",
        description=network.does,
        version=versions().get("mnist-cnn", "not installed"),
        redoc_url=None,
        lifespan=lifespan,
        responses=REFUSALS,
    )
    add_read(app, network, workers)
    given = images_of(network.shape)

    @app.post("/classify", response_model=network.arrays_type)
    def classify_images(images: given) -> BaseModel:  # type: ignore[valid-type]
        """Classify images in the format of training, MNIST's white on black."""
        with torch.inference_mode():
            return network.classified(torch.tensor(images, dtype=torch.uint8))

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    for path, name in {**FILES, "/show.js": network.script}.items():
        app.add_route(path, partial(page_file, PAGE / name))
    about = constants(ABOUT=network.about())
    app.add_route("/about.js", lambda _: Response(about, media_type="text/javascript"))
    app.add_exception_handler(RequestValidationError, explain)
    app.add_exception_handler(Exception, explain)
    app.add_middleware(Arrivals, paths=("/read", "/classify"))  # arrays do not wait for pictures
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    app.middleware("http")(guard)  # runs first, as it needs only the headers
    return app


def images_of(shape: tuple[int, ...]) -> Any:
    """Return the type of a body {images: [...]} of images (C, H, W), or (H, W) of one channel."""
    kind: Any = Pixel
    # at the first error: one for each of a million wrong numbers would take gigabytes
    for side in reversed(shape[shape[0] == 1 :]):
        kind = Annotated[list[kind], Field(min_length=side, max_length=side), FailFast()]
    return Annotated[list[kind], Body(embed=True, min_length=1, max_length=MAX_IMAGES), FailFast()]


def add_read(app: FastAPI, network: Digits | Classes, workers: Sequence[FileWorker]) -> None:
    """Add the operation that reads pictures, one at a time per worker; others wait."""
    free: asyncio.Queue[FileWorker] = asyncio.Queue()
    for worker in workers:
        free.put_nowait(worker)

    schema = {"requestBody": {"required": True, "content": BODY}}

    @app.post("/read", openapi_extra=schema, response_model=network.reply_type)
    async def read_picture(
        request: Request, page: Annotated[int, Query(ge=1)] = 1, preview: bool = False
    ) -> Reply:
        """Read or classify a picture: PNG, JPEG, WebP, GIF, TIFF, PDF and others.

        The body is the file, of any content type, or a form with the file.
        """
        body, kind = await request.body(), request.headers.get("content-type", "")
        worker = await free.get()
        try:
            if await request.is_disconnected():
                raise HTTPException(408, "the client has gone")  # nobody receives it
            return await asyncio.to_thread(worker, body, kind, page, preview)
        except ValueError as error:
            status = {LimitError: 413, NoPageError: 404}.get(type(error), 422)
            raise HTTPException(status, str(error).removeprefix("the picture: ")) from None
        finally:
            free.put_nowait(worker)


def page_file(path: Path, request: Request) -> Response:
    return FileResponse(path)


async def explain(request: Request, error: Exception) -> Response:
    """Respond with the first error of a body in one line; the server prints its own errors."""
    if not isinstance(error, RequestValidationError):
        return refused(500, "the server failed")
    fault = error.errors()[0]
    return refused(422, f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}")


async def guard(request: Request, respond: Callable[[Request], Awaitable[Response]]) -> Response:
    """Respond to a request, or refuse one that is too large or from another site's page."""
    response = refusal(request) or await respond(request)
    scripts = " 'unsafe-inline'" if request.url.path == "/docs" else ""
    response.headers["Content-Security-Policy"] = POLICY.format(scripts=scripts)
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def refusal(request: Request) -> Response | None:
    """Return the response that refuses a request by its headers, or None."""
    headers = request.headers
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != headers.get("host", ""):
        return refused(403, f"{origin} must be this server's own page")
    if request.method == "POST":
        # a chunked body has no length, whatever the header says
        if "content-length" not in headers or "transfer-encoding" in headers:
            return refused(411, "the body's length must be given, and no chunks")
        if int(headers["content-length"]) > MAX_BYTES:
            return refused(413, f"the body must be at most {MAX_BYTES:,} bytes")
    return None


def refused(status: int, reason: str) -> Response:
    return JSONResponse({"detail": reason}, status)
