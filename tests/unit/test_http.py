"""The HTTP API, on loopback, with OpenAI's own client and with plain requests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from agents.messages import Asked
from agents.node import _HANDLERS, Node
from mesh.ingress.door import Door
from mesh.ingress.http import application
from mesh.ingress.keys import Key, new_key, read_keys
from mesh.ingress.ledger import Ledger
from mesh.ingress.limits import Limits
from mesh.ingress.served import ServedMesh
from tests.ray.conftest import until
from tests.serving import WORDS, pool, served

TWO = pool({"a": {"refuse": 1.0}, "b": {"answer": WORDS, "pieces": 5}})
CHAT = {"model": "mesh", "messages": [{"role": "user", "content": "count"}]}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(TWO) as (address, _):
        yield address


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
        yield made


def ask(url: str, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
    return httpx.post(f"{url}/v1/chat/completions", json={**CHAT, **fields}, headers=headers, timeout=30)


def refused(answer: httpx.Response, status: int, code: str, *words: str) -> None:
    """It was refused, in OpenAI's shape, and the message has these words."""
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), error
    assert set(error) == {"message", "type", "param", "code"}
    for word in words:
        assert word in error["message"]


# ---------------------------------------------------------------------------------- answers


def test_an_answer_and_how_it_came_about(client: openai.OpenAI) -> None:
    answer = client.chat.completions.with_raw_response.create(model="mesh", messages=CHAT["messages"])
    reply = answer.parse()
    assert reply.choices[0].message.content == WORDS
    assert reply.choices[0].finish_reason == "stop"
    assert (reply.usage.prompt_tokens > 0, reply.usage.completion_tokens) == (True, 5)
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + 5
    told = reply.model_extra["mesh"]
    assert [(hop["agent"], hop["verdict"]) for hop in told["path"]] == [("a", "refused"), ("b", "answered")]
    assert (told["agent"], told["cost"], told["id"]) == ("b", 0.9, reply.id)
    assert told["full_cost"] > 0
    headers = answer.headers
    assert (headers["x-mesh-agent"], headers["x-mesh-hops"], headers["x-mesh-cost"]) == ("b", "2", "0.9")
    assert 0 <= float(headers["x-mesh-overhead-ms"]) < 10_000


def test_a_stream(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model="mesh", messages=CHAT["messages"], stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert (len(texts), "".join(texts)) == (5, WORDS)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:] if chunk.choices] == ["stop"]
    assert chunks[-2].model_extra["mesh"]["agent"] == "b"
    assert (chunks[-1].choices, chunks[-1].usage.completion_tokens) == ([], 5)


async def test_the_asynchronous_client(url: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        reply = await client.chat.completions.create(model="b", messages=CHAT["messages"])
        assert reply.choices[0].message.content == WORDS
        stream = await client.chat.completions.create(model="mesh", messages=CHAT["messages"], stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == WORDS


def test_completions(client: openai.OpenAI) -> None:
    reply = client.completions.create(model="mesh", prompt="count")
    assert (reply.choices[0].text, reply.choices[0].finish_reason) == (WORDS, "stop")
    chunks = list(client.completions.create(model="mesh", prompt=["count"], stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == WORDS
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:]] == [None, "stop"]


def test_models(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names == ["mesh", "mesh-alpha-0.2", "mesh-alpha-0.5", "mesh-alpha-0.8", "a", "b"]
    assert client.models.retrieve("mesh-alpha-0.123").id == "mesh-alpha-0.123"
    with pytest.raises(openai.NotFoundError, match=r"'c'; it must be one of mesh, .*, a, b"):
        client.models.retrieve("c")


def test_one_agent_answers_alone(url: str) -> None:
    """Also one that would rather not."""
    told = ask(url, model="a").json()["mesh"]
    assert [(hop["agent"], hop["reason"]) for hop in told["path"]] == [("a", "forced")]
    assert ask(url, model="b").json()["mesh"]["path"][0]["agent"] == "b"
    refused(ask(url, model="b", entry="a"), 400, "invalid_value", "entry: 'a'", "only agent")


def test_an_agent_that_fails_alone_has_no_stand_in() -> None:
    with served(pool({"a": {"answer": "from a"}, "b": {"fail": 1.0}})) as (url, _):
        answer = ask(url, model="b")
        refused(answer, 502, "no_agent_left", "b failed")
        assert answer.headers["x-should-retry"] == "false"
        assert ask(url, entry="b").json()["mesh"]["agent"] == "a"


@pytest.mark.parametrize(
    ("model", "header", "body", "alpha"),
    [
        ("mesh", None, None, 0.5),
        ("mesh-alpha-0.3", None, None, 0.3),
        ("mesh-alpha-0.3", "0.25", None, 0.25),
        ("mesh-alpha-0.3", "0.25", 1, 1.0),
        ("b", "0", None, 0.0),
    ],
)
def test_alpha_is_the_bodys_else_the_headers_else_the_models(
    url: str, model: str, header: str | None, body: float | None, alpha: float
) -> None:
    headers = {"X-Mesh-Alpha": header} if header else {}
    told = ask(url, headers, model=model, **({} if body is None else {"alpha": body})).json()["mesh"]
    assert told["alpha"] == alpha


@pytest.mark.parametrize(
    ("header", "body", "priority"), [(None, None, 1), ("high", None, 2), ("high", "low", 0), (None, "high", 2)]
)
def test_priority_is_the_bodys_else_the_headers(
    url: str, header: str | None, body: str | None, priority: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[int]()
    taken = Node._asked

    def asked(self: Node, event: Asked, *rest: Any) -> None:
        seen.append(event.query.priority)
        taken(self, event, *rest)

    monkeypatch.setitem(_HANDLERS, Asked, asked)
    headers = {"X-Mesh-Priority": header} if header else {}
    told = ask(url, headers, **({} if body is None else {"priority": body})).json()["mesh"]
    assert set(seen) == {priority}
    assert told["alpha_used"] == told["alpha"] == 0.5


def test_options_are_the_meshs(url: str) -> None:
    refused(ask(url, {"X-Mesh-Priority": "urgent"}), 400, "invalid_value", "X-Mesh-Priority: priority: 'urgent'")
    assert ask(url, entry="b").json()["mesh"]["path"][0]["agent"] == "b"
    short = ask(url, max_tokens=2).json()
    assert short["usage"]["completion_tokens"] <= 2
    refused(ask(url, max_cost=1e-9), 400, "budget_exceeded", "max_cost 1e-09")
    refused(ask(url, entry="z"), 400, "invalid_value", "unknown agent 'z'")
    parts = [{"type": "text", "text": "x"}]
    chat = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": parts}]
    assert ask(url, messages=chat).status_code == 200


def test_an_answer_may_be_sent_back_as_it_came(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="mesh", messages=CHAT["messages"]).choices[0].message
    nothing = {"annotations": [], "audio": None, "function_call": None, "tool_calls": [], "refusal": ""}
    for form in (answer, answer.model_dump(), {**answer.model_dump(), **nothing}):
        messages: Any = [*CHAT["messages"], form, *CHAT["messages"]]
        assert client.chat.completions.create(model="mesh", messages=messages).choices[0].message.content == WORDS


# ---------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("fields", "status", "code", "words"),
    [
        ({"model": "gpt-9"}, 404, "model_not_found", "model: 'gpt-9'; it must be one of mesh"),
        ({"model": "mesh-alpha-2"}, 400, "invalid_value", "number from 0"),
        ({"model": "mesh-alpha-nan"}, 400, "invalid_value", "number from 0"),
        ({"model": 3}, 400, "invalid_value", "model: 3; Input should be a valid string"),
        ({"messages": []}, 400, "invalid_value", "messages: []"),
        ({"messages": [{"role": "user", "content": " "}]}, 400, "invalid_value", "not empty"),
        ({"messages": [{"role": "robot", "content": "x"}]}, 400, "invalid_value", "messages[0].role: 'robot'"),
        ({"messages": [{"role": "user"}]}, 400, "missing_field", "messages[0].content: it is missing"),
        ({"alhpa": 0.3}, 400, "unknown_field", "alhpa: there is no such field"),
        ({"alpha": 1.5}, 400, "invalid_value", "alpha: 1.5; it must be a number from 0"),
        ({"alpha": "0.3"}, 400, "invalid_value", "alpha: '0.3'"),
        ({"alpha": True}, 400, "invalid_value", "alpha: True"),
        ({"deadline_s": 0}, 400, "invalid_value", "deadline_s: 0"),
        ({"max_tokens": 0}, 400, "invalid_value", "max_tokens: 0"),
        ({"max_tokens": 10**9}, 400, "invalid_value", "max_tokens: 1000000000; it must be at most"),
        ({"seed": -1}, 400, "invalid_value", "seed: -1"),
        ({"n": 2}, 400, "invalid_value", "n: 2"),
        ({"tools": [{"type": "function"}]}, 400, "invalid_value", "tools: "),
        ({"response_format": {"type": "json_object"}}, 400, "invalid_value", "response_format.type: 'json_object'"),
        (
            {"messages": [{**CHAT["messages"][0], "tool_calls": [{}]}]},
            400,
            "invalid_value",
            "messages[0].tool_calls: [{}]",
        ),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, 400, "invalid_value", "surrogate"),
        ({"model": "\ud800"}, 404, "model_not_found", ""),
    ],
)
def test_wrong_requests_are_told_what_is_wrong(
    url: str, fields: dict[str, Any], status: int, code: str, words: str
) -> None:
    for stream in (False, True):
        body = json.dumps({**CHAT, "stream": stream, **fields})
        answer = httpx.post(
            f"{url}/v1/chat/completions", content=body, headers={"Content-Type": "application/json"}, timeout=30
        )
        refused(answer, status, code, words)


def test_what_is_no_request_at_all(url: str) -> None:
    to, kind = f"{url}/v1/chat/completions", {"Content-Type": "application/json"}
    refused(httpx.post(to, content=b"{", headers=kind), 400, "invalid_json")
    refused(httpx.post(to, content=b"[" * 100_000, headers=kind), 400, "invalid_request")
    refused(httpx.post(to, content=b"[1]", headers=kind), 400, "invalid_value")
    refused(httpx.post(to, content=b'{"model": "\xff"}', headers=kind), 400, "invalid_request")
    refused(httpx.post(to, content=b"model=mesh"), 415, "not_json")
    refused(httpx.get(to), 405, "wrong_method")
    refused(httpx.get(f"{url}/v2"), 404, "no_such_path")
    refused(httpx.get(f"{url}/v1/models/", headers={"Host": "localhost:1"}), 404, "no_such_path")  # no redirect
    text = {"model": "mesh", "prompt": "count", "logprobs": 0}
    refused(httpx.post(f"{url}/v1/completions", json=text), 400, "invalid_value", "logprobs: 0")
    refused(ask(url, {"X-Mesh-Alpha": "much"}), 400, "invalid_value", "X-Mesh-Alpha: alpha: 'much'")


def test_the_deadline_passes() -> None:
    slow = {"answer": WORDS, "pieces": 10, "piece_s": 0.2}
    with served(pool({"a": slow})) as (url, door):
        answer = ask(url, deadline_s=0.3)
        refused(answer, 504, "deadline_exceeded", "0.3 s")
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            stream = client.chat.completions.create(
                model="mesh", messages=CHAT["messages"], stream=True, extra_body={"deadline_s": 0.3}
            )
            seen = [next(stream).choices[0].delta.content]
            with pytest.raises(openai.APIError, match=r"0\.3 s"):
                seen.extend(chunk.choices[0].delta.content for chunk in stream)
        assert seen[0] == "one t"
        (trace,) = [each for each in httpx.get(f"{url}/v1/mesh").json()["last"][:1]]
        assert trace["error"] == "deadline_exceeded"
        assert door.gate.running == 0


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
async def test_who_leaves_before_the_stream_starts_leaves_nothing_behind(spec_version: str) -> None:
    """Neither its place nor its stream, and the generation ends."""
    source = pool({"a": {"answer": WORDS, "pieces": 10, "piece_s": 0.3}})
    with await asyncio.to_thread(ServedMesh.from_yaml(source).start) as mesh:
        door = Door(mesh, Ledger())  # type: ignore[arg-type]

        @contextlib.asynccontextmanager
        async def opened() -> AsyncIterator[Door]:
            yield door

        app = application(opened, local_only=False)
        app.state.door = door
        coming = [{"type": "http.request", "body": json.dumps({**CHAT, "stream": True}).encode(), "more_body": False}]

        async def receive() -> MutableMapping[str, Any]:
            return coming.pop() if coming else {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            raise OSError("gone")

        path = "/v1/chat/completions"
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": spec_version},
            "method": "POST",
            "path": path,
        }
        scope |= {"raw_path": path.encode(), "query_string": b"", "headers": [(b"content-type", b"application/json")]}
        with contextlib.suppress(Exception):
            await app(scope, receive, send)
        assert (door.gate.running, door.gate._streams) == (0, {"anybody": 0})
        await asyncio.sleep(0.1)
        assert (await mesh.rows())[0]["engine_running"] == 0


def test_a_fault_of_ours_tells_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with served(TWO) as (url, door):

        def broken(*args: object, **options: object) -> None:
            raise RuntimeError("a secret prompt")

        monkeypatch.setattr(door.mesh, "aask", broken)
        answer = ask(url)
        refused(answer, 500, "internal_error", "a fault of this server")
        assert "secret" not in answer.text
        assert answer.headers["x-request-id"] in caplog.text
        assert "RuntimeError at test_http.py" in caplog.text
        assert "secret" not in caplog.text


# ---------------------------------------------------------------------------------- the mesh's own


def test_health(url: str) -> None:
    assert httpx.get(f"{url}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{url}/readyz").json() == {"status": "ready"}


def test_what_became_of_a_query(url: str) -> None:
    reply = ask(url, alpha=0.7).json()
    trace = httpx.get(f"{url}/v1/mesh/trace/{reply['id']}").json()
    assert {key: trace[key] for key in ("id", "agent", "alpha", "path", "right")} == {
        "id": reply["id"], "agent": "b", "alpha": 0.7, "path": reply["mesh"]["path"], "right": None,
    }  # fmt: skip
    assert WORDS not in json.dumps(trace)
    refused(httpx.get(f"{url}/v1/mesh/trace/none"), 404, "no_such_query", "'none'")

    to = f"{url}/v1/mesh/feedback"
    assert httpx.post(to, json={"id": reply["id"], "right": False}).json() == {"id": reply["id"], "right": False}
    assert httpx.get(f"{url}/v1/mesh/trace/{reply['id']}").json()["right"] is False
    refused(httpx.post(to, json={"id": "none", "right": True}), 404, "no_such_query")
    refused(httpx.post(to, json={"id": reply["id"], "right": "yes"}), 400, "invalid_value", "right: 'yes'")


def test_learners_hear_of_feedback() -> None:
    learner = {"kind": "tests.pools:Learner"}
    with served({**TWO, "defaults": {"policy": learner}}) as (url, door):
        reply = ask(url).json()
        httpx.post(f"{url}/v1/mesh/feedback", json={"id": reply["id"], "right": True})
        hosts = door.mesh._running.runtime._hosts  # type: ignore[attr-defined]
        assert [outcome.right for outcome in hosts["a#1"].node.policy.heard] == [None, True]
        again = httpx.post(f"{url}/v1/mesh/feedback", json={"id": reply["id"], "right": True})
        assert again.status_code == 200
        other = httpx.post(f"{url}/v1/mesh/feedback", json={"id": reply["id"], "right": False})
        refused(other, 409, "judged_already", "has been said to be right already")
        assert [outcome.right for outcome in hosts["a#1"].node.policy.heard] == [None, True]
        assert door.mesh._replies == {}  # no text is kept


def test_the_mesh_at_a_glance(url: str) -> None:
    ask(url)
    told = httpx.get(f"{url}/v1/mesh").json()
    assert (told["name"], told["alpha"], told["entry"]) == ("test", 0.5, "a")
    agents = [(agent["agent"], agent["state"], agent["cost"]) for agent in told["agents"]]
    assert agents == [("a", "up", 0.1), ("b", "up", 0.9)]
    assert told["topology"] == {"kind": "cascade", "neighbours": {"a": ["b"], "b": []}}
    assert told["last"][0]["agent"] == "b"
    assert "model" not in told["agents"][0]  # for admins


def test_the_api_describes_itself(url: str) -> None:
    told = httpx.get(f"{url}/openapi.json").json()
    statuses = told["paths"]["/v1/chat/completions"]["post"]["responses"]
    assert {"200", "400", "401", "403", "404", "413", "429", "500", "502", "503", "504"} <= set(statuses)
    assert not [
        path for path, routes in told["paths"].items() for each in routes.values() if "422" in each["responses"]
    ]
    assert told["components"]["schemas"]["ChatRequest"]["additionalProperties"] is False


# ---------------------------------------------------------------------------------- who may, and how much

USER, USER_LINE = new_key("ada", "user")
OTHER, OTHER_LINE = new_key("bob", "user")
ADMIN, ADMIN_LINE = new_key("root", "admin")
KEYS: tuple[Key, ...] = read_keys("\n".join([USER_LINE, OTHER_LINE, ADMIN_LINE]))


def with_key(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def locked() -> Iterator[str]:
    with served(TWO, KEYS) as (address, _):
        yield address


def test_without_the_right_key(locked: str) -> None:
    for headers in ({}, with_key("mesh-wrong"), {"Authorization": f"Basic {USER}"}, {"Authorization": "Bearer"}):
        answer = ask(locked, headers)
        refused(answer, 401, "invalid_api_key")
        assert answer.headers["www-authenticate"] == "Bearer"
        for path in ("/v1/models", "/v1/mesh", "/v1/mesh/trace/x", "/v1/nothing"):
            refused(httpx.get(locked + path, headers=headers), 401, "invalid_api_key")
    assert ask(locked, with_key(USER)).status_code == 200
    assert httpx.get(f"{locked}/healthz").status_code == httpx.get(locked).status_code == 200


def test_nobody_sees_anothers_queries(locked: str) -> None:
    reply = ask(locked, with_key(USER)).json()
    to = f"{locked}/v1/mesh/trace/{reply['id']}"
    assert httpx.get(to, headers=with_key(USER)).status_code == 200
    assert httpx.get(to, headers=with_key(ADMIN)).status_code == 200
    refused(httpx.get(to, headers=with_key(OTHER)), 404, "no_such_query")
    assert httpx.get(f"{locked}/v1/mesh", headers=with_key(OTHER)).json()["last"] == []


def test_agents_come_and_go_for_admins(locked: str) -> None:
    to, new = f"{locked}/v1/mesh/agents", {"name": "c", "cost": 0.5, "engine": {"kind": "scripted"}}
    refused(httpx.post(to, json=new, headers=with_key(USER)), 403, "admin_only")
    refused(httpx.delete(f"{to}/b", headers=with_key(USER)), 403, "admin_only")
    admin = with_key(ADMIN)
    assert httpx.post(to, json=new, headers=admin).json() == {"agent": "c", "state": "up"}
    refused(httpx.post(to, json=new, headers=admin), 409, "agent_exists", "'c'")
    assert ask(locked, admin).json()["mesh"]["agent"] == "c"
    assert ask(locked, admin, model="c").json()["mesh"]["agent"] == "c"
    assert httpx.delete(f"{to}/c", headers=admin).json() == {"agent": "c", "state": "removed"}
    refused(httpx.delete(f"{to}/c", headers=admin), 404, "no_such_agent", "'c'")
    refused(httpx.post(to, json={"name": "d"}, headers=admin), 400, "invalid_value", "cost")
    assert ask(locked, admin).json()["mesh"]["agent"] == "b"


def test_who_is_added_over_the_network_runs_nothing_but_our_plug_ins(locked: str) -> None:
    to, admin = f"{locked}/v1/mesh/agents", with_key(ADMIN)
    base = {"name": "c", "cost": 0.5, "engine": {"kind": "scripted"}}
    for wrong, words in (
        ({"engine": {"kind": "os:system"}}, "engine: 'os:system'; over the network it must be one of scripted"),
        ({"policy": "os:system"}, "policy: 'os:system'"),
        ({"assessor": {"kind": "os:system"}}, "assessor: 'os:system'"),
        ({"engine": {"kind": "openai", "base_url": "http://x", "api_key_env": "HOME"}}, "engine.api_key_env: over"),
        ({"engine": {"kind": "openai", "base_url": "http://x"}}, "engine.api_key_env: over"),
        ({"engine": "openai"}, "engine.api_key_env: over"),
        ({"policy": {"kind": "reliability", "gamma": "much"}}, "policy"),  # a TypeError within
    ):
        refused(httpx.post(to, json={**base, **wrong}, headers=admin), 400, "invalid_value", words)
    with served(TWO, KEYS) as (url, door):
        door.trust_admins = True
        own = {**base, "policy": "tests.pools:Restless"}
        assert httpx.post(f"{url}/v1/mesh/agents", json=own, headers=admin).status_code == 200


def test_the_last_agent_stays() -> None:
    with served(pool({"a": {}}), KEYS) as (url, _):
        answer = httpx.delete(f"{url}/v1/mesh/agents/a", headers=with_key(ADMIN))
        refused(answer, 400, "invalid_value", "last")


def test_queries_do_not_wait_for_agents_that_load(monkeypatch: pytest.MonkeyPatch) -> None:
    async def loads(spec: Any) -> None:
        await asyncio.sleep(4)

    with served(TWO, KEYS) as (url, door), ThreadPoolExecutor(64) as others:
        monkeypatch.setattr(door.mesh._control, "add", loads)
        new, admin = {"cost": 0.5, "engine": {"kind": "scripted"}}, with_key(ADMIN)
        threads = min(32, (os.cpu_count() or 1) + 4)  # as many as asyncio has
        for number in range(threads):
            body = {**new, "name": f"n{number}"}
            others.submit(httpx.post, f"{url}/v1/mesh/agents", json=body, headers=admin, timeout=30)
        time.sleep(1.0)
        began = time.monotonic()
        assert ask(url, admin).status_code == 200
        assert time.monotonic() - began < 2


def test_without_keys_only_this_machine_is_let_in(url: str) -> None:
    for elsewhere in ("evil.example", "10.0.0.1:80", "[2001:db8::1]:80", "127.0.0.1.evil.example"):
        refused(ask(url, {"Host": elsewhere}), 403, "wrong_host")
    for here in ("127.0.0.2:80", "[::1]:80", "[::1]", "LOCALHOST"):
        assert httpx.get(f"{url}/healthz", headers={"Host": here}).status_code == 200
    refused(httpx.post(f"{url}/v1/mesh/agents", json={"name": "c"}), 403, "admin_only", "no keys")
    with served(TWO, insecure=True) as (open_to_all, _):
        assert ask(open_to_all, {"Host": "evil.example"}).status_code == 200


def test_too_much_of_everything() -> None:
    few = Limits(body_bytes=2_000, messages=2, max_tokens=10, requests_per_minute=8)
    with served(TWO, KEYS, few) as (url, _):
        user = with_key(USER)
        assert ask(url, user).status_code == 200
        refused(ask(url, user, messages=[{"role": "user", "content": "x" * 3_000}]), 413, "too_large", "2000")
        body = iter([b'{"model": "', b"x" * 3_000])
        kind = {"Content-Type": "application/json", **user}
        refused(httpx.post(f"{url}/v1/chat/completions", content=body, headers=kind), 413, "too_large")
        refused(ask(url, user, messages=3 * CHAT["messages"]), 400, "too_many_messages", "3 of them")
        refused(ask(url, user, max_tokens=11), 400, "invalid_value", "at most 10")
        for _ in range(10):  # looking costs nothing
            assert httpx.get(f"{url}/v1/mesh", headers=user).status_code == 200
        last = [ask(url, user) for _ in range(5)]
        refused(last[-1], 429, "rate_limit_exceeded", "8 requests a minute", "'ada'")
        assert 1 <= int(last[-1].headers["retry-after"]) <= 8
        assert ask(url, with_key(OTHER)).status_code == 200


def test_the_limit_of_tokens_holds_for_who_names_none() -> None:
    with served(TWO, limits=Limits(max_tokens=2)) as (url, _):
        assert ask(url).json()["usage"]["completion_tokens"] <= 2


def test_a_body_that_does_not_come() -> None:
    with served(TWO, limits=Limits(body_s=0.3)) as (url, _):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as slow:
            slow.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 100\r\n\r\n{"
            )
            assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_a_full_house() -> None:
    """One is worked on, one waits, the third is told to come back; and so is who waits too long."""
    slow = {"answer": WORDS, "pieces": 10, "piece_s": 0.15}
    with (
        served(pool({"a": slow}), limits=Limits(running=1, waiting=1, queue_s=0.5)) as (url, door),
        ThreadPoolExecutor() as others,
    ):
        first = others.submit(ask, url)
        assert until(lambda: door.gate.running == 1)
        second = others.submit(ask, url)
        assert until(lambda: door.gate.waiting == 1)
        third = ask(url)
        refused(third, 503, "queue_full")
        assert third.headers["retry-after"] == "1"
        refused(second.result(), 503, "queue_timeout", "0.5 s")
        assert first.result().status_code == 200
        assert (door.gate.running, door.gate.waiting) == (0, 0)


def test_too_many_streams() -> None:
    slow = {"answer": WORDS, "pieces": 10, "piece_s": 0.1}
    with (
        served(pool({"a": slow}), limits=Limits(streams=1)) as (url, _),
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        with client.chat.completions.create(model="mesh", messages=CHAT["messages"], stream=True) as stream:
            next(stream)
            with pytest.raises(openai.RateLimitError, match="1 streams at once"):
                client.chat.completions.create(model="mesh", messages=CHAT["messages"], stream=True)
            assert ask(url).status_code == 200  # that is no stream
        stream = client.chat.completions.create(model="mesh", messages=CHAT["messages"], stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == WORDS
