"""The barest thing that serves an engine as OpenAI's clients expect: Ray Serve, FastAPI and one streaming Ray actor.

What a mesh is held to: no keys, limits, ledger, metrics, routing or failover; the same engine, the same stream.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import ray
from fastapi import FastAPI
from pydantic import BaseModel
from ray import serve
from starlette.responses import StreamingResponse

from agents.engines import ENGINES
from agents.engines.base import Setup
from agents.messages import Message, Request
from agents.plugins import build
from agents.spec import AgentSpec
from mesh.ingress.serving import LEAN
from mesh.runtimes.ray import gpus_for

CALLS = 20_000  # at once


class ChatMessage(BaseModel):
    """One message."""

    role: str
    content: str


class ChatRequest(BaseModel):
    """What is asked."""

    model: str
    messages: list[ChatMessage]
    stream: Literal[True] = True
    max_tokens: int = 512


class Streamer:
    """The actor: an engine, and its pieces as they come."""

    def __init__(self, kind: str, setup: Setup, options: dict[str, Any]) -> None:
        self._engine = build(ENGINES, kind, "engine", setup, **options)
        self._numbers = itertools.count()

    async def start(self) -> None:
        """Load the model."""
        await self._engine.start()

    async def close(self) -> None:
        """End it."""
        await self._engine.close()

    async def stream(self, messages: list[tuple[str, str]], max_tokens: int) -> AsyncIterator[str]:
        """The text of a draft, piece by piece."""
        key = str(next(self._numbers)), 1
        request = Request(key, 1, tuple(Message(*each) for each in messages), max_tokens)
        async for piece in self._engine.generate(request):
            yield piece.text


def application(actor: Any) -> serve.Application:
    """The Serve application around such an actor."""
    app = FastAPI()

    @serve.deployment(name="bare", max_ongoing_requests=CALLS, **LEAN)
    @serve.ingress(app)
    class Bare:
        """One replica."""

        @app.post("/v1/chat/completions")
        async def chat(self, body: ChatRequest) -> StreamingResponse:
            messages = [(message.role, message.content) for message in body.messages]
            pieces = actor.stream.options(num_returns="streaming").remote(messages, body.max_tokens)
            return StreamingResponse(_events(pieces, body.model), media_type="text/event-stream")

    return Bare.bind()


async def _events(pieces: Any, model: str) -> AsyncIterator[str]:
    common = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
    }

    def event(delta: dict[str, str], finish: str | None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return f"data: {json.dumps({**common, 'choices': [choice]})}\n\n"

    role = {"role": "assistant"}
    async for piece in pieces:
        yield event({"content": await piece, **role}, None)
        role = {}
    yield event({}, "stop")
    yield "data: [DONE]\n\n"


@contextlib.contextmanager
def served(spec: AgentSpec) -> Iterator[tuple[str, Any]]:
    """Serve the engine of ``spec`` beside what Serve serves already; gives the path that leads there, and the actor."""
    app, (kind, settings) = f"bare-{spec.name}", spec.engine
    options = {"num_cpus": spec.num_cpus, "num_gpus": gpus_for(spec), "max_concurrency": CALLS}
    actor = ray.remote(Streamer).options(**options, enable_task_events=False).remote(kind, spec.setup, dict(settings))
    try:
        ray.get(actor.start.remote())
        serve.run(application(actor), name=app, route_prefix=f"/{app}")
        try:
            yield f"/{app}", actor
        finally:
            serve.delete(app)
            ray.get(actor.close.remote())
    finally:
        ray.kill(actor)
