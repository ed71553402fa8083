"""The page to draw on and the service behind it, as an ASGI application."""

import asyncio
import base64
import contextlib
import io
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated

import torch
from fastapi import Body, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect

from mnist_cnn.analysis.results import versions
from mnist_cnn.reading.picture import load_picture
from mnist_cnn.reading.reader import Net, read_digits, written

PAGE = Path(__file__).parent / "reading" / "page"

MAX_BYTES = 20_000_000  # of a request's body; reading/page/server.js has it too
MAX_BODIES = 16  # bodies in memory at once; further requests wait
MAX_SECONDS = 60  # for a body to arrive: a slow one would keep the others waiting
MAX_IMAGES = 1000  # of one POST /classify
PREVIEW = 1000  # longest side in pixels of a picture as it is shown on the sheet

# a browser that keeps to this asks no other machine for anything
POLICY = (
    "default-src 'self' data: blob:; script-src 'self'{scripts}; "
    "style-src 'self' 'unsafe-inline'; form-action 'self'; base-uri 'self'; frame-ancestors 'none'"
)

# pictures worked on at once: each of 100 megapixels takes some hundred megabytes for a while
_working = threading.BoundedSemaphore(os.cpu_count() or 1)
_bodies = asyncio.Semaphore(MAX_BODIES)
_pdf = threading.Lock()  # PDFium must not run in two threads at once

Pixel = Annotated[int, Field(ge=0, le=255)]
Row = Annotated[list[Pixel], Field(min_length=28, max_length=28)]
Square = Annotated[list[Row], Field(min_length=28, max_length=28)]
Squares = Annotated[list[Square], Body(embed=True, min_length=1, max_length=MAX_IMAGES)]


class FoundDigit(BaseModel):
    digit: int | None  # null where the network is unsure, or where it is no digit
    sign: str  # the digit; ? for an unsure one, · for what is no digit
    best: int  # the likeliest digit
    probabilities: list[float]  # of the digits 0 to 9
    box: list[float]  # left, top, right, bottom, as shares of the picture's width and height
    image: str  # the 28x28 bytes that the network saw, in base64


class PictureRead(BaseModel):
    text: str  # the signs, a line for each row of writing
    digits: list[FoundDigit]
    preview: str | None = None  # the upright picture as a data URL, if asked for


class Classified(BaseModel):
    digits: list[int]  # the likeliest of each image
    probabilities: list[list[float]]  # for each image, of the digits 0 to 9


def read_file(net: Net, content: bytes, preview: bool) -> PictureRead:
    """Read the digits of a picture's file; preview adds the picture as it was understood.

    Raises:
        ValueError: it is no picture that can be read.
    """
    with _working:
        with _pdf if b"%PDF-" in content[:1024] else contextlib.nullcontext():
            picture = load_picture(content)
        readings = read_digits(picture, net)
    sides = (*picture.size, *picture.size)
    found = [
        FoundDigit(
            digit=reading.digit,
            sign=reading.symbol,
            best=reading.best,
            probabilities=[round(float(p), 6) for p in reading.probabilities],
            box=[place / side for place, side in zip(reading.box, sides, strict=True)],
            image=base64.b64encode(reading.image.tobytes()).decode(),
        )
        for reading in readings
    ]
    read = PictureRead(text=written(readings), digits=found)
    if preview:  # a browser shows neither every format nor the rotation that some files ask for
        small, file = picture.convert("RGB"), io.BytesIO()
        small.thumbnail((PREVIEW, PREVIEW))
        small.save(file, "JPEG", quality=85)
        read.preview = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
    return read


def application(net: Net, hosts: Sequence[str] = ("*",)) -> FastAPI:
    """Make the page and the service.

    Args:
        net: probabilities (N, 10) of uint8 images (N, 28, 28).
        hosts: names of this machine that a request may have; `*` is any.
    """
    app = FastAPIOffline(
        title="mnist_cnn",
        description="Reads handwritten digits.",
        version=versions().get("mnist-cnn", "not installed"),
        redoc_url=None,
    )

    @app.post("/read")
    def read_picture(
        content: Annotated[bytes, Body(media_type="application/octet-stream")],
        preview: bool = False,
    ) -> PictureRead:
        """Reads the digits of a picture: PNG, JPEG, WebP, GIF, TIFF and others."""
        try:
            return read_file(net, content, preview)
        except ValueError as error:
            raise HTTPException(422, str(error).removeprefix("the picture: ")) from None

    @app.post("/classify")
    def classify_images(images: Squares) -> Classified:
        """Classifies images of 28x28 pixels, white ink on black, as MNIST's are."""
        with _working, torch.inference_mode():
            found = net(torch.tensor(images, dtype=torch.uint8)).float()
        return Classified(digits=found.argmax(1).tolist(), probabilities=found.tolist())

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    app.mount("/", StaticFiles(directory=PAGE, html=True))
    app.add_exception_handler(RequestValidationError, explain)
    app.middleware("http")(guard)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    return app


async def explain(request: Request, error: Exception) -> Response:
    """Answer with the first fault of a request's body, in one line."""
    assert isinstance(error, RequestValidationError)
    fault = error.errors()[0]
    place = ".".join(map(str, fault["loc"]))
    return JSONResponse({"detail": f"{place}: {fault['msg']}"}, 422)


async def guard(request: Request, respond: Callable[[Request], Awaitable[Response]]) -> Response:
    """Answer a request, or refuse what is too large, too slow or sent by another site's page."""
    async with _bodies if request.method == "POST" else contextlib.nullcontext():
        response = await refusal(request) or await respond(request)
    scripts = " 'unsafe-inline'" if request.url.path == "/docs" else ""
    response.headers["Content-Security-Policy"] = POLICY.format(scripts=scripts)
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


async def refusal(request: Request) -> Response | None:
    """Take in the body of a POST; return the refusal of a request, or None."""
    headers = request.headers
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != headers.get("host"):
        return JSONResponse({"detail": f"{origin} must be this server's own page"}, 403)
    if request.method == "POST":
        # a body in chunks has no length, whatever the header says
        if "content-length" not in headers or "transfer-encoding" in headers:
            return JSONResponse({"detail": "the body's length must be given, and no chunks"}, 411)
        if int(headers["content-length"]) > MAX_BYTES:
            return JSONResponse({"detail": f"the body must be at most {MAX_BYTES:,} bytes"}, 413)
        try:
            await asyncio.wait_for(request.body(), MAX_SECONDS)
        except (asyncio.TimeoutError, ClientDisconnect):
            return JSONResponse({"detail": "the body took too long to arrive"}, 408)
    return None
