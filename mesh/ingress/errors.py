"""What a caller is told when something goes wrong: a status, and a body in OpenAI's error shape; pure."""

from __future__ import annotations

import math
from typing import Any

from agents.errors import (
    AgentBusy,
    AgentError,
    BudgetExceeded,
    ConfigError,
    DeadlineExceeded,
    MeshClosed,
    MeshError,
    NoAgentLeft,
    NotUnderstood,
    PlacementError,
    QueryError,
    QueryTooLong,
)
from topologies import TopologyError

STATUSES = {  # every status that a caller may get besides 200
    400: "the request is wrong: the message names the field, its value and what would be right",
    401: "no API key, or one that is not known",
    403: "the key does not allow this, or this server is not meant to be reached by that name",
    404: "no such path, model, agent or query",
    405: "another method is meant",
    408: "the request took too long to arrive",
    409: "there is an agent of that name already, or the reply has been judged otherwise",
    413: "the body is too large",
    415: "the body is not application/json",
    429: "too many requests, or streams at once, with this key: Retry-After tells when",
    431: "the head of the request is too large",
    500: "a fault of this server",
    502: "every agent that could have answered has failed",
    503: "too much to do, the mesh is down, or a process of the server has died: Retry-After tells when",
    504: "the deadline passed",
}
LONGEST = 1_000  # characters of a message: gRPC sends it in headers
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_BUSY_S = 1.0


class Refused(MeshError):
    """A request that gets no answer.

    Args:
        status: of HTTP, one of ``STATUSES``.
        code: what went wrong, in one word for programs.
        param: the field that is wrong.
        retry_after_s: when another try makes sense, in seconds.
    """

    def __init__(
        self, status: int, code: str, message: str, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        message = message if len(message) <= LONGEST else message[: LONGEST - 1] + "…"
        super().__init__(message)
        self.status, self.code, self.message, self.param, self.retry_after_s = (
            status, code, message, param, retry_after_s,
        )  # fmt: skip

    @property
    def body(self) -> dict[str, Any]:
        """As OpenAI says it."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """``Retry-After`` in whole seconds; and whether OpenAI's clients should try again by themselves."""
        told = {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        if self.retry_after_s is not None:
            return {**told, "Retry-After": str(max(1, math.ceil(self.retry_after_s)))}
        return {**told, "X-Should-Retry": "false"} if self.status >= 500 else told


_CODES: tuple[tuple[type[Exception], int, str], ...] = (  # the first that fits
    (NotUnderstood, 400, "not_understood"),
    (QueryTooLong, 400, "context_length_exceeded"),
    (BudgetExceeded, 400, "budget_exceeded"),
    (QueryError, 400, "invalid_value"),
    (ConfigError, 400, "invalid_value"),
    (TopologyError, 400, "invalid_value"),
    (AgentBusy, 503, "busy"),
    (AgentError, 502, "agent_failed"),
    (NoAgentLeft, 502, "no_agent_left"),
    (DeadlineExceeded, 504, "deadline_exceeded"),
    (PlacementError, 503, "no_place"),
    (MeshClosed, 503, "mesh_down"),
)
_AGAIN = ("busy", "mesh_down", "no_place")


def refusal(error: BaseException, asked: str = "messages") -> Refused:
    """What to tell the caller about an error of the mesh; of one that is none of ours, nothing but that it happened.

    Args:
        asked: what the caller calls the query.
    """
    if isinstance(error, Refused):
        return error
    of_ray = any(kind.__module__.startswith("ray.") for kind in type(error).__mro__)  # a text of addresses and files
    for kind, status, code in () if of_ray else _CODES:
        if isinstance(error, kind):
            message = str(error)
            if status == 400 and message.startswith("query"):
                message = asked + message.removeprefix("query")
            param = message.partition(":")[0].partition("[")[0] if status == 400 else None
            named = param if param and param.isidentifier() else None
            return Refused(status, code, message, named, _BUSY_S if code in _AGAIN else None)
    return Refused(500, "internal_error", "a fault of this server; its log tells more under the request's id")
