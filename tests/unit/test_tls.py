"""TLS for HTTP and gRPC, on loopback with certificates of its own, and what is said of files that cannot be used."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from click.testing import Result
from typer.testing import CliRunner

import mesh.cli
from agents.errors import ConfigError, MeshClosed
from mesh.ingress.door import Door
from mesh.ingress.grpc_client import Remote
from mesh.ingress.settings import Settings
from mesh.ingress.tls import ClientTLS, ServerTLS
from tests.certificates import certificates
from tests.serving import WORDS, pool, served

TWO = pool({"a": {"refuse": 1.0}, "b": {"answer": WORDS, "pieces": 5}})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server(files: dict[str, str]) -> Iterator[tuple[str, Door]]:
    """HTTPS; and gRPC, which asks its clients for certificates."""
    tls = ServerTLS(files["server"], files["server_key"], files["ca"]).checked()
    with served(TWO, grpc=True, tls=tls) as (url, door):
        yield url, door


def answer(door: Door, tls: ClientTLS | None) -> str:
    with Remote(f"localhost:{door.grpc_port}", tls=tls) as remote:  # type: ignore[attr-defined]
        *_, reply = remote.stream("count", deadline_s=20.0)
    assert not isinstance(reply, str)
    return reply.text


def test_https(server: tuple[str, Door], files: dict[str, str]) -> None:
    url, _ = server
    trusting = ssl.create_default_context(cafile=files["ca"])
    with httpx.Client(verify=trusting) as http:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, http_client=http)
        messages: Any = [{"role": "user", "content": "count"}]
        stream = client.chat.completions.create(model="mesh", messages=messages, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == WORDS
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{url}/healthz", verify=ssl.create_default_context(cafile=files["other_ca"]))
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{url.replace('https', 'http')}/healthz")


def test_grpc_from_both_sides(server: tuple[str, Door], files: dict[str, str]) -> None:
    _, door = server
    assert answer(door, ClientTLS(files["ca"], files["client"], files["client_key"])) == WORDS
    for tls in (
        None,
        ClientTLS(files["ca"]),  # shows nothing
        ClientTLS(files["ca"], files["stranger"], files["stranger_key"]),  # somebody else's
        ClientTLS(files["other_ca"], files["client"], files["client_key"]),  # does not trust the server
        ClientTLS("", files["client"], files["client_key"]),
    ):
        with pytest.raises(MeshClosed):
            answer(door, tls)


def test_grpc_without_clients_certificates(files: dict[str, str]) -> None:
    with served(TWO, grpc=True, tls=ServerTLS(files["server"], files["server_key"])) as (_, door):
        assert answer(door, ClientTLS(files["ca"])) == WORDS
        with pytest.raises(MeshClosed):
            answer(door, None)


def run(*words: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(mesh.cli.app, words)


def test_the_command_that_asks(server: tuple[str, Door], files: dict[str, str]) -> None:
    ask = ("ask", "count", "--grpc", f"localhost:{server[1].grpc_port}", "--json")  # type: ignore[attr-defined]
    shown = ("--tls-cert", files["client"], "--tls-key", files["client_key"])
    assert json.loads(run(*ask, "--tls-ca", files["ca"], *shown).stdout)["text"] == WORDS
    assert run(*ask, "--tls-ca", files["other_ca"], *shown).exit_code == 1
    for words, why in (
        ([*ask, "--tls-ca", "nowhere.pem"], "tls_ca: 'nowhere.pem' cannot be read: No such file"),
        ([*ask, "--tls-ca", files["server_key"]], "holds no certificate"),
        ([*ask, "--tls-cert", files["client"]], "it needs tls_key too"),
        (["ask", "count", "--tls-ca", files["ca"]], "tls_ca, tls_cert, tls_key: they go with --grpc"),
    ):
        result = run(*words)
        assert (result.exit_code, result.stdout) == (2, "")
        assert why in result.stderr


def test_files_that_cannot_be_used(files: dict[str, str], tmp_path: Path) -> None:
    """Each is named with its option, before anything is started."""
    (tmp_path / "junk").write_bytes(b"\xffjunk")
    (tmp_path / "empty").touch()
    junk, cert, key = str(tmp_path / "junk"), files["server"], files["server_key"]
    for given, why in (
        ({"tls_cert": cert}, f"tls_cert: {cert!r}; it needs tls_key too"),
        ({"tls_key": key}, f"tls_key: {key!r}; it needs tls_cert too"),
        ({"tls_client_ca": files["ca"]}, "tls_client_ca: .*it needs tls_cert and tls_key"),
        ({"tls_cert": "nowhere", "tls_key": key}, "tls_cert: 'nowhere' cannot be read: No such file"),
        ({"tls_cert": cert, "tls_key": "nowhere"}, "tls_key: 'nowhere' cannot be read: No such file"),
        ({"tls_cert": cert, "tls_key": str(tmp_path)}, "tls_key: .* cannot be read: Is a directory"),
        ({"tls_cert": junk, "tls_key": key}, f"tls_cert: {junk!r} holds no certificate"),
        ({"tls_cert": key, "tls_key": key}, "tls_cert: .* holds no certificate"),
        ({"tls_cert": cert, "tls_key": junk}, f"tls_key: {junk!r} holds no private key"),
        ({"tls_cert": cert, "tls_key": str(tmp_path / "empty")}, "tls_key: .* holds no private key"),
        ({"tls_cert": cert, "tls_key": files["client_key"]}, "tls_key: .* is not the key of the certificate in"),
        ({"tls_cert": cert, "tls_key": key, "tls_client_ca": key}, "tls_client_ca: .* holds no certificate"),
    ):
        named = {field.removeprefix("tls_"): path for field, path in given.items()}
        with pytest.raises(ConfigError, match=why):
            ServerTLS(**named).checked()
        words = [word for field, path in given.items() for word in (f"--{field.replace('_', '-')}", path)]
        result = run("serve", "lab", "--grpc-port", "9000", *words)
        assert result.exit_code == 2
        assert re.search(why, result.stderr)


def test_certificates_of_clients_are_for_grpc(files: dict[str, str]) -> None:
    tls = ServerTLS(files["server"], files["server_key"], files["ca"])
    with pytest.raises(ConfigError, match=r"tls_client_ca: .*only gRPC"):
        Settings("test", tls=tls)
    assert Settings("test", grpc_port=9000, tls=tls).tls.client_ca


def test_paths_do_not_depend_on_who_reads_them(files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(files["server"]).parent)
    assert ServerTLS("server.pem", "server-key.pem").checked().key == files["server_key"]
