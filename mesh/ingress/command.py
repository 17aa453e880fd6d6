"""``mesh serve`` and ``mesh key``. What is heavy is imported once it is needed."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from agents.errors import ConfigError
from mesh.config import load
from mesh.ingress.curves import read_curves
from mesh.ingress.keys import gather_keys, new_key
from mesh.ingress.limits import read_limits
from mesh.ingress.settings import Settings
from mesh.ingress.tls import ServerTLS
from mesh.options import Address, ModelsDir
from mesh.spans import open_spans
from mesh.terminal import say

Served = Annotated[
    str | None, typer.Option(help="Which running mesh, where there are several; of a POOL, what to call its mesh.")
]
Cert = Annotated[
    str, typer.Option(metavar="FILE", help="HTTPS, and TLS for gRPC: the server's certificate chain, as PEM.")
]
Key = Annotated[str, typer.Option(metavar="FILE", help="The certificate's private key, as PEM.")]
ClientCa = Annotated[
    str, typer.Option(metavar="FILE", help="gRPC only for clients whose certificates these authorities signed.")
]
Otlp = Annotated[
    str, typer.Option(metavar="URL", envvar="OTEL_EXPORTER_OTLP_ENDPOINT", help="Where OpenTelemetry spans go.")
]
Results = Annotated[
    Path | None, typer.Option(help="A result of `mesh bench routing`, which the web page draws over alpha.")
]


def serve(
    pool: Annotated[
        str | None, typer.Argument(help="A ready pool or a YAML file, started for the server; else the running mesh.")
    ] = None,
    name: Served = None,
    address: Address = None,
    host: Annotated[str, typer.Option(help="Where to listen; other than this machine only with keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port of HTTP.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="The port of gRPC; 0: none.")] = 0,
    replicas: Annotated[int, typer.Option(help="How many processes serve.")] = 1,
    keys: Annotated[
        Path | None,
        typer.Option(help="File of hashed API keys (see `mesh key`); MESH_USER_KEYS and MESH_ADMIN_KEYS add to them."),
    ] = None,
    limit: Annotated[
        list[str] | None, typer.Option(help="NAME=NUMBER, several times: body_bytes, streams, queue_s, ...")
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Listen anywhere without keys.")] = False,
    trust_admins: Annotated[
        bool, typer.Option("--trust-admins", help="Agents that admins add may run any code and send any key.")
    ] = False,
    tls_cert: Cert = "",
    tls_key: Key = "",
    tls_client_ca: ClientCa = "",
    otlp: Otlp = "",
    results: Results = None,
    models_dir: ModelsDir = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Write the file for `serve deploy` and KubeRay, and end.")
    ] = False,
) -> None:
    """Serve a mesh over HTTP, as OpenAI's clients expect it, until Ctrl-C."""
    config = None if pool is None else load(pool)  # what is wrong is told before Ray is touched
    mesh = name or (config.name if config else "")
    found = gather_keys(keys, os.environ)
    tls = ServerTLS(tls_cert, tls_key, tls_client_ca)
    curves = read_curves(results) if results else None
    may = read_limits(limit or ()), insecure, trust_admins
    settings = Settings(mesh, host, port, grpc_port, replicas, found, *may, tls, otlp, curves)
    if print_config:
        from mesh.ingress.deploy import written

        typer.echo(written(settings, pool, keys, models_dir, results), nl=False)
        return
    from mesh import running

    settings = _usable(settings)
    ending = _Ending()
    if pool is not None:
        running.up(pool, name=mesh, address=address, models_dir=models_dir)
    else:
        if models_dir:
            raise ConfigError(f"models_dir: {models_dir}; a running mesh has its own; give a POOL to start one")
        settings = replace(settings, mesh=running.find(name, address).name)
    try:
        _serve_until_told(settings, ending)
    finally:
        if pool is not None:
            running.down(settings.mesh, address)


def _usable(settings: Settings) -> Settings:
    """With certificates by absolute paths. Raises ConfigError where one cannot be used, or no span can be sent."""
    if settings.otlp:
        open_spans(settings.otlp)
    return replace(settings, tls=settings.tls.checked())


def key(
    name: Annotated[str, typer.Argument(help="Whose it is.")],
    role: Annotated[Literal["user", "admin"], typer.Option(help="What it may do.")] = "user",
) -> None:
    """Make an API key: its line for the key file goes to stdout, the key itself, once, to stderr."""
    made, line = new_key(name, role)
    typer.echo(line)
    say(made)


class _Ending:
    """What Ctrl-C and SIGTERM do: while it starts they break that off, afterwards they end what is served."""

    def __init__(self) -> None:
        self.started = False
        self._told = threading.Event()
        self.listen()

    def listen(self) -> None:
        """Hear of both; also again, as Ray takes SIGTERM for itself."""
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, self._hear)

    def wait(self) -> None:
        self._told.wait()

    def _hear(self, *_: object) -> None:
        again = self._told.is_set()
        self._told.set()
        if not (self.started or again):  # impatience must not break off the cleaning up
            raise KeyboardInterrupt


def _serve_until_told(settings: Settings, ending: _Ending) -> None:
    from mesh.ingress import serving

    ending.listen()
    serving.start(settings)  # where it cannot, nothing of it stays: it must not end what somebody else serves
    ending.started = True
    try:
        _tell(settings)
        ending.wait()
        say("ending")
    finally:
        serving.stop(settings)


def _tell(settings: Settings) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"{'https' if settings.tls else 'http'}://{host}:{settings.port}"
    say(f"mesh {settings.mesh} is served at {url}/v1 (web page: {url}/)")
    if settings.grpc_port:
        how = "" if not settings.tls else " (TLS, both sides)" if settings.tls.client_ca else " (TLS)"
        say(f"gRPC at {host}:{settings.grpc_port}{how}")
    if not settings.keys:
        say("without API keys: " + ("whoever reaches it may use it" if settings.insecure else "for this machine only"))
