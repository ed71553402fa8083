"""ASGI middleware that receives request bodies."""

import asyncio
import time
from collections.abc import Callable, Collection

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODIES = 16  # bodies of an operation in memory at once
MAX_SECONDS = 60  # for the head of a body to arrive, and again for the rest once it has a place
HEAD = 65_536  # bytes of each body that are received before it needs a place
GRACE = 1.0  # seconds before a body counts as slow
SLOW = 65_536  # bytes per second


class LateError(Exception):
    """A body took too long to arrive."""


class Arrivals:
    """Middleware that receives the whole bodies of POST requests and passes them on.

    At most MAX_BODIES per path have a place, from their first HEAD bytes to their response; others
    wait. A body that arrives slower than SLOW is refused as soon as another one waits, so that slow
    bodies, however many, do not block the places.

    Args:
        app: application that responds.
        paths: paths of its operations with a body; each has its own places.
    """

    def __init__(self, app: ASGIApp, paths: Collection[str]):
        self.app = app
        self.places = {path: asyncio.Semaphore(MAX_BODIES) for path in paths}
        self.waiting = dict.fromkeys(paths, 0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope.get("method") != "POST" or path not in self.places:
            return await self.app(scope, receive, send)
        arrival = Arrival(receive)
        try:
            await arrival.proceed(HEAD, lambda: False)
            self.waiting[path] += 1
            try:
                await self.places[path].acquire()
            finally:
                self.waiting[path] -= 1
            try:
                await arrival.proceed(None, lambda: self.waiting[path] > 0)
                await self.app(scope, arrival.replay, send)
            finally:
                self.places[path].release()
        except LateError as error:
            # close the connection, too: more of the body may come
            refusal = JSONResponse({"detail": str(error)}, 408, {"Connection": "close"})
            await refusal(scope, receive, send)
        return None


class Arrival:
    """A body that is being received."""

    def __init__(self, receive: Receive):
        self.receive, self.complete, self.body = receive, False, bytearray()

    async def proceed(self, enough: int | None, wanted: Callable[[], bool]) -> None:
        """Receive the body, or at least `enough` bytes of it.

        Args:
            enough: number of bytes; None for the whole body.
            wanted: returns whether another body waits for this one's place.

        Raises:
            LateError: it takes too long, or the client has disconnected.
        """
        started, before = time.monotonic(), len(self.body)
        while not self.complete and (enough is None or len(self.body) < enough):
            pending = asyncio.ensure_future(self.receive())
            try:
                while not pending.done():
                    await asyncio.wait({pending}, timeout=GRACE / 2)
                    now = time.monotonic()
                    slow = len(self.body) - before < SLOW * (now - started - GRACE)
                    if now - started > MAX_SECONDS or (slow and wanted()):
                        raise LateError("the body took too long to arrive")
            finally:
                pending.cancel()
            message = pending.result()
            if message["type"] == "http.disconnect":
                raise LateError("the client has gone")
            self.body += message.get("body", b"")
            self.complete = not message.get("more_body", False)

    async def replay(self) -> Message:
        """Return the whole body as one message, then any further messages."""
        if not self.complete:
            return await self.receive()
        self.complete, body, self.body = False, bytes(self.body), bytearray()
        return {"type": "http.request", "body": body, "more_body": False}
