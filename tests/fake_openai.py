"""A chat-completions endpoint on the loopback that answers as it is told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Fake:
    """An endpoint that answers as ``reply`` does, and remembers what it was asked."""

    reply: Callable[[Fake, web.Request], Awaitable[web.StreamResponse]]
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    dropped: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        self.keys.append(request.headers["Authorization"])
        self.asked.set()
        try:
            return await self.reply(self, request)
        except asyncio.CancelledError:
            self.dropped.set()
            raise


@asynccontextmanager
async def endpoint(reply: Any) -> AsyncIterator[Fake]:
    """A fake that listens on the loopback."""
    fake = Fake(reply)
    app = web.Application()
    app.router.add_post("/v1/chat/completions", fake.handle)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield fake
    finally:
        await runner.cleanup()


def chunk(text: str | None = None, finish: str | None = None, logprobs: list[float] | None = None) -> dict[str, Any]:
    entries = (
        None if logprobs is None else {"content": [{"token": "t", "logprob": p, "top_logprobs": []} for p in logprobs]}
    )
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish, "logprobs": entries}]}


def usage(prompt: int, completion: int) -> dict[str, Any]:
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": 0}}


def streaming(*events: dict[str, Any] | str, then: str = "done", event_s: float = 0.0) -> Any:
    """A reply that streams ``events`` and is ``done``, ``hang``s, ends ``early`` or breaks its connection (``die``)."""

    async def reply(fake: Fake, asked: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(asked)
        for event in events:
            data = event if isinstance(event, str) else json.dumps(event)
            await asyncio.sleep(event_s)
            await response.write(f"data: {data}\n\n".encode())
        if then == "hang":
            await asyncio.sleep(60)
        if then == "die":
            assert asked.transport is not None
            asked.transport.abort()
        if then == "done":
            await response.write(b"data: [DONE]\n\n")
        return response

    return reply


def scoring(top: dict[str, float] | None, prompt_tokens: int) -> Any:
    """A reply of one token, with these as the likeliest in its place (None: it gives no log-probabilities)."""

    async def reply(fake: Fake, asked: web.Request) -> web.StreamResponse:
        tops = [{"token": token, "logprob": p} for token, p in (top or {}).items()]
        logprobs = None if top is None else {"content": [{"token": "x", "logprob": -1.0, "top_logprobs": tops}]}
        choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "logprobs": logprobs}
        spent = {"prompt_tokens": prompt_tokens, "completion_tokens": 1}
        return web.json_response({"choices": [choice], "usage": spent})

    return reply
