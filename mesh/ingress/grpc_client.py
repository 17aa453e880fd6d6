"""A mesh elsewhere, asked over gRPC: what ``mesh ask --grpc`` uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import grpc

from agents.errors import ConfigError, DeadlineExceeded, MeshClosed, MeshError, NoAgentLeft, QueryError
from agents.messages import Hop, Reply
from mesh.ingress import mesh_pb2 as pb
from mesh.ingress.mesh_pb2_grpc import MeshStub
from mesh.ingress.tls import ClientTLS

KEY = "MESH_API_KEY"
PING_MS = 20_000  # how often whoever waits for an answer looks whether the server is still there
OPTIONS = (  # of a channel
    ("grpc.keepalive_time_ms", PING_MS),
    ("grpc.keepalive_timeout_ms", PING_MS // 2),
    ("grpc.http2.ping_timeout_ms", PING_MS // 2),  # of other pings, behind which these wait: else a minute
    ("grpc.http2.max_pings_without_data", 0),  # else once a minute, while it has nothing to send
    ("grpc.max_reconnect_backoff_ms", 2_000),  # else one that was away for long stays away for minutes
)
_REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
_ERRORS: dict[Any, type[MeshError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: QueryError,
    grpc.StatusCode.NOT_FOUND: QueryError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.ABORTED: NoAgentLeft,
    grpc.StatusCode.UNAVAILABLE: MeshClosed,
}


class Remote:
    """Asks the server at ``target``, HOST:PORT.

    Args:
        key: an API key; default: the environment's MESH_API_KEY.
        tls: whom to trust and what to show; without any of it nothing is encrypted.

    Raises:
        ConfigError: ``target`` is no address, or a file of ``tls`` cannot be used.
    """

    def __init__(self, target: str, key: str | None = None, tls: ClientTLS | None = None) -> None:
        check_target("grpc", target)
        key = key or os.environ.get(KEY)
        self._target, self._metadata = target, (("authorization", f"Bearer {key}"),) if key else ()
        self._channel = channel(grpc, target, tls)
        self._stub = MeshStub(self._channel)

    def __enter__(self) -> Remote:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def stream(self, query: str, alpha: float | None = None, **options: Any) -> Iterator[str | Reply]:
        """As ``Mesh.stream``: the text as it comes, then the reply.

        Raises:
            QueryError, ConfigError, DeadlineExceeded, NoAgentLeft, MeshClosed: what the server says.
        """
        given = {**options, **({} if alpha is None else {"alpha": alpha})}
        try:
            asked = pb.Query(messages=[pb.Message(role="user", content=query)], **given)
        except (TypeError, ValueError) as error:
            raise QueryError(f"options: {given}; {error}") from None
        call = self._stub.AskStream(asked, metadata=self._metadata)
        try:
            for piece in call:
                yield unpacked(piece.reply) if piece.WhichOneof("what") == "reply" else piece.text
        except grpc.RpcError as error:
            raise self._told(error) from None
        finally:
            call.cancel()

    def _told(self, error: Any) -> MeshError:
        code, words = error.code(), error.details()
        if code in _REFUSED:
            return ConfigError(f"{KEY}: {words}")
        return _ERRORS.get(code, MeshError)(f"{self._target}: {words}" if code not in _ERRORS else words)


def check_target(field: str, target: str) -> None:
    """Raises ConfigError where ``target`` is not HOST:PORT."""
    host, colon, port = target.rpartition(":")
    if not (host and colon and port.isdigit()):
        raise ConfigError(f"{field}: {target!r}; it must be HOST:PORT")


def channel(of: Any, target: str, tls: ClientTLS | None) -> Any:
    """A channel to a server, of ``grpc`` or of ``grpc.aio``."""
    return of.secure_channel(target, credentials(tls), OPTIONS) if tls else of.insecure_channel(target, OPTIONS)


def credentials(tls: ClientTLS) -> Any:
    """What a channel needs. Raises ConfigError where a file cannot be used."""
    return grpc.ssl_channel_credentials(*tls.contents())


def unpacked(reply: Any) -> Reply:
    """A reply from protobuf."""
    path = tuple(
        Hop(
            hop.agent,
            hop.verdict,
            hop.confidence if hop.HasField("confidence") else None,
            hop.seconds,
            hop.prompt_tokens,
            hop.generated_tokens,
            hop.full_cost,
            hop.reason,
        )
        for hop in reply.path
    )
    return Reply(
        reply.id,
        reply.text,
        reply.agent,
        reply.alpha,
        reply.cost,
        reply.full_cost,
        path,
        reply.seconds,
        reply.first_token_s if reply.HasField("first_token_s") else None,
        reply.attempts,
        reply.finish,
        reply.alpha_used if reply.HasField("alpha_used") else None,
    )
