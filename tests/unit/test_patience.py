"""Clients that take their time, on real sockets: closed, whatever they do not finish; others go on beside them."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import psutil
import pytest

from mesh.ingress import grpc_server
from mesh.ingress import mesh_pb2 as pb
from mesh.ingress.limits import Limits
from mesh.ingress.mesh_pb2_grpc import MeshStub
from tests.ray.conftest import until
from tests.serving import pool, served

POOL = pool({"a": {"pieces": 4, "piece_s": 0.5, "answer": "one two three four"}})
LIMITS = Limits(header_s=1.0, body_s=1.0, header_bytes=4_096)
BODY = json.dumps({"model": "mesh", "messages": [{"role": "user", "content": "count"}]}).encode()
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
WITHIN_S = 30.0


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(POOL, limits=LIMITS) as (address, _):
        yield address


@contextlib.contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=WITHIN_S) as made:
        yield made


def dripped(url: str, first: bytes, drop: bytes) -> bytes:
    with connected(url) as client:
        return dripping(client, first, drop, every_s=0.1)


def dripping(client: socket.socket, first: bytes, drop: bytes, every_s: float) -> bytes:
    """What comes back until the server closes, from which some bytes every so often do not keep it."""
    client.sendall(first)
    client.settimeout(every_s)
    said, until = b"", time.monotonic() + WITHIN_S
    while time.monotonic() < until:
        try:
            if not (more := client.recv(65_536)):
                return said
            said += more
        except TimeoutError:
            with contextlib.suppress(OSError):
                client.sendall(drop)
        except OSError:  # closed while we were sending
            return said
    pytest.fail(f"still open after {WITHIN_S:g} s; it said {said[:200]!r}")


@pytest.mark.parametrize(
    ("first", "drop"),
    [
        (b"", b""),  # says nothing
        (b"", b"\r\n"),  # nothing but empty lines
        (b"GET /hea", b"l"),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n", b"X-Slow: 1\r\n"),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", b"z"),
    ],
)
def test_a_head_that_does_not_end(url: str, first: bytes, drop: bytes) -> None:
    assert dripped(url, first, drop).partition(b"\r\n")[0] == b"HTTP/1.1 408 Request Timeout"


def test_a_head_that_does_not_end_after_others_that_did(url: str) -> None:
    whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for more in (whole, whole + b"GET /h", whole + b"\r\n"):
        said = dripped(url, more, b"x" if more.endswith(b"/h") else b"\r\n")
        assert said.startswith(b"HTTP/1.1 200 OK")
        assert b"HTTP/1.1 408" in said


def test_a_head_without_end(url: str) -> None:
    said = dripped(url, b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Large: " + 5_000 * b"x", b"x")
    assert said.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("length", [b"Content-Length: 1000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\nFFF\r\n{"])
def test_a_body_that_does_not_end(url: str, length: bytes) -> None:
    said = dripped(url, HEAD + length, b" ")
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"too_slow"' in said


def test_a_body_that_goes_on_after_its_refusal(url: str) -> None:
    """Whoever is refused before the body has come may not keep the connection by sending it."""
    first = b"POST /v1/nothing HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 9999\r\n\r\n"
    assert dripped(url, first, b"x").startswith(b"HTTP/1.1 415 ")


def test_a_body_that_is_too_large_is_the_last_of_its_connection(url: str) -> None:
    said = dripped(url, HEAD + b"Content-Length: 99999999\r\n\r\n", b"x")
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in said.lower()


def test_an_answer_that_nobody_reads() -> None:
    source = pool({"a": {"answer": 40_000_000 * "x"}})
    with served(source, limits=LIMITS) as (url, _), connected(url) as client:
        client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
        here = client.getsockname()

        def held() -> bool:
            """Whether the server's end of the connection is still open: it is a socket of this process."""
            return any(each.raddr == here for each in psutil.Process().net_connections("tcp4"))

        assert until(held, WITHIN_S)
        assert until(lambda: not held(), WITHIN_S)
        size = 0
        with contextlib.suppress(ConnectionResetError):
            while more := client.recv(1_000_000):
                size += len(more)
        assert 0 < size < 40_000_000


def test_whoever_is_in_time_is_not_hurried(url: str) -> None:
    """An answer may take longer than the limits, and so may the time until the next request of a connection."""
    with connected(url) as client:
        for _ in range(2):
            client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
            said = b""
            while b'"one two three four"' not in said:
                said += client.recv(65_536)
            assert said.startswith(b"HTTP/1.1 200 OK")
            time.sleep(1.5)


def test_the_slow_do_not_keep_others_out(url: str) -> None:
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connected(url)) for _ in range(200)]
        for each in slow:
            each.sendall(b"GET / HTTP/1.1\r\n")
        answer: Any = httpx.get(f"{url}/healthz", timeout=WITHIN_S)
        assert answer.status_code == 200
        for each in slow:
            while each.recv(65_536):
                pass


def test_grpc_waits_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for a connection's first words nor for the request of a call, which would keep others out."""
    monkeypatch.setattr(grpc_server, "_MORE", 0)
    limits = LIMITS.model_copy(update={"running": 1, "waiting": 3})
    with served(POOL, limits=limits, grpc=True) as (_, door):
        target = f"127.0.0.1:{door.grpc_port}"  # type: ignore[attr-defined]
        dripped(f"http://{target}", b"PRI * HTTP/2.0\r\n", b"\r")
        never = threading.Event()
        with grpc.insecure_channel(target) as slow, grpc.insecure_channel(target, [("other", 1)]) as other:

            def silent() -> Iterator[bytes]:
                never.wait(WITHIN_S)
                yield b""

            calls = [slow.stream_unary(f"/mesh.v1.Mesh/{name}").future(silent()) for name in 4 * ["Ask"]]
            stub = MeshStub(other)
            for call in calls:
                error = call.exception(timeout=WITHIN_S)
                assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
                assert dict(error.trailing_metadata())["mesh-code"] == "too_slow"
            assert stub.Status(pb.StatusRequest(), timeout=WITHIN_S).name == "test"
            stream = slow.stream_stream("/mesh.v1.Mesh/AskStream")(silent())
            with pytest.raises(grpc.RpcError, match="had not arrived"):
                list(stream)
            never.set()
