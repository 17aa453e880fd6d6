"""The figures of the serving benchmarks, each on a case computed by hand."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agents.errors import MeshError
from benchmarks import faults, serving, serving_model, streams
from benchmarks.faults import Try
from benchmarks.http_load import Load, Lost, Timing, in_turns, load, quantiles
from benchmarks.served import free_port
from mesh.ingress.ending import LOST
from tests import fake_openai
from tests.fake_openai import endpoint, streaming


def side(rps: float, first: float, end: float, tokens: float = 0.0) -> dict[str, Any]:
    return {
        "rps": rps,
        "tokens_per_s": tokens,
        "ttft_ms": {"p50": first, "p99": 2 * first},
        "end_ms": {"p50": end, "p99": 3 * end},
    }


def test_quantiles_are_the_median_and_the_99th() -> None:
    assert quantiles([float(number) for number in range(1, 102)]) == {"p50": 51.0, "p99": 100.0}


def test_a_load_counts_over_all_of_its_turns() -> None:
    timings = [Timing(0.1, 0.2, "a b"), Timing(0.3, 0.4, "a b c"), Timing(0.2, 0.6, "a")]
    told = Load([1.0, 3.0], timings).figures(lambda text: len(text.split()))
    assert told["streams"] == 3
    assert told["rps"] == 0.75
    assert told["tokens_per_s"] == 1.5
    assert told["ttft_ms"]["p50"] == 200.0
    assert told["end_ms"]["p50"] == 400.0
    assert "tokens_per_s" not in Load([1.0, 3.0], timings).figures()


async def test_sides_take_turns_and_no_more_are_asked_than_may_be() -> None:
    asked, running, most = list[str](), 0, 0

    def asks(name: str) -> Any:
        async def ask() -> Timing:
            nonlocal running, most
            asked.append(name)
            running, most = running + 1, max(most, running + 1)
            await _turn()
            running -= 1
            return Timing(0.1, 0.2, name)

        return ask

    found = await in_turns({"a": asks("a"), "b": asks("b")}, 6, 2, 4)
    assert "".join(asked) == "aaaabbbb" + "bbbbaaaa" + "aaaabbbb"  # to warm up; then in turns, who begins alternates
    assert {name: len(each.timings) for name, each in found.items()} == {"a": 8, "b": 8}
    assert {name: len(each.seconds) for name, each in found.items()} == {"a": 2, "b": 2}
    assert most == 2


async def test_each_turn_begins_after_a_rest() -> None:
    began: list[float] = []

    async def ask() -> Timing:
        began.append(time.monotonic())
        return Timing(0.1, 0.2, "a")

    await in_turns({"a": ask, "b": ask}, 2, 1, 1, rest_s=0.05)
    gaps = [after - before for before, after in itertools.pairwise(began)]
    assert len(gaps) == 5  # one each to warm up, two turns each
    assert min(gaps[1:]) >= 0.05


async def _turn() -> None:
    import asyncio

    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_lost_stream_ends_the_measurement() -> None:
    async def ask() -> Timing:
        raise Lost("status 500")

    with pytest.raises(Lost, match="500"):
        await load(ask, 1, 1, Load())


def test_the_result_of_serving() -> None:
    noop = {
        "alone-1": {"mesh": side(50, 10, 12), "bare": side(60, 8, 9)},
        "together-1": {"mesh": side(90, 10, 12), "bare": side(100, 8, 9)},
        "refusal": {"refused": side(1, 15, 20), "direct": side(1, 12, 20)},
    }
    levels = {
        "4": {"mesh": side(1, 50, 1, 30.0), "bare": side(1, 50, 1, 40.0), "vllm": side(1, 100, 1, 50.0)},
        "16": {"mesh": side(1, 66, 1, 95.0), "bare": side(1, 60, 1, 100.0), "vllm": side(1, 33, 1, 190.0)},
    }
    told = serving.result(noop, {"levels": levels})
    assert told == {
        "bench": "serving",
        "noop_rps_ratio": 0.9,
        "noop_overhead_ms": {"p50": 3, "p99": 9},
        "ttft_ratio_bare": {"4": 1.0, "16": 1.1},
        "throughput_ratio_bare": 0.95,
        "ttft_ratio_vllm": {"4": 0.5, "16": 2.0},
        "throughput_ratio_vllm": 0.5,
        "refusal_ttft_ratio": 1.25,
    }
    alone = serving.result(noop, None)
    assert list(alone) == list(told)
    assert [name for name, value in alone.items() if value is None] == [
        "ttft_ratio_bare", "throughput_ratio_bare", "ttft_ratio_vllm", "throughput_ratio_vllm",
    ]  # fmt: skip


def test_the_steps_add_up_to_what_the_mesh_takes() -> None:
    sides = {"vllm": side(1, 40, 400), "actor": side(1, 43, 410), "bare": side(1, 52, 430), "mesh": side(1, 54, 435)}
    told = serving_model.steps_ms(sides)
    assert told["first_token"] == {"vllm_serve": 40, "actor": 3, "serve": 9, "mesh": 2}
    assert told["whole_stream"] == {"vllm_serve": 400, "actor": 10, "serve": 20, "mesh": 5}


def test_the_fault_table_counts_and_tells_what_was_lost() -> None:
    tries = {
        "nothing": [Try("answered", 1.0), Try("answered", 2.0), Try("answered", 1.5)],
        "killed": [Try("continued", 3.5), Try("error", 0.5, "APIError: gone"), Try("hung", 31.5)],
        "gone": [Try("stopped", 0.25), Try("stopped", 0.5), Try("stopped", 0.75)],
    }
    told = faults.figures(tries)
    assert told["killed"] == {
        "answered": 0, "continued": 1, "stopped": 0, "error": 1, "unclear": 0, "hung": 1,
        "lost_s": {"p50": 2.0, "max": 30.0},
        "why": {"APIError: gone": 1},
    }  # fmt: skip
    assert told["gone"]["lost_s"] == {"p50": 0.5, "max": 0.75}
    (first, *_) = faults.rows({"cases": told})
    assert first == {
        "": "nothing", "answered": 3, "continued": 0, "stopped": 0, "clear error": 0, "unclear": 0, "hung": 0,
        "seconds lost, p50": 0.0, "max": 0.5,
    }  # fmt: skip


def chunk(text: str, finish: str | None = None, *agents: str) -> Any:
    choice = SimpleNamespace(delta=SimpleNamespace(content=text), finish_reason=finish)
    return SimpleNamespace(choices=[choice], model_extra={"mesh": {"path": [{"agent": agent} for agent in agents]}})


@pytest.mark.parametrize(
    ("case", "agents", "harmed", "outcome"),
    [
        ("nothing", ["first"], [], "answered"),
        ("nothing", ["second"], [], "unclear"),  # it must have been asked, or nothing is tried
        ("agent killed mid-stream", ["first", "second"], [3], "continued"),
        ("agent killed mid-stream", ["first", "second"], [4], "unclear"),
        ("agent killed before the first token", ["first", "second"], [0], "answered"),
        ("agent killed before the first token", ["first"], [1], "unclear"),  # killed too late
        ("agent killed before the first token", ["first"], [], "unclear"),  # not killed at all
        ("replica killed before the first token", ["second"], [0], "answered"),
        ("agent stalls mid-stream", ["first", "second"], [], "continued"),
        ("agent slow", ["first"], [], "answered"),
    ],
)
def test_how_a_stream_ended(case: str, agents: list[str], harmed: list[int], outcome: str) -> None:
    (played,) = (each for each in faults.CASES if each.name == case)
    chunks = [chunk(faults.ANSWER[:9]), chunk(faults.ANSWER[9:]), chunk("", "stop", *agents)]
    assert faults.ended(played, chunks, harmed, 1.5).outcome == outcome
    assert faults.ended(played, chunks[1:], harmed, 1.5).outcome == "unclear"
    assert faults.ended(played, chunks[:2], harmed, 1.5).outcome == "unclear"


def no_replica(server: faults.Server) -> None:
    raise MeshError("no replica has the stream in hand")


@pytest.mark.parametrize(
    ("then", "harm", "outcome"),
    [
        ("hang", lambda server: None, "hung"),
        ("hang", no_replica, "unclear"),  # the benchmark's own failure is no hang
        ("error", lambda server: None, "error"),
        ("error", None, "error"),
        ("early", no_replica, "unclear"),
    ],
)
async def test_what_is_called_a_hang(then: str, harm: Any, outcome: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "PATIENCE_S", 3.0)
    told = [json.dumps(LOST.body)] if then == "error" else []
    case = faults.Case("harmed", "hello", harm, after=2)
    async with endpoint(streaming(*[fake_openai.chunk("word ")] * 3, *told, then=then)) as fake:
        server = faults.Server(fake.url.removesuffix("/v1"), mesh=None)  # type: ignore[arg-type]
        assert (await asyncio.to_thread(faults.attempt, server, case)).outcome == outcome


def test_an_error_counts_only_where_the_harm_was_done_in_time() -> None:
    before, during = (each for each in faults.CASES if each.harm is faults.Server.kill_replica)
    assert faults.in_time(before, [0])
    assert faults.in_time(during, [faults.SEEN])
    assert not faults.in_time(before, [1])
    assert not faults.in_time(before, [])


def test_streams_are_open_from_their_first_token_to_their_end() -> None:
    ended = [
        (0.0, Timing(1.0, 4.0, "a")),  # open from 1 to 4
        (1.0, Timing(1.0, 3.0, "a")),  # from 2 to 4
        (2.0, Timing(2.0, 3.0, "a")),  # from 4 to 5: when the others have ended
        (0.0, Lost("status 503")),
    ]
    told = streams.figures(ended, 5.0, {"client": 90.0})
    assert (told["lost"], told["why"], told["open_at_once"]) == (1, {"status 503": 1}, 2)
    assert told["ttft_ms"]["p50"] == 1000.0
    assert told["peak_mib"] == {"client": 90.0}
    assert streams.figures(ended[-1:], 5.0, {})["ttft_ms"] is None


def test_a_port_is_given_once_and_is_none_that_the_system_lends() -> None:
    given = [free_port() for _ in range(200)]
    lent = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first = int(lent.read_text().split()[0]) if lent.exists() else 32_768
    assert len(set(given)) == 200
    assert max(given) < first
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", given[0]))
