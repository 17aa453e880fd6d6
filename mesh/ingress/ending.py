"""What stands in Serve's proxy, around its way to a replica: when that dies before it has said anything, one
other is asked (no more: it may die of the request); else its client is told so as OpenAI would.

Serve itself would send a bare 500, or break the connection off.
"""

from __future__ import annotations

import json

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mesh.ingress.errors import Refused
from mesh.ingress.limits import ASKING

LOST = Refused(503, "replica_lost", "the process that answered has died; ask again", retry_after_s=1.0)


class Ending:
    """Around an application that may return without having ended its response.

    Args:
        most: bytes of a request's body that are kept until its response begins; of one with more nobody else is asked.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        asked = _Asked(receive, send, self.most)
        harmless = scope["method"] in ("GET", "HEAD") or scope["path"] in ASKING  # to be done twice
        await self.app({**scope, "headers": list(scope["headers"])}, asked.heard(), asked.tell)
        if harmless and asked.can_be_asked_again:
            await self.app(scope, asked.heard(), asked.tell)
        if not asked.begun:  # OpenAI's clients then ask again by themselves
            response = Response(json.dumps(LOST.body), LOST.status, LOST.headers, "application/json")
            await response(scope, receive, send)
        elif asked.streams and not asked.ended:
            events = f"data: {json.dumps(LOST.body)}\n\ndata: [DONE]\n\n"
            await send({"type": "http.response.body", "body": events.encode()})


class _Asked:
    """One request and its response, as far as they have come."""

    def __init__(self, receive: Receive, send: Send, most: int) -> None:
        self._receive, self._send, self._left = receive, send, most
        self._kept: list[Message] = []
        self.begun = self.streams = self.ended = self._gone = False

    @property
    def can_be_asked_again(self) -> bool:
        """Whether its client is there, has heard nothing yet, and all that it has sent is kept."""
        return not self.begun and not self._gone and self._left >= 0

    def heard(self) -> Receive:
        """What has come so far, then what comes."""
        kept = iter(list(self._kept))

        async def receive() -> Message:
            for message in kept:
                return message
            message = await self._receive()
            self._keep(message)
            return message

        return receive

    def _keep(self, message: Message) -> None:
        if message["type"] == "http.disconnect":
            self._gone = True
            return
        self._left -= len(message.get("body", b""))
        if self.can_be_asked_again:
            self._kept.append(message)
        else:
            self._kept.clear()

    async def tell(self, message: Message) -> None:
        """The response's next message."""
        if message["type"] == "http.response.start":
            self.begun = True
            self.streams = Headers(raw=message["headers"]).get("content-type", "").startswith("text/event-stream")
            self._kept.clear()
        elif message["type"] == "http.response.body":
            self.ended = not message.get("more_body", False)
        await self._send(message)
