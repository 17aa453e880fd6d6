"""The real server with TLS, and with clients that take their time."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml

from agents.errors import MeshClosed
from mesh.ingress.grpc_client import Remote
from mesh.ingress.tls import ClientTLS
from tests.certificates import certificates
from tests.collector import Collector
from tests.ray.conftest import until
from tests.ray.test_serving import MESSAGES, POOL, WORDS, Server
from tests.unit.test_patience import HEAD, dripping

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]


class Secure(Server):
    """Reached by HTTPS."""

    def __init__(self, *words: str, files: dict[str, str], log: Path) -> None:
        super().__init__(*words, log=log)
        self.url = self.url.replace("http", "https")
        self.trusting = ssl.create_default_context(cafile=files["ca"])

    def ready(self) -> bool:
        if self.process.poll() is not None:
            pytest.fail(f"it ended with {self.process.returncode}: {self.log.read_text()}")
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5, verify=self.trusting).status_code == 200
        except httpx.TransportError:
            return False

    @contextlib.contextmanager
    def connected(self) -> Iterator[socket.socket]:
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=30) as plain,
            self.trusting.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            yield secure


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as started:
        yield started


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, files: dict[str, str], collector: Collector) -> Iterator[Secure]:
    folder = tmp_path_factory.mktemp("secure")
    (folder / "pool.yaml").write_text(POOL)
    tls = ("--tls-cert", files["server"], "--tls-key", files["server_key"], "--tls-client-ca", files["ca"])
    patience = ("--limit", "header_s=2", "--limit", "body_s=2")
    spans = ("--otlp", collector.url)
    started = Secure(str(folder / "pool.yaml"), *tls, *patience, *spans, files=files, log=folder / "log")
    try:
        assert until(started.ready, 120)
        yield started
    finally:
        if started.process.poll() is None:
            assert started.end() == 0, started.log.read_text()


def test_https(server: Secure) -> None:
    with httpx.Client(verify=server.trusting) as http:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, http_client=http)
        stream = client.chat.completions.create(model="mesh", messages=MESSAGES, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == WORDS
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{server.port}/healthz", timeout=30)
    assert f"served at https://127.0.0.1:{server.port}/v1" in server.log.read_text()


def test_grpc_lets_in_whom_it_trusts(server: Secure, files: dict[str, str]) -> None:
    target = f"localhost:{server.grpc_port}"
    with Remote(target, tls=ClientTLS(files["ca"], files["client"], files["client_key"])) as remote:
        *_, reply = remote.stream("count", deadline_s=60.0)
    assert str(reply).startswith(WORDS)
    for tls in (ClientTLS(files["ca"]), ClientTLS(files["ca"], files["stranger"], files["stranger_key"])):
        with pytest.raises(MeshClosed), Remote(target, tls=tls) as remote:
            list(remote.stream("count", deadline_s=60.0))


@pytest.mark.parametrize(
    ("first", "drop", "says"),
    [
        (b"", b"\r\n", b"HTTP/1.1 408 Request Timeout"),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", b"z", b"HTTP/1.1 408 Request Timeout"),
        (HEAD + b"Content-Length: 1000\r\n\r\n{", b" ", b"HTTP/1.1 408 "),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nFFF\r\n{", b" ", b"HTTP/1.1 408 "),
        (HEAD + b"Content-Length: 99999999\r\n\r\n", b" ", b"HTTP/1.1 413 "),
    ],
)
def test_who_sends_a_byte_a_second_is_closed(server: Secure, first: bytes, drop: bytes, says: bytes) -> None:
    with server.connected() as client:
        assert dripping(client, first, drop, every_s=1.0).startswith(says)
    assert server.ready()


def test_spans_come_from_its_replicas(server: Secure, collector: Collector) -> None:
    with httpx.Client(verify=server.trusting) as http:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, http_client=http)
        identity = client.chat.completions.create(model="mesh", messages=MESSAGES).id

    def ours() -> set[bytes]:
        told = [span for span in collector.spans if identity in str(span.attributes)]
        return {span.trace_id for span in told}

    assert until(lambda: len(ours()) == 1)
    assert sorted(span.name for span in collector.spans if span.trace_id in ours()) == [
        "mesh.hop", "mesh.hop", "mesh.query",
    ]  # fmt: skip


def test_the_deploy_file_says_it_too(server: Secure, files: dict[str, str]) -> None:
    tls = ("--tls-cert", files["server"], "--tls-key", files["server_key"])
    words = [sys.executable, "-m", "mesh", "serve", "lab", "--print-config", *tls, "--limit", "header_s=3"]
    written: Any = yaml.safe_load(subprocess.run(words, capture_output=True, timeout=60, check=True).stdout)
    assert (written["http_options"]["ssl_certfile"], written["http_options"]["ssl_keyfile"]) == (tls[1], tls[3])
    assert written["applications"][0]["args"]["tls_cert"] == tls[1]
    assert '"header_s":3.0' in written["controller_options"]["runtime_env"]["env_vars"]["MESH_HTTP_LIMITS"]
