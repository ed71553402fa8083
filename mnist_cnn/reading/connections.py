"""Connections of the service's clients, which uvicorn lets wait for ever for a request's head."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

from mnist_cnn.reading import arrivals


class Connection(H11Protocol):
    """Connection that is closed if the head of a request is not complete in time.

    Every MAX_SECONDS it is closed if it waits for the same head as it did that long ago.
    """

    look: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.look_later(None, True)

    def connection_lost(self, exc: Exception | None) -> None:
        self.look.cancel()
        super().connection_lost(exc)

    def look_later(self, request: object, is_answered: bool) -> None:
        self.look = self.loop.call_later(
            arrivals.MAX_SECONDS, self.close_if_late, request, is_answered
        )

    def close_if_late(self, before: object, was_answered: bool) -> None:
        """Close the connection if the request `before` had been answered, and none came since."""
        is_answered = self.cycle is None or self.cycle.response_complete
        if self.cycle is before and was_answered:
            self.transport.close()
        else:
            self.look_later(self.cycle, is_answered)
