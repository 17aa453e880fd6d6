"""The gRPC service, in the same replicas as HTTP and through the same door.

Every replica of a machine listens on the same port; the kernel shares connections out among them.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from agents.errors import MeshError
from agents.messages import Reply
from mesh.ingress import mesh_pb2 as pb
from mesh.ingress import mesh_pb2_grpc
from mesh.ingress.door import Door, Question, log_fault
from mesh.ingress.errors import LONGEST, Refused, refusal
from mesh.ingress.grpc_client import PING_MS
from mesh.ingress.keys import Key, bearer
from mesh.ingress.tls import PLAIN, ServerTLS, read
from mesh.ingress.wellformed import Wellformed

log = logging.getLogger(__name__)
T = TypeVar("T")
SERVICE = "mesh.v1.Mesh"
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.ALREADY_EXISTS,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    502: grpc.StatusCode.ABORTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_HEALTH_S = 1.0  # how often it is looked whether anybody is there to answer
_GRACE_S = 2.0
_IDLE_MS = 300_000  # after which a connection without calls is closed
_OF_ONE = 1_000  # calls at once of one connection
_MORE = 100  # and those that need no turn: health and reflection are open to whoever comes


@contextlib.asynccontextmanager
async def grpc_server(door: Door, host: str, port: int, tls: ServerTLS = PLAIN) -> AsyncIterator[int]:
    """Listens while it is open; gives the port (of its choice where ``port`` is 0).

    Raises:
        RuntimeError: it cannot listen there. ConfigError: a file of ``tls`` cannot be read.
    """
    calls = door.limits.running + door.limits.waiting
    options = [
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", door.limits.body_bytes),
        ("grpc.max_concurrent_streams", min(calls, _OF_ONE) + _MORE),
        ("grpc.server_handshake_timeout_ms", int(1_000 * door.limits.header_s)),
        ("grpc.max_connection_idle_ms", _IDLE_MS),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", PING_MS // 2),  # else who looks whether we live is left
    ]
    before = [Impatient(door.limits.body_s), Wellformed()]
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=calls + _MORE, interceptors=before)
    mesh_pb2_grpc.add_MeshServicer_to_server(Servicer(door), server)
    healthy = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    bound = server.add_secure_port(address, _credentials(tls)) if tls else server.add_insecure_port(address)
    await server.start()
    looking = asyncio.create_task(_look(door, healthy))
    try:
        yield bound
    finally:
        looking.cancel()
        await healthy.enter_graceful_shutdown()
        await server.stop(_GRACE_S)


def _credentials(tls: ServerTLS) -> Any:
    pair = read("tls_key", tls.key), read("tls_cert", tls.cert)
    clients = read("tls_client_ca", tls.client_ca) if tls.client_ca else None
    return grpc.ssl_server_credentials([pair], clients, require_client_auth=clients is not None)


async def _look(door: Door, healthy: Any) -> None:
    """Keep what the health service tells true."""
    states = health_pb2.HealthCheckResponse
    while True:
        try:
            ready = await door.ready()
        except Exception:
            log.exception("it cannot be seen whether anybody is there to answer")
            ready = False
        state = states.SERVING if ready else states.NOT_SERVING
        for service in ("", SERVICE):
            await healthy.set(service, state)
        await asyncio.sleep(_HEALTH_S)


class Impatient(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Ends calls whose request has not arrived after ``body_s``: each takes one of the places that there are.

    So that they are ours before that, calls with one request are taken as calls with a stream of them; on the wire they
    are the same.
    """

    def __init__(self, body_s: float) -> None:
        self.body_s = body_s

    async def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """The handler of a call, with a clock."""
        handler = await continuation(details)
        if handler is None or handler.request_streaming:
            return handler
        if handler.response_streaming:
            work, kind = handler.unary_stream, grpc.stream_stream_rpc_method_handler
        else:
            work, kind = handler.unary_unary, grpc.stream_unary_rpc_method_handler
        timed = self._generating(work) if inspect.isasyncgenfunction(work) else self._awaited(work)
        made: Any = kind(timed, handler.request_deserializer, handler.response_serializer)
        return made

    def _generating(self, work: Callable[[Any, Any], AsyncGenerator[Any]]) -> Any:
        async def timed(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
            async with contextlib.aclosing(work(await self._first(requests, context), context)) as answers:
                async for answer in answers:
                    yield answer

        return timed

    def _awaited(self, work: Callable[[Any, Any], Coroutine[Any, Any, Any]]) -> Any:
        async def timed(requests: AsyncIterator[Any], context: Any) -> Any:
            return await work(await self._first(requests, context), context)

        return timed

    async def _first(self, requests: AsyncIterator[Any], context: Any) -> Any:
        try:
            async with asyncio.timeout(self.body_s):
                return await anext(requests)
        except (TimeoutError, StopAsyncIteration):
            told = f"the request had not arrived after {self.body_s:g} s, or not at all"
            await _abort(context, Refused(408, "too_slow", told))


class Servicer(mesh_pb2_grpc.MeshServicer):  # type: ignore[misc]
    """``mesh.proto``'s service."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def Ask(self, request: Any, context: Any) -> Any:
        """One query, one reply."""
        return await self._answered(context, lambda who: self._ask(request, context, who))

    async def AskStream(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """One query; text as it comes, then the reply."""
        async with self._told(context) as who:
            pieces = self._door.stream(await self._question(request, context, who))
            async with contextlib.aclosing(pieces):
                async for piece in pieces:
                    yield pb.Piece(reply=packed(piece)) if isinstance(piece, Reply) else pb.Piece(text=piece)

    async def Status(self, request: Any, context: Any) -> Any:
        """The mesh as it is now."""
        return await self._answered(context, self._status)

    async def Feedback(self, request: Any, context: Any) -> Any:
        """Whether a reply was right."""

        async def judged(who: Key) -> Any:
            await self._door.feedback(request.id, request.right, who)
            return request

        return await self._answered(context, judged)

    async def Agents(self, request: Any, context: Any) -> Any:
        """Add or remove one."""
        return await self._answered(context, lambda who: self._agents(request, who))

    # ------------------------------------------------------------------ within

    async def _ask(self, request: Any, context: Any, who: Key) -> Any:
        return packed(await self._door.ask(await self._question(request, context, who)))

    async def _question(self, request: Any, context: Any, who: Key) -> Question:
        arrived = time.monotonic()
        self._door.gate.count(who.name)
        given = {field.name: value for field, value in request.ListFields()}
        alpha, model = given.pop("alpha", None), await self._door.model(given.pop("model", "mesh"))
        given |= {"meshes": tuple(given["meshes"])} if "meshes" in given else {}
        messages = [{"role": each.role, "content": each.content} for each in given.pop("messages", ())]
        if (left_s := context.time_remaining()) is not None:
            given["deadline_s"] = min(given.get("deadline_s", self._door.mesh.config.deadline_s), max(left_s, 1e-3))
        return Question(who, messages, model.alpha if alpha is None else alpha, model.only(given), arrived)

    async def _status(self, who: Key) -> Any:
        told = await self._door.overview(who)
        edges = told["topology"]["neighbours"]
        agents = [
            pb.Agent(
                name=row["agent"],
                state=row["state"],
                cost=row["cost"],
                in_hand=row.get("in_hand", 0),
                queued=row.get("queued", 0),
                deaths=row["deaths"],
                neighbours=edges.get(row["agent"], ()),
            )
            for row in told["agents"]
        ]
        return pb.MeshStatus(name=told["name"], alpha=told["alpha"], entry=told["entry"] or "", agents=agents)

    async def _agents(self, request: Any, who: Key) -> Any:
        self._door.admin(who)
        change = request.WhichOneof("change")
        if change == "add":
            await self._door.add_agent(_settings(request.add))
        elif change == "remove":
            await self._door.remove_agent(request.remove)
        return pb.AgentList(names=await self._door.agents())

    async def _answered(self, context: Any, work: Callable[[Key], Coroutine[Any, Any, T]]) -> T:
        async with self._told(context) as who:
            return await work(who)
        raise AssertionError("what goes wrong aborts the call")

    @contextlib.asynccontextmanager
    async def _told(self, context: Any) -> AsyncIterator[Key]:
        """Whose call it is; what goes wrong inside becomes its status, with our code as metadata."""
        try:
            told = dict(context.invocation_metadata() or ())
            who = self._door.known(bearer(told.get("authorization")))
            yield who
        except MeshError as error:
            await _abort(context, refusal(error))
        except Exception as error:
            request_id = os.urandom(8).hex()
            log_fault(request_id, error)
            await _abort(context, refusal(error), (("request-id", request_id),))


async def _abort(context: Any, told: Refused, more: tuple[tuple[str, str], ...] = ()) -> None:
    metadata = [("mesh-code", told.code), *more]
    if told.retry_after_s is not None:
        metadata.append(("retry-after", told.headers["Retry-After"]))
    message = told.message.encode("ascii", "backslashreplace").decode()[:LONGEST]
    await context.abort(CODES[told.status], message, tuple(metadata))


def _settings(text: str) -> dict[str, Any]:
    try:
        read = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "invalid_json", f"add: no JSON ({type(error).__name__})", "add") from None
    if not isinstance(read, dict):
        raise Refused(400, "invalid_value", f"add: {text[:80]!r}; it must be an agent's settings, an object", "add")
    return read


def packed(reply: Reply) -> Any:
    """A reply as protobuf."""
    fields = ("id", "text", "agent", "alpha", "alpha_used", "cost", "full_cost", "seconds", "first_token_s")
    hops = ("agent", "verdict", "confidence", "seconds", "prompt_tokens", "generated_tokens", "full_cost", "reason")
    path = [pb.Hop(**{name: getattr(hop, name) for name in hops}) for hop in reply.path]
    return pb.Reply(path=path, **{name: getattr(reply, name) for name in (*fields, "attempts", "finish")})
