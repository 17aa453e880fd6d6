"""Spans of queries, in memory and by OTLP to a collector on loopback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from agents.errors import ConfigError, DeadlineExceeded, MeshError
from mesh import Mesh
from mesh.ingress.served import ServedMesh
from mesh.spans import Spans, environment_spans, open_spans
from tests.collector import Collector
from tests.ray.conftest import until
from tests.serving import WORDS, pool, served

TWO = pool({"a": {"refuse": 1.0}, "b": {"answer": WORDS, "pieces": 5, "delay_s": 0.05}})


@pytest.fixture
def memory() -> tuple[InMemorySpanExporter, Spans]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter, Spans(provider)


def exported(source: Any, spans: Spans, work: Any) -> None:
    with ServedMesh.from_yaml(source) as mesh:
        mesh.export(spans)
        work(mesh)


def whole(spans: tuple[ReadableSpan, ...]) -> tuple[ReadableSpan, list[ReadableSpan]]:
    """The query's span, and those of its hops in their order."""
    (query,) = [span for span in spans if span.name == "mesh.query"]
    hops = sorted((span for span in spans if span.name == "mesh.hop"), key=lambda span: span.start_time or 0)
    return query, hops


def test_one_span_a_hop(memory: tuple[InMemorySpanExporter, Spans]) -> None:
    exporter, spans = memory
    replies: list[Any] = []
    exported(TWO, spans, lambda mesh: replies.append(mesh.ask("count to ten", 0.3, id="mine")))
    query, hops = whole(exporter.get_finished_spans())
    (reply,) = replies
    assert query.parent is None
    told = dict(query.attributes or {})
    assert (told["mesh.query.id"], told["mesh.agent"], told["mesh.alpha"], told["mesh.hops"]) == ("mine", "b", 0.3, 2)
    assert (told["mesh.cost"], told["mesh.full_cost"], told["mesh.attempts"]) == (0.9, reply.full_cost, 1)
    assert [dict(hop.attributes or {})["mesh.agent"] for hop in hops] == ["a", "b"]
    assert [dict(hop.attributes or {})["mesh.verdict"] for hop in hops] == ["refused", "answered"]
    assert [dict(hop.attributes or {})["gen_ai.usage.output_tokens"] for hop in hops] == [1, 5]
    for hop in hops:
        assert hop.parent is not None
        assert (hop.parent.span_id, hop.context.trace_id) == (query.context.span_id, query.context.trace_id)
        assert query.start_time <= hop.start_time <= hop.end_time <= query.end_time  # type: ignore[operator]
    lengths = [(hop.end_time - hop.start_time) / 1e9 for hop in hops]  # type: ignore[operator]
    assert lengths == pytest.approx([hop.seconds for hop in reply.path], abs=1e-6)
    assert hops[0].end_time == hops[1].start_time


def test_no_word_of_question_or_answer_is_in_them(memory: tuple[InMemorySpanExporter, Spans]) -> None:
    """Also where an error repeats the question."""
    exporter, spans = memory
    source = pool({"a": {"fail": 1.0, "answer": "zither"}, "b": {"context": 3, "answer": "zither"}})

    def work(mesh: Mesh) -> None:
        with pytest.raises(MeshError):
            mesh.ask("a xylophone in confidence, please")
        exported(TWO, spans, lambda sure: sure.ask("xylophone"))

    exported(source, spans, work)
    written = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert len(exporter.get_finished_spans()) == 4
    assert [word for word in ("xylophone", "zither", "confidence,", "one two") if word in written] == []


def test_failures_and_who_goes_away(memory: tuple[InMemorySpanExporter, Spans]) -> None:
    exporter, spans = memory

    def work(mesh: Mesh) -> None:
        with pytest.raises(DeadlineExceeded):
            mesh.ask("count", deadline_s=0.3)
        asked = mesh.submit("count")
        assert until(lambda: mesh.status()[0]["in_hand"] == 1)
        asked.cancel()
        assert until(lambda: len(exporter.get_finished_spans()) == 2)

    exported(pool({"a": {"stall": 1.0}}), spans, work)
    late, gone = exporter.get_finished_spans()
    assert [span.status.status_code for span in (late, gone)] == [StatusCode.ERROR, StatusCode.ERROR]
    assert dict(late.attributes or {})["error.type"] == "DeadlineExceeded"
    assert dict(gone.attributes or {})["error.type"] == "cancelled"
    assert late.end_time - late.start_time > 0.29e9  # type: ignore[operator]


def test_a_failed_hop_is_an_error(memory: tuple[InMemorySpanExporter, Spans]) -> None:
    exporter, spans = memory
    exported(pool({"a": {"fail": 1.0}, "b": {"answer": WORDS}}), spans, lambda mesh: mesh.ask("count"))
    query, hops = whole(exporter.get_finished_spans())
    assert [hop.status.status_code for hop in hops] == [StatusCode.ERROR, StatusCode.UNSET]
    assert (hops[0].status.description, query.status.status_code) == ("failed", StatusCode.UNSET)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as started:
        yield started


def test_a_server_tells_a_collector(collector: Collector) -> None:
    spans = open_spans(collector.url)
    with served(TWO) as (url, door):
        door.mesh.export(spans)
        body = {"model": "mesh", "messages": [{"role": "user", "content": "count"}]}
        identity = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30).json()["id"]
    spans.flush()
    assert sorted(span.name for span in collector.spans) == ["mesh.hop", "mesh.hop", "mesh.query"]
    assert len({span.trace_id for span in collector.spans}) == 1
    (query,) = [span for span in collector.spans if span.name == "mesh.query"]
    assert identity in {each.value.string_value for each in query.attributes}
    assert (collector.paths, "mesh" in collector.names) == ({"/v1/traces"}, True)


def test_opentelemetrys_own_environment(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it there are no spans, and it can turn them off again."""
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    try:
        for environment, wanted in (
            ({}, False),
            ({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}, True),
            ({"OTEL_TRACES_EXPORTER": "none"}, False),
            ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"}, False),
            ({"OTEL_SDK_DISABLED": "false", "OTEL_SERVICE_NAME": "ours"}, True),
        ):
            for name, value in environment.items():
                monkeypatch.setenv(name, value)
            environment_spans.cache_clear()
            before = len(collector.spans)
            with Mesh.from_yaml(TWO) as mesh:
                mesh.ask("count")
            assert len(collector.spans) - before == (3 if wanted else 0)
        assert "ours" in collector.names
    finally:
        environment_spans.cache_clear()


def test_what_is_wrong_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigError, match="otlp: 'collector:4318'; it must be a collector's address"):
        open_spans("collector:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigError, match=r"pip install 'disrouter\[otel\]'"):
        open_spans("http://collector:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    environment_spans.cache_clear()
    try:
        with Mesh.from_yaml(TWO) as mesh:  # which works all the same
            assert mesh.ask("count").text == WORDS
        assert "no spans: otlp: OpenTelemetry is not installed" in caplog.text
    finally:
        environment_spans.cache_clear()
