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


def client(*messages: dict[str, Any]) -> httpx.AsyncClient:
    """Asks a proxy whose replica sends these messages and no more."""

    async def replica(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return httpx.AsyncClient(transport=httpx.ASGITransport(Ending(replica)), base_url="http://test")


def start(headers: Any = SSE) -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": headers}


def body(text: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": text, "more_body": more}


async def test_without_a_response_it_says_to_ask_again() -> None:
    async with client() as asking:
        answer = await asking.get("/")
    assert answer.status_code == 503
    assert answer.status_code in STATUSES
    assert answer.json()["error"]["code"] == "replica_lost"
    assert answer.headers["retry-after"] == "1"
    assert "x-should-retry" not in answer.headers


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

    await Ending(replica)({"type": "http"}, send, send)
    assert sent[-1] == body(b"{")


def test_the_proxy_finds_what_it_must_do_by_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Impatient, "limits", Limits())
    monkeypatch.setattr(auto, "AutoHTTPProtocol", auto.AutoHTTPProtocol)
    told = environment(Limits(header_s=3))
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    prepared = pkgutil.resolve_name(told[CALLBACK])()
    assert [each.cls for each in prepared] == [Ending]
    assert auto.AutoHTTPProtocol is Impatient
    assert Impatient.limits.header_s == 3
