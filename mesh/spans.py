"""OpenTelemetry: a span for every query and one within it for every hop, made of the trace's events.

Off unless told where they go: by ``mesh serve --otlp``, or by OpenTelemetry's own environment variables. What was asked
and answered is in no span.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Mapping
from typing import Any

from agents.errors import ConfigError
from agents.messages import Hop, Reply

log = logging.getLogger(__name__)
_WHERE = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_FLUSH_MS = 2_000
_NS = 1_000_000_000


class Spans:
    """Called with the events of ``mesh.tracing.Trace``.

    A hop begins where the one before it has ended, as a query is with one agent at a time; what the messages between
    them took is left at the query's end.

    Args:
        provider: an OpenTelemetry SDK's ``TracerProvider``.
    """

    def __init__(self, provider: Any) -> None:
        self._provider, self._tracer = provider, provider.get_tracer("mesh")
        self._asked: dict[str, tuple[int, float]] = {}  # since when (ns), at which alpha

    def __call__(self, event: str, reply: Reply | None = None, **fields: Any) -> None:
        """Note that a query has begun, or tell of one that has ended; other events are none of ours."""
        now = time.time_ns()
        if event == "asked":
            self._asked[fields["id"]] = now, fields["alpha"]
        elif event == "answered" and reply is not None:
            self._asked.pop(reply.id, None)
            self._tell(reply, now)
        elif event in ("failed", "cancelled"):
            since, alpha = self._asked.pop(fields["id"], (now, None))
            known = {"mesh.query.id": fields["id"], "mesh.alpha": alpha, "error.type": fields.get("error", event)}
            self._span("mesh.query", since, known, fields.get("error", event)).end(now)

    def flush(self) -> None:
        """Send what has not been sent yet."""
        self._provider.force_flush(_FLUSH_MS)

    def _tell(self, reply: Reply, now: int) -> None:
        from opentelemetry import trace

        at = now - int(reply.seconds * _NS)
        query = self._span("mesh.query", at, _of_query(reply))
        within = trace.set_span_in_context(query)
        for hop in reply.path:
            until = min(at + int(hop.seconds * _NS), now)
            self._span("mesh.hop", at, _of_hop(hop), hop.reason if hop.verdict == "failed" else "", within).end(until)
            at = until
        query.end(now)

    def _span(self, name: str, since: int, attributes: Mapping[str, Any], failed: str = "", within: Any = None) -> Any:
        from opentelemetry.context import Context
        from opentelemetry.trace import StatusCode

        known = {key: value for key, value in attributes.items() if value is not None}
        span = self._tracer.start_span(name, within or Context(), attributes=known, start_time=since)
        if failed:
            span.set_status(StatusCode.ERROR, failed)
        return span


def _of_query(reply: Reply) -> dict[str, Any]:
    fields = ("agent", "alpha", "cost", "full_cost", "confidence", "attempts", "finish", "first_token_s")
    told = {f"mesh.{field}": getattr(reply, field) for field in fields}
    return {"mesh.query.id": reply.id, "mesh.hops": len(reply.path), **told}


def _of_hop(hop: Hop) -> dict[str, Any]:
    fields = ("agent", "verdict", "confidence", "full_cost", "reason")
    told = {f"mesh.{field}": getattr(hop, field) for field in fields}
    tokens = {"gen_ai.usage.input_tokens": hop.prompt_tokens, "gen_ai.usage.output_tokens": hop.generated_tokens}
    return {**told, **tokens}


def open_spans(endpoint: str) -> Spans:
    """Spans that go by OTLP over HTTP to the collector at ``endpoint``; "": where the environment says.

    Raises:
        ConfigError: it is no URL, or OpenTelemetry is not installed.
    """
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise ConfigError(f"otlp: {endpoint!r}; it must be a collector's address, such as http://localhost:4318")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigError(f"otlp: OpenTelemetry is not installed: pip install 'disrouter[otel]' ({error})") from None
    name = os.environ.get("OTEL_SERVICE_NAME", "mesh")
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    where = {"endpoint": endpoint.rstrip("/") + "/v1/traces"} if endpoint else {}
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(**where)))
    return Spans(provider)


@functools.cache
def environment_spans() -> Spans | None:
    """This process's spans, where the environment asks for some; where it cannot have them, the log says why."""
    asked = any(os.environ.get(name) for name in _WHERE)
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if off or not asked or os.environ.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return None
    try:
        return open_spans("")
    except ConfigError as error:
        log.warning("no spans: %s", error)
        return None
