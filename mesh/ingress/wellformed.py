"""Messages that are none: over gRPC the caller's mistake, as it is over HTTP.

By itself grpc.aio answers UNKNOWN, tells the caller which exception it met, and writes a traceback into the log.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

_BAD = object()
_TOLD = (("mesh-code", "invalid_message"),)


class Wellformed(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """INVALID_ARGUMENT for what cannot be read; of calls with one request, not a stream of them."""

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """The method's handler, with requests that are looked at first."""
        handler = await continuation(details)
        if handler is None or handler.request_streaming:
            return handler
        name = "unary_stream" if handler.response_streaming else "unary_unary"
        behaviour, read = getattr(handler, name), handler.request_deserializer
        checked = _checked_pieces if inspect.isasyncgenfunction(behaviour) else _checked
        make = getattr(grpc, f"{name}_rpc_method_handler")
        return make(checked(behaviour, details.method), _tolerant(read), handler.response_serializer)


def _tolerant(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def tried(sent: bytes) -> Any:
        try:
            return read(sent)
        except DecodeError:
            return _BAD

    return tried


def _checked(behaviour: Callable[..., Awaitable[Any]], method: str) -> Callable[..., Awaitable[Any]]:
    async def call(request: Any, context: Any) -> Any:
        if request is _BAD:
            await _abort(context, method)
        return await behaviour(request, context)

    return call


def _checked_pieces(behaviour: Callable[..., AsyncIterator[Any]], method: str) -> Callable[..., AsyncIterator[Any]]:
    async def call(request: Any, context: Any) -> AsyncIterator[Any]:
        if request is _BAD:
            await _abort(context, method)
        async for piece in behaviour(request, context):
            yield piece

    return call


async def _abort(context: Any, method: str) -> None:
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{method}: the message cannot be read", _TOLD)
