"""Starts and ends a server: a Ray Serve application whose replicas all ask one running mesh."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import ray
from ray import serve

from agents.actor import NAMESPACE
from agents.errors import ConfigError, MeshError
from mesh.ingress.curves import shipped_curves
from mesh.ingress.door import Door
from mesh.ingress.http import application
from mesh.ingress.keys import Keys
from mesh.ingress.ledger import CALLS, SUFFIX, SharedLedger, open_ledger
from mesh.ingress.meters import RayMeters
from mesh.ingress.proxy import environment
from mesh.ingress.served import ReplicaMesh
from mesh.ingress.settings import Settings
from mesh.running import connect_as
from mesh.runtimes.ray import ON_HEAD
from mesh.spans import open_spans

log = logging.getLogger(__name__)
APP = "mesh"
LEAN: dict[str, Any] = {  # a replica that writes no line a request, and runs in Serve's own loop, which it never blocks
    "ray_actor_options": {
        "num_cpus": 0,
        "runtime_env": {"env_vars": {"RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0"}},
    },
    "logging_config": {"enable_access_log": False},
}
_SERVES = "serve"  # the namespace of Ray Serve's own actors


class Replica:
    """One ingress replica. Made a deployment by ``deployment``."""

    def __init__(self, settings: Settings) -> None:
        logging.getLogger("mesh").setLevel(logging.INFO)
        self._settings = settings

    def __serve_build_asgi_app__(self) -> Any:
        return application(self._door, self._settings.local_only)

    @contextlib.asynccontextmanager
    async def _door(self) -> AsyncIterator[Door]:
        settings = self._settings
        mesh = await asyncio.to_thread(connect_as, ReplicaMesh, settings.mesh)
        if settings.otlp:
            mesh.export(open_spans(settings.otlp))
        meters = RayMeters(settings.mesh, serve.get_replica_context().replica_tag.rpartition("#")[2])
        ledger = SharedLedger(settings.mesh)
        shares = settings.limits, settings.replicas
        curves = settings.curves or shipped_curves(agent.name for agent in mesh.config.agents)
        door = Door(mesh, ledger, Keys(settings.keys), *shares, meters, settings.trust_admins, curves)
        try:
            async with _grpc(door, settings):
                yield door
        finally:
            await mesh.leave()


def _grpc(door: Door, settings: Settings) -> contextlib.AbstractAsyncContextManager[Any]:
    if not settings.grpc_port:
        return contextlib.nullcontext()
    from mesh.ingress.grpc_server import grpc_server

    return grpc_server(door, settings.host, settings.grpc_port, settings.tls)


def deployment(settings: Settings) -> serve.Application:
    """The Serve application for a running mesh. Its replicas run where Serve's proxy does, on the head: gRPC listens
    at the address that was told, and no other machine's loss takes streams along.
    """
    options: dict[str, Any] = {
        "name": "ingress",
        "num_replicas": settings.replicas,
        "max_ongoing_requests": CALLS,
        "health_check_period_s": 5.0,
        "health_check_timeout_s": 10.0,  # three in a row, and a replica that no longer moves is ended
        "graceful_shutdown_timeout_s": 10.0,
        **LEAN,
        "ray_actor_options": {**LEAN["ray_actor_options"], "resources": ON_HEAD},
    }
    made: serve.Application = serve.deployment(serve.ingress()(Replica), **options).bind(settings)
    return made


def proxy_options(settings: Settings) -> dict[str, Any]:
    """How Serve's HTTP proxy is started: where it listens, with which certificate, and how long it waits."""
    http: dict[str, Any] = {"host": settings.host, "port": settings.port}
    if settings.tls:
        http |= {"ssl_certfile": settings.tls.cert, "ssl_keyfile": settings.tls.key}
    controller = {"runtime_env": {"env_vars": environment(settings.limits)}}  # which hands it on to the proxy
    return {"proxy_location": "HeadOnly", "http_options": http, "controller_options": controller}


def start(settings: Settings) -> None:
    """Serve a mesh that runs on the cluster to which this process is connected.

    Raises:
        ConfigError: Serve runs on this cluster already, or somebody listens on a port.
        MeshError: the replicas do not come up.
    """
    _check_free(settings)
    try:
        open_ledger(settings.mesh)
        serve.start(**proxy_options(settings), logging_config=LEAN["logging_config"])
        serve.run(deployment(settings), name=APP, route_prefix="/")
    except RuntimeError as error:
        stop(settings)
        raise MeshError(f"the server does not come up: {error}") from None
    except BaseException:
        stop(settings)
        raise


def stop(settings: Settings) -> None:
    """End the server, not its mesh."""
    if ray.is_initialized():
        _told_if_failing(serve.delete, APP)
        _told_if_failing(_shut_down)
        with contextlib.suppress(ValueError):
            ray.kill(ray.get_actor(settings.mesh + SUFFIX, namespace=NAMESPACE))


def _shut_down() -> None:
    if not set(serve.status().applications) - {APP}:
        serve.shutdown()


def _told_if_failing(end: Callable[..., object], *args: str) -> None:
    """What cannot be ended must not keep the rest from ending."""
    try:
        end(*args)
    except Exception:
        log.exception("what was served does not end as it should")


def _check_free(settings: Settings) -> None:
    if apps := list(serve.status().applications):
        raise ConfigError(
            f"serve: this Ray cluster serves {', '.join(apps)} already, and can serve one mesh at a time; end it "
            "(Ctrl-C in its `mesh serve`, or `serve shutdown`), or use another cluster (--address)"
        )
    if any(actor["namespace"] == _SERVES for actor in ray.util.list_named_actors(all_namespaces=True)):
        raise ConfigError(
            "serve: Ray Serve runs on this cluster already, and keeps the options that it was started with (where it "
            "listens, certificates, time limits); end it with `serve shutdown`, or use another cluster (--address)"
        )
    for field, port in (("port", settings.port), ("grpc_port", settings.grpc_port)):
        if port and (why := _taken(settings.host, port)):
            raise ConfigError(f"{field}: {port}; nobody else may listen there ({why})")


def _taken(host: str, port: int) -> str:
    """Why one cannot listen there; empty where one can."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except OSError as error:
        return error.strerror or str(error)
    return ""
