"""How long Serve's HTTP proxy waits for a request: without a bound, a client that sends a byte a second keeps its
connection for ever, and some thousands of them keep everybody else out ("slow loris").

Serve's server is uvicorn, which bounds only the time between two requests. So its protocol gets a clock.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http import auto
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mesh.ingress.limits import Limits

_MORE_S = 1.0  # after which a body that is late has been refused in words (see ``guard``)
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Impatient(HttpToolsProtocol):
    """Closes a connection whose next request's head has not arrived ``header_s`` after the connection was made, or
    after its first byte; whose body has not arrived ``body_s`` after its head; whose head has more than
    ``header_bytes`` bytes; or whose client has read nothing for ``body_s`` while an answer fills the buffers.
    """

    limits = Limits()
    _clock: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _in_body = False
    _ended = 0  # how many requests have arrived whole
    _head_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The first request's head is due."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._within(self.limits.header_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is due any more."""
        self._stop()
        if self._unread is not None:
            self._unread.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head, and see that its end is due."""
        ended = self._ended
        super().data_received(data)
        if self._in_body or self._ended > ended or self.transport.is_closing():
            return
        self._head_bytes += len(data)  # also of what is no beginning yet, such as empty lines
        if self._head_bytes > self.limits.header_bytes:
            self._refuse(_TOO_LARGE)
        elif self._clock is None:
            self._within(self.limits.header_s)

    def on_message_begin(self) -> None:
        """A head has begun: its end is due."""
        super().on_message_begin()
        if self._clock is None:
            self._within(self.limits.header_s)

    def on_headers_complete(self) -> None:
        """The body's end is due."""
        self._in_body, self._head_bytes = True, 0
        self._within(self.limits.body_s + _MORE_S)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Nothing is due until something comes."""
        self._in_body = False
        self._ended += 1
        self._stop()
        super().on_message_complete()

    def pause_writing(self) -> None:
        """The buffers are full: the client has to read."""
        super().pause_writing()
        self._unread = self.loop.call_later(self.limits.body_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It has."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def _within(self, seconds: float) -> None:
        self._stop()
        self._clock = self.loop.call_later(seconds, self._refuse, _TOO_SLOW)

    def _stop(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _refuse(self, words: bytes) -> None:
        self._stop()
        if not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:  # else they would stand in the midst of an answer
                self.transport.write(words)
            self.transport.close()


def install(limits: Limits) -> None:
    """Have the server that is about to start in this process be impatient."""
    Impatient.limits = limits
    auto.AutoHTTPProtocol = Impatient
