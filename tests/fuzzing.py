"""Requests that nobody should make, from a seed: for HTTP with streams, and for gRPC."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping
from typing import Any

CODE = re.compile(r'Traceback|File "|\.py\b|site-packages|0x[0-9a-f]{6,}')
NUMBERS = (0, -1, 1, 0.5, 2, 1e-300, 1e300, 2**31, 2**53 + 1, -(2**63), 10**400, float("nan"), float("inf"), -0.0)
TEXTS = (
    "",
    " ",
    "mesh",
    "a",
    "b",
    "mesh-alpha-0.3",
    "mesh-alpha-nan",
    "\0",
    "\ud800",
    "é" * 40,
    "x" * 5_000,
    "{}",
)
FIELDS = (
    *("model", "messages", "prompt", "stream", "alpha", "max_cost", "deadline_s", "entry", "seed", "max_tokens"),
    *("stream_options", "n", "stop", "tools", "tool_choice", "temperature", "response_format", "logprobs", "unknown"),
)


def tells_too_much(body: str) -> bool:
    """Whether somebody who reads it learns of our code."""
    return CODE.search(body) is not None


def anything(rng: random.Random, depth: int = 3) -> Any:
    """A value of JSON."""
    leaves: list[Callable[[], Any]] = [
        lambda: rng.choice(NUMBERS),
        lambda: rng.choice(TEXTS),
        lambda: rng.choice((None, True, False)),
    ]
    if depth == 0:
        return rng.choice(leaves)()
    branches: list[Callable[[], Any]] = [
        lambda: [anything(rng, depth - 1) for _ in range(rng.randrange(4))],
        lambda: {rng.choice((*FIELDS, *TEXTS)): anything(rng, depth - 1) for _ in range(rng.randrange(4))},
    ]
    return rng.choice(leaves + branches)()


def message(rng: random.Random) -> Any:
    """A chat message, or nearly."""
    role = rng.choice(("user", "user", "system", "developer", "assistant", "tool", "", None))
    parts = [{"type": rng.choice(("text", "image_url")), "text": rng.choice(TEXTS)} for _ in range(rng.randrange(3))]
    made = {"role": role, "content": rng.choice((rng.choice(TEXTS), "count", parts, None, 3))}
    return made if rng.random() < 0.9 else anything(rng)


def asked(rng: random.Random, chat: bool) -> bytes:
    """The body of a request for chat, or for a completion: right but for a field or two, sometimes no JSON at all."""
    body: dict[str, Any] = {
        "model": rng.choice(("mesh", "mesh", "a", "mesh-alpha-0.3", "d")),
        "stream": rng.random() < 0.7,
    }
    body["messages"] = [{"role": "user", "content": "count"}]
    if not chat:
        body["prompt"] = body.pop("messages")[0]["content"]
    elif rng.random() < 0.2:
        body["messages"] = [message(rng) for _ in range(rng.randrange(4))]
    if rng.random() < 0.3:
        body["deadline_s"] = rng.choice((0.001, 0.05, 5))
    for _ in range(rng.choice((0, 0, 0, 0, 0, 1, 2, 4))):
        body[rng.choice(FIELDS)] = anything(rng)
    text = json.dumps(body)
    kind = rng.random()
    if kind < 0.03:
        return text[: rng.randrange(len(text))].encode("utf-8", "replace")
    if kind < 0.06:
        return rng.randbytes(rng.randrange(200))
    if kind < 0.08:
        return rng.choice((b"[" * 5_000, b'{"a":' * 5_000, b"null", b"0", b'"mesh"', b"", b"\xff\xfe"))
    return text.encode()


def headers(rng: random.Random) -> dict[str, str]:
    """Headers of a request, mostly those that are right."""
    told = {"Content-Type": "application/json"}
    if rng.random() < 0.1:
        told["Content-Type"] = rng.choice(
            ("text/plain", "application/json; charset=utf-16", "multipart/form-data", "x")
        )
    if rng.random() < 0.2:
        told["X-Mesh-Alpha"] = rng.choice(("0.3", "1e0", "nan", "-1", "", "0." + "3" * 40, "half"))
    if rng.random() < 0.1:
        told["X-Mesh-Priority"] = rng.choice(("high", "low", "", "HIGH", "2", "x" * 300))
    if rng.random() < 0.1:
        told["X-Request-Id"] = rng.choice(("a" * 5_000, "id", "<b>", "%0d%0a"))
    return told


def ends_well(events: list[str]) -> bool:
    """Whether a stream's events are JSON, and end with a reason or an error and then with the mark of the end."""
    if not events or events[-1] != "data: [DONE]":
        return False
    told = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    reasons = [each["choices"][0]["finish_reason"] for each in told if each.get("choices")]
    return ("error" in told[-1]) != (bool(reasons) and ("stop" in reasons or "length" in reasons))


def query(rng: random.Random) -> Mapping[str, Any]:
    """Fields of a gRPC query, legal as protobuf, though hardly as a question."""
    wholes = (0, 1, -1, 2**31, 2**53, 2**63 - 1, -(2**63))
    reals = (0.0, 0.5, 1.0, -1.0, 1e300, 5e-324, float("nan"), float("inf"))
    text = [each for each in TEXTS if each != "\ud800"]  # protobuf takes no half of a pair
    made: dict[str, Any] = {"messages": [{"role": "user", "content": "count"}]}
    if rng.random() < 0.3:
        made["messages"] = [{"role": rng.choice(text), "content": rng.choice(text)} for _ in range(rng.randrange(4))]
    for field in rng.sample(("alpha", "deadline_s", "max_cost"), rng.randrange(3)):
        made[field] = rng.choice(reals)
    for field in rng.sample(("max_tokens", "max_hops", "seed"), rng.randrange(3)):
        made[field] = rng.choice(wholes)
    for field in rng.sample(("model", "entry"), rng.randrange(2)):
        made[field] = rng.choice(text)
    if rng.random() < 0.2:
        made["may_decline"] = True
    return made
