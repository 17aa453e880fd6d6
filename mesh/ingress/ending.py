"""What stands in Serve's proxy, around its way to a replica: when that dies, its clients are told so as OpenAI would.

Serve itself would send a bare 500, or break the connection off.
"""

from __future__ import annotations

import json

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mesh.ingress.errors import Refused

LOST = Refused(503, "replica_lost", "the process that answered has died; ask again", retry_after_s=1.0)


class Ending:
    """Around an application that may return without having ended its response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        begun = streams = ended = False

        async def told(message: Message) -> None:
            nonlocal begun, streams, ended
            if message["type"] == "http.response.start":
                begun = True
                streams = Headers(raw=message["headers"]).get("content-type", "").startswith("text/event-stream")
            elif message["type"] == "http.response.body":
                ended = not message.get("more_body", False)
            await send(message)

        await self.app(scope, receive, told)
        if not begun:  # OpenAI's clients then ask again by themselves
            response = Response(json.dumps(LOST.body), LOST.status, LOST.headers, "application/json")
            await response(scope, receive, send)
        elif streams and not ended:
            events = f"data: {json.dumps(LOST.body)}\n\ndata: [DONE]\n\n"
            await send({"type": "http.response.body", "body": events.encode()})
