"""A page to draw on: python -m mnist_cnn.demo [ckpt_path=PATH] [--host 127.0.0.1] [--port 7860]

The page is this package's own (page/), served by Gradio; nothing in it comes from another machine,
and what is drawn is read from memory, never from a file.
"""

import argparse
import asyncio
import base64
import contextlib
import errno
import importlib.util
import io
import json
import os
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_cnn.command import command, parse
from mnist_cnn.config.messages import install

if TYPE_CHECKING:
    import fastapi
    from PIL import Image
    from starlette.types import ASGIApp, Receive, Scope, Send

    from mnist_cnn.reading.reader import Net

PAGE = Path(__file__).parent / "reading" / "page"
NEEDED = ("gradio", "fastapi", "starlette", "uvicorn", "cv2", "PIL")  # what the extra brings

MAX_BYTES = 20_000_000  # of a picture's file
MAX_BODY = MAX_BYTES * 4 // 3 + 10_000  # the same in base64, and what a request says around it
MAX_BODIES = 16  # requests taken in at once; the others wait
PATIENCE = 60  # seconds for a request to arrive: one that never ends would keep the others waiting
PREVIEW = 1000  # longest side in pixels of a picture as it is shown on the sheet

# what the page asks for; Gradio has many more routes, to files, sessions and other servers too
SERVED = {
    "GET": (
        ("/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/gradio_api/info"),
        ("/assets/", "/static/", "/gradio_api/heartbeat/"),
    ),
    "POST": (("/gradio_api/component_server/",), ()),
}
# a browser that keeps to this asks no other machine for anything
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; form-action 'self'; base-uri 'self'"
)

# pictures worked on at once: each of 100 megapixels takes some hundred megabytes for a while
_working = threading.BoundedSemaphore(os.cpu_count() or 1)


def answer(net: "Net", sent: object, preview: bool) -> dict[str, Any]:
    """What the page shows for a picture; any input gets an answer.

    Args:
        net: probabilities (N, 10) of uint8 images (N, 28, 28).
        sent: the bytes of a picture's file as a data URL, data:TYPE;base64,CONTENT.
        preview: whether to send back the picture as it was understood.

    Returns:
        text: the digits as they are written, ? for what is unsure, rows on lines of their own.
        refused: why the picture was not read, or None.
        preview: the picture as it was understood, a data URL, or None.
        digits: for each its digit (None if unsure), best, probabilities (10,), box (left, top,
            right, bottom, in shares of the picture's width and height), and image, the 784 bytes
            that the network saw in base64.
    """
    from mnist_cnn.reading.picture import load_picture
    from mnist_cnn.reading.reader import read_digits, written

    try:
        content = _content(sent)
        with _working:
            picture = load_picture(content)
            readings = read_digits(picture, net)
    except ValueError as error:
        reason = str(error).removeprefix("the picture: ")
        return {"text": "", "refused": f"This cannot be read: {reason}.", "digits": []}
    width, height = picture.size
    return {
        "text": written(readings),
        "refused": None,
        # a browser shows neither every format nor the turn that some files ask for
        "preview": _preview(picture) if preview else None,
        "digits": [
            {
                "digit": reading.digit,
                "best": reading.best,
                "probabilities": [round(float(p), 6) for p in reading.probabilities],
                "box": [
                    side / (height if axis % 2 else width) for axis, side in enumerate(reading.box)
                ],
                "image": base64.b64encode(reading.image.tobytes()).decode(),
            }
            for reading in readings
        ],
    }


def _content(sent: object) -> bytes:
    """The bytes of a data URL; ValueError for anything else."""
    start, comma, text = sent.partition(",") if isinstance(sent, str) else ("", "", "")
    if not comma or not start.startswith("data:") or not start.endswith(";base64"):
        raise ValueError("it did not arrive as a file")
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError:
        raise ValueError("it arrived damaged") from None
    if len(content) > MAX_BYTES:
        raise ValueError(f"over {MAX_BYTES // 10**6} MB")
    return content


def _preview(picture: "Image.Image") -> str:
    small = picture.convert("RGB")
    small.thumbnail((PREVIEW, PREVIEW))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


class Gate:
    """ASGI middleware: serves what the page asks for and nothing else, takes in nothing large."""

    def __init__(self, app: "ASGIApp", component: int):
        self.app, self.component = app, component
        self.bodies = asyncio.Semaphore(MAX_BODIES)

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        from starlette.datastructures import Headers, MutableHeaders
        from starlette.requests import ClientDisconnect, Request
        from starlette.responses import PlainTextResponse

        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = POLICY
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # a websocket: closed unopened
            return await send({"type": "websocket.close"})
        refusal = _refusal(scope["method"], scope["path"], Headers(scope=scope))
        if refusal:
            code, reason = refusal
            return await PlainTextResponse(reason, code)(scope, receive, send_with_policy)
        if scope["method"] != "POST":
            return await self.app(scope, receive, send_with_policy)
        async with self.bodies:
            try:
                body = await asyncio.wait_for(Request(scope, receive).body(), PATIENCE)
            except ClientDisconnect:
                return None
            except asyncio.TimeoutError:
                late = PlainTextResponse("It took too long to arrive.", 408)
                return await late(scope, receive, send_with_policy)
            if not _is_the_pages(body, self.component):
                other = PlainTextResponse("The page asks otherwise.", 422)
                return await other(scope, receive, send_with_policy)
            arrived: list[Any] = [{"type": "http.request", "body": body}]

            async def receive_again() -> Any:
                return arrived.pop() if arrived else await receive()

            await self.app(scope, receive_again, send_with_policy)


def _refusal(method: str, path: str, headers: Any) -> tuple[int, str] | None:
    """The status and the reason to refuse a request with, or None for one of the page's own."""
    paths, folders = SERVED.get("GET" if method == "HEAD" else method, ((), ()))
    if path not in paths and not path.startswith(folders):
        return 404, "There is nothing here."
    if method != "POST":
        return None
    # a body in chunks has no length, whatever the header says
    if "content-length" not in headers or "transfer-encoding" in headers:
        return 411, "The length must be given."
    if int(headers["content-length"]) > MAX_BODY:
        return 413, f"At most {MAX_BYTES // 10**6} MB can be read."
    return None


def _is_the_pages(body: bytes, component: int) -> bool:
    """Whether a request asks for one of the page's functions, as the page does it."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return (
        isinstance(asked, dict)
        and asked.keys() == {"data", "component_id", "fn_name", "session_hash"}
        and asked["component_id"] == component
        and asked["fn_name"] in ("read_drawing", "read_picture")
        and isinstance(asked["session_hash"], str)
    )


def application(net: "Net") -> "fastapi.FastAPI":
    """The page and its server, as an ASGI application.

    Args:
        net: probabilities (N, 10) of uint8 images (N, 28, 28).
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported
    import fastapi
    import gradio as gr

    def read_drawing(sent: object) -> dict[str, Any]:
        return answer(net, sent, preview=False)

    def read_picture(sent: object) -> dict[str, Any]:
        return answer(net, sent, preview=True)

    with gr.Blocks(title="Draw a digit", analytics_enabled=False) as blocks:
        page = gr.HTML(
            html_template=(PAGE / "page.html").read_text("utf-8"),
            js_on_load=(PAGE / "page.js").read_text("utf-8"),
            server_functions=[read_drawing, read_picture],
            apply_default_css=False,
            max_bytes=MAX_BYTES,
        )
    app = fastapi.FastAPI(openapi_url=None)
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        # the system's fonts: Gradio's themes name some of a font server's
        theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        head=f"<style>{(PAGE / 'page.css').read_text('utf-8')}</style>",
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
    )
    app.add_middleware(Gate, component=page._id)
    return app


def serve(ckpt_path: str | None, host: str, port: int) -> None:
    """Serves the page until it is interrupted.

    Raises:
        ValueError: ckpt_path is none of this project's networks that read digits.
        OSError: the address cannot be had.
    """
    listening = _listen(host, port)  # before the slow imports: the likeliest mistake
    with listening:
        import cv2
        import torch
        import uvicorn

        from mnist_cnn import pretrained

        # many small pictures at once: threads within each would only get in each other's way
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        server = uvicorn.Server(
            uvicorn.Config(
                application(pretrained.load_digits(ckpt_path)),
                log_level="warning",
                timeout_graceful_shutdown=1,  # an open page holds a connection
            )
        )
        host, port = listening.getsockname()[:2]
        print(f"Draw at http://{f'[{host}]' if ':' in host else host}:{port} (Ctrl-C stops)")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):  # how uvicorn ends after Ctrl-C
            server.run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        created = socket.create_server((host, port), family=family)
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        reason = (
            "is in use: choose another with --port"
            if in_use
            else f"cannot be had: {error.strerror}"
        )
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
