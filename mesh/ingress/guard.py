"""What stands before every route: whose request it is, that it is not too large nor too slow, and plain errors.

Pure ASGI, since a middleware of Starlette's would stand between a stream and its client.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agents.errors import MeshError
from mesh.ingress.door import Door, log_fault
from mesh.ingress.errors import Refused, refusal
from mesh.ingress.keys import bearer
from mesh.ingress.limits import ASKING
from mesh.ingress.settings import is_loopback

OPEN = ("/", "/healthz", "/readyz", "/openapi.json")  # for whom has no key: nothing is told there
_UNREAD = (408, 413)  # said before all of the body has arrived
_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_ALWAYS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


class JSON(Response):
    """JSON of nothing but ASCII, so that half a surrogate pair in somebody's request cannot break a reply."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":")).encode()


def refused(error: BaseException, asked: str = "messages") -> JSON:
    """The response that says so; where more of the request may be on its way, it is the connection's last."""
    told = refusal(error, asked)
    unread = {"Connection": "close"} if told.status in _UNREAD else {}
    return JSON(told.body, told.status, {**told.headers, **unread})


class Guard:
    """Around the application; ``scope["state"]`` gets ``key``, ``arrived`` and ``request_id``.

    Args:
        local_only: refuse requests for other hosts than this one: a page elsewhere whose name has been made to lead
            here must not ask in the name of who looks at it.
    """

    def __init__(self, app: ASGIApp, local_only: bool) -> None:
        self.app, self.local_only = app, local_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        door: Door = scope["app"].state.door
        state = scope.setdefault("state", {})
        given = Headers(scope=scope).get("x-request-id", "")  # Serve's proxy gives one, and tells the client
        state["arrived"], state["request_id"] = time.monotonic(), given if _ID.fullmatch(given) else os.urandom(8).hex()
        always = _ALWAYS if given else {**_ALWAYS, "X-Request-Id": state["request_id"]}
        begun = False

        async def told(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in always.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            body = await self._checked(door, scope, receive)
            await self.app(scope, _replayed(body, receive), told)
        except Exception as error:
            if not isinstance(error, MeshError):
                log_fault(state["request_id"], error)
            if begun:  # nothing can be said any more but that it ended
                raise
            await refused(error)(scope, receive, told)

    async def _checked(self, door: Door, scope: Scope, receive: Receive) -> bytes:
        """The body of a request that may go on. Raises Refused."""
        headers = Headers(scope=scope)
        if self.local_only and not is_loopback(_host(headers.get("host", ""))):
            told = "without API keys this server is reached as localhost only (`mesh serve --keys` or `--insecure`)"
            raise Refused(403, "wrong_host", told)
        if scope["path"] not in OPEN:
            who = scope["state"]["key"] = door.known(bearer(headers.get("authorization")))
            if scope["path"] in ASKING:
                door.gate.count(who.name)
        if scope["method"] != "POST":  # the only one here with a body; to who sends one otherwise the routes say no
            return b""
        most = door.limits.body_bytes
        declared = headers.get("content-length", "")
        if declared.isdigit() and int(declared) > most:
            raise Refused(413, "too_large", f"the body has {declared} bytes; this server takes at most {most}")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if (declared not in ("", "0") or "transfer-encoding" in headers) and kind != "application/json":
            raise Refused(415, "not_json", f"Content-Type: {kind[:80]!r}; it must be application/json")
        try:
            async with asyncio.timeout(door.limits.body_s):
                return await _read(receive, most)
        except TimeoutError:
            told = f"the body had not arrived after {door.limits.body_s:g} s"
            raise Refused(408, "too_slow", told) from None


async def _read(receive: Receive, most: int) -> bytes:
    parts, size = list[bytes](), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(408, "gone", "the client went away")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise Refused(413, "too_large", f"the body is larger than {most} bytes, the most that this server takes")
        if not message.get("more_body", False):
            return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """``receive`` after its body has been read: the same once more, then what comes."""
    given = False

    async def again() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again


def _host(header: str) -> str:
    """A ``Host`` header without its port, and an address of IPv6 without its brackets."""
    name, colon, port = header.lower().rpartition(":")
    return (name if colon and port.isdigit() else header.lower()).removeprefix("[").removesuffix("]")
