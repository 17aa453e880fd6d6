"""What the proxy says when a replica has died on a client."""

from __future__ import annotations

import json
import pkgutil
from typing import Any

import httpx
import openai
import pytest
from uvicorn.protocols.http import auto

from mesh.ingress.ending import Ending
from mesh.ingress.errors import STATUSES
from mesh.ingress.limits import Limits
from mesh.ingress.patience import Impatient
from mesh.ingress.proxy import CALLBACK, environment

SSE = [(b"content-type", b"text/event-stream; charset=utf-8")]


class Replicas:
    """Behind a proxy: each in turn reads ``reads`` messages, sends those that it is given, and no more."""

    def __init__(self, *lives: list[dict[str, Any]], reads: int = 1) -> None:
        self.lives, self.reads = list(lives), reads
        self.heard: list[list[Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.heard.append([await receive() for _ in range(self.reads)])
        for message in self.lives.pop(0):
            await send(message)


def client(*messages: dict[str, Any]) -> httpx.AsyncClient:
    """Asks a proxy all of whose replicas send these messages and no more."""
    return asking(Replicas(list(messages), list(messages)))


def asking(replicas: Replicas, most: int = 1000) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(Ending(replicas, most)), base_url="http://test")


def start(headers: Any = SSE) -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": headers}


def body(text: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": text, "more_body": more}


async def test_without_a_response_of_two_replicas_it_says_to_ask_again() -> None:
    async with client() as asking:
        answer = await asking.get("/")
    assert answer.status_code == 503
    assert answer.status_code in STATUSES
    assert answer.json()["error"]["code"] == "replica_lost"
    assert answer.headers["retry-after"] == "1"
    assert "x-should-retry" not in answer.headers


WHOLE = [start([]), body(b"{}", more=False)]
CHAT = "/v1/chat/completions"


async def test_when_a_replica_has_said_nothing_another_is_asked_the_same() -> None:
    replicas = Replicas([], WHOLE)
    async with asking(replicas) as client:
        answer = await client.post(CHAT, content=b"question")
    assert (answer.status_code, answer.text) == (200, "{}")
    assert replicas.heard == [[{"type": "http.request", "body": b"question", "more_body": True}]] * 2


async def test_what_has_come_is_heard_again_and_then_what_comes() -> None:
    sent: list[Any] = []
    parts = iter([{"type": "http.request", "body": part, "more_body": True} for part in (b"a", b"b", b"c")])

    class Second(Replicas):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            self.reads += 1
            await super().__call__(scope, receive, send)

    async def receive() -> Any:
        return next(parts)

    async def send(message: Any) -> None:
        sent.append(message)

    replicas = Second([], WHOLE)
    await Ending(replicas, 1000)({"type": "http", "method": "POST", "path": CHAT, "headers": []}, receive, send)
    assert [[message["body"] for message in heard] for heard in replicas.heard] == [[b"a", b"b"], [b"a", b"b", b"c"]]
    assert sent == WHOLE


@pytest.mark.parametrize(
    ("path", "most"),
    [
        ("/v1/mesh/agents", 1000),  # it may have been done
        (CHAT, 7),  # not all of the question is kept
    ],
)
async def test_nobody_else_is_asked_where_that_may_do_harm_or_cannot_be_done(path: str, most: int) -> None:
    replicas = Replicas([], WHOLE)
    async with asking(replicas, most) as client:
        answer = await client.post(path, content=b"question")
    assert answer.json()["error"]["code"] == "replica_lost"
    assert len(replicas.heard) == 1


async def test_nobody_else_is_asked_for_a_client_that_has_gone() -> None:
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    replicas = Replicas([], WHOLE)
    await Ending(replicas, 1000)({"type": "http", "method": "POST", "path": CHAT, "headers": []}, receive, send)
    assert len(replicas.heard) == 1


async def test_a_stream_that_broke_off_ends_with_an_error_and_properly() -> None:
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": []}
    async with client(start(), body(f"data: {json.dumps(chunk)}\n\n".encode())) as http:
        asking = openai.AsyncOpenAI(base_url="http://test/v1", api_key="none", http_client=http)
        chunks = await asking.chat.completions.create(model="m", messages=[], stream=True)
        assert (await anext(chunks)).id == "1"
        with pytest.raises(openai.APIError) as told:
            await anext(chunks)
    assert told.value.code == "replica_lost"
    assert "has died" in told.value.message


async def test_what_ended_by_itself_stays_as_it_is() -> None:
    async with client(start(), body(b"data: 1\n\n"), body(b"", more=False)) as asking:
        assert (await asking.get("/")).text == "data: 1\n\n"
    async with client(start([]), body(b"{}", more=False)) as asking:
        assert (await asking.get("/")).text == "{}"


async def test_half_a_body_that_is_no_stream_gets_nothing_behind_it() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def replica(scope: Any, receive: Any, send: Any) -> None:
        await send(start([(b"content-type", b"application/json")]))
        await send(body(b"{"))

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    await Ending(replica, 1000)(scope, send, send)
    assert sent[-1] == body(b"{")


def test_the_proxy_finds_what_it_must_do_by_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Impatient, "limits", Limits())
    monkeypatch.setattr(auto, "AutoHTTPProtocol", auto.AutoHTTPProtocol)
    told = environment(Limits(header_s=3))
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    prepared = pkgutil.resolve_name(told[CALLBACK])()
    assert [(each.cls, each.kwargs) for each in prepared] == [(Ending, {"most": 1_000_000})]
    assert auto.AutoHTTPProtocol is Impatient
    assert Impatient.limits.header_s == 3
