"""Thousands of requests that nobody should make: only documented statuses, no fault, no hang, no word of our code.

The short forms are part of ``make test``; ``pytest tests/unit/test_fuzz.py -m slow`` makes more than 5,000 requests.
"""

from __future__ import annotations

import collections
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from mesh.ingress import mesh_pb2 as pb
from mesh.ingress.door import Door
from mesh.ingress.errors import STATUSES
from mesh.ingress.grpc_server import CODES
from mesh.ingress.limits import Limits
from tests import fuzzing
from tests.ray.conftest import until
from tests.serving import WORDS, pool, served
from tests.unit.test_http import ADMIN, KEYS, with_key

REPO = Path(__file__).parents[2]
LIMITS = Limits(requests_per_minute=10**9, body_bytes=20_000, messages=3)
POOL = pool(
    {"a": {"refuse": 0.5}, "b": {"answer": WORDS, "pieces": 5, "fail": 0.3}, "c": {"answer": WORDS, "pieces": 10}},
    deadline_s=10,
)
CHECKS = (
    *("status_code_conformance", "content_type_conformance", "response_headers_conformance", "ignored_auth"),
    *("response_schema_conformance", "negative_data_rejection", "missing_required_header", "unsupported_method"),
    *("allow_header_conformance", "no_fault_of_ours"),
)
TIMEOUT_S = 30.0  # nothing may take that long: the pool's deadline is 10


def sizes(short: int, long: int) -> Any:
    return pytest.mark.parametrize("count", [short, pytest.param(long, marks=pytest.mark.slow)])


@pytest.mark.parametrize(
    ("examples", "least"), [(3, 300), pytest.param(300, 2_500, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_requests_made_of_our_openapi(examples: int, least: int, tmp_path: Path) -> None:
    with served(POOL, KEYS, LIMITS) as (url, door):
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--no-color", "--seed", "1"]
        command += ["--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing", "-n", str(examples)]
        command += ["--header", f"Authorization: Bearer {ADMIN}", "--request-timeout", str(TIMEOUT_S)]
        paths = {"SCHEMATHESIS_HOOKS": "tests.schemathesis_hooks", "PYTHONPATH": str(REPO)}
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, **paths}, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        made = re.search(r"(\d+) generated", done.stdout)
        assert made is not None, done.stdout
        print(made[0])
        assert int(made[1]) >= least
        assert_idle(door)


@sizes(300, 20_000)
def test_chats_that_nobody_should_ask_for(count: int) -> None:
    rng, seen = random.Random(7), collections.Counter[int]()
    with served(POOL, KEYS, LIMITS) as (url, door), httpx.Client(base_url=url, timeout=TIMEOUT_S) as client:
        for _ in range(count):
            path = rng.choice(("/v1/chat/completions", "/v1/chat/completions", "/v1/completions"))
            body, told = fuzzing.asked(rng, chat="chat" in path), {**fuzzing.headers(rng), **with_key(ADMIN)}
            with client.stream("POST", path, content=body, headers=told) as answer:
                seen[answer.status_code] += 1
                assert answer.status_code == 200 or answer.status_code in STATUSES.keys() - {500}, body
                streams = answer.headers["content-type"].startswith("text/event-stream")
                if streams and rng.random() < 0.2:
                    continue  # the client goes away in mid-stream
                text = answer.read().decode()
                assert not fuzzing.tells_too_much(text), (body, text)
                if streams:
                    assert fuzzing.ends_well([line for line in text.split("\n\n") if line]), (body, text)
                else:
                    assert ("error" in answer.json()) == (answer.status_code != 200)
        assert_idle(door)
    print(seen)
    assert {200, 400, 413, 415} <= seen.keys()


@sizes(300, 10_000)
def test_calls_that_nobody_should_make(count: int) -> None:
    rng, seen = random.Random(11), collections.Counter[grpc.StatusCode]()
    allowed = {*CODES.values(), grpc.StatusCode.OK, grpc.StatusCode.UNIMPLEMENTED} - {grpc.StatusCode.INTERNAL}
    key = (("authorization", f"Bearer {ADMIN}"),)
    with (
        served(POOL, KEYS, LIMITS, grpc=True) as (_, door),
        grpc.insecure_channel(f"127.0.0.1:{door.grpc_port}") as channel,  # type: ignore[attr-defined]
    ):
        for _ in range(count):
            method = rng.choice(("Ask", "Ask", "AskStream", "Status", "Feedback", "Agents", "Nothing"))
            kind = channel.unary_stream if method == "AskStream" else channel.unary_unary
            request = fuzzed(rng, method)
            try:
                metadata = key if rng.random() < 0.95 else ()
                answer = kind(f"/mesh.v1.Mesh/{method}")(request, timeout=TIMEOUT_S, metadata=metadata)
                for piece in answer if method == "AskStream" else ():
                    if rng.random() < 0.05:
                        answer.cancel()
                        break
                    assert piece is not None
                status, details = grpc.StatusCode.OK, ""
            except grpc.RpcError as error:
                status, details = error.code(), error.details() or ""  # type: ignore[attr-defined]
            seen[status] += 1
            assert status in allowed, (method, request, status, details)
            assert not fuzzing.tells_too_much(details), (request, details)
        assert_idle(door)
    print(seen)
    assert {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAUTHENTICATED} <= seen.keys()


def fuzzed(rng: random.Random, method: str) -> bytes:
    """What is sent as that method's message: well-formed, cut off, or nothing of the kind."""
    if rng.random() < 0.1:
        return rng.randbytes(rng.randrange(60))
    if method == "Feedback":
        told: Any = pb.Judgement(id=rng.choice(fuzzing.TEXTS[:6]), right=True)
    elif method == "Agents":
        told = pb.AgentsRequest(
            **{rng.choice(("add", "remove")): rng.choice(("", "[]", "{}", "{", "nobody", "[" * 9_000))}
        )
    else:
        told = pb.Query(**fuzzing.query(rng))
    sent: bytes = told.SerializeToString()
    return sent[: rng.randrange(len(sent))] if sent and rng.random() < 0.05 else sent


def assert_idle(door: Door) -> None:
    """Nobody is left inside, and no agent works for somebody who has gone."""
    assert until(lambda: door.gate.running == door.gate.waiting == 0, TIMEOUT_S)
    assert set(door.gate._streams.values()) <= {0}
    assert until(lambda: not any(row["in_hand"] or row["engine_running"] for row in door.mesh.status()), TIMEOUT_S)
