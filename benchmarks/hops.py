"""What a hop costs: queries through a mesh with nothing to compute, against the barest thing that does as much.

On Ray: ``ask`` along a cascade whose engines answer at once, against a chain of async actors that pass on the same
bytes. In one process: the asyncio runtime against a chain of coroutines. In virtual time: the simulation's events
against a heap of as many. Both sides of a comparison take turns, so that a noisy machine is noisy for both.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from agents.assess import RefusalAssessor
from agents.engines.base import Capabilities, Setup
from agents.engines.scripted import ScriptedEngine
from agents.messages import Accepted, Asked, Batch, Card, Drafted, End, Hop, Message, NodeEvent, Piece, Query, Request
from agents.node import Node
from agents.policies import RefusalPolicy
from agents.prompts import REFUSAL
from agents.wire import pack, read_query, read_routed
from mesh.client import Mesh
from mesh.config import MeshConfig, load
from mesh.directory import Directory
from mesh.simulate import simulate
from topologies.cascade import Cascade

HOPS = (1, 2, 3, 5)
TURN = 10  # asks of one side before it is the other's turn
IN_FLIGHT = 64  # for throughput
TEXT = "What is the capital of France? " * 8
SIM_QUERIES = 5_000


class NoOp(ScriptedEngine):
    """An engine that says at once what it always says: the refusal, or ``Paris``."""

    def __init__(self, setup: Setup, *, refuses: bool = True) -> None:
        super().__init__(setup)
        self.piece = Piece(REFUSAL if refuses else "Paris", 1, 0.0, 50, "stop")

    async def start(self) -> Capabilities:
        return Capabilities(100_000, logprobs=True, scores=False)

    async def generate(self, request: Request) -> AsyncIterator[Piece]:
        yield self.piece


def measure(asks: int = 300, seed: int = 0) -> dict[str, Any]:
    """All of it; ``asks`` are those of each side at each number of hops.

    Returns:
        What the RESULT line holds: ``ray`` by hops (milliseconds), throughput at three hops (asks a second),
        ``profile``: where the time goes at three hops, ``local_us_per_hop``, and the simulation's events a second.
    """
    return {"bench": "hops", "asks": asks, **on_ray(asks), **in_process(asks), **in_virtual_time(seed)}


# ---------------------------------------------------------------------------------- on Ray


def on_ray(asks: int) -> dict[str, Any]:
    """Latency at each number of hops, and throughput at three."""
    import ray

    with Mesh(cascade("ray")) as mesh:
        chain = _Chain(ray)
        query, entries = _query(), [agent.name for agent in mesh.config.agents]
        sides: dict[int, tuple[Callable[[], object], Callable[[], object]]] = {}
        for hops in HOPS:
            entry, link = entries[-hops], chain.links[-hops]
            sides[hops] = (
                lambda entry=entry: mesh.ask(TEXT, 0.5, entry=entry),
                lambda link=link: ray.get(link.call.remote(query)),
            )
        latencies = {str(hops): _latency(*sides[hops], asks) for hops in HOPS}
        throughput = _throughput(mesh, chain, query, entries[-3], asks)
        agents = {row["agent"]: row["pid"] for row in mesh.status()}
        ours, bare = [agents[name] for name in entries[-3:]], ray.get([link.pid.remote() for link in chain.links[-3:]])
        cpu = {"mesh": _cpu_ms(sides[3][0], ours, asks), "bare": _cpu_ms(sides[3][1], bare, asks)}
        steps = _steps_ms(mesh, chain, query, entries[-3], asks)
    return {"ray": latencies, **throughput, "profile": {**steps, "cpu_ms_per_ask": cpu, **parts_of_a_hop(asks)}}


class _Chain:
    """Actors that pass on bytes, and get an answer's bytes back."""

    def __init__(self, ray: Any) -> None:
        answer = pack(_accepted())

        class Link:
            """Passes a query on, or answers it."""

            def __init__(self, following: Any) -> None:
                self.following = following

            async def call(self, query: bytes) -> bytes:
                return answer if self.following is None else await self.following.call.remote(query)

            async def pid(self) -> int:
                return os.getpid()

        remote = ray.remote(num_cpus=0, max_concurrency=1000, enable_task_events=False)(Link)
        self.links: list[Any] = []
        for _ in range(max(HOPS)):
            self.links.insert(0, remote.remote(self.links[0] if self.links else None))
        ray.get([link.__ray_ready__.remote() for link in self.links])


def _latency(ours: Callable[[], object], bare: Callable[[], object], asks: int) -> dict[str, float]:
    mine, theirs = _in_turns(asks, ours, bare)
    (p50, p99), (bare_p50, bare_p99) = (np.quantile(side, [0.5, 0.99]) for side in (mine, theirs))
    told = {"p50_ms": 1e3 * p50, "p99_ms": 1e3 * p99, "bare_p50_ms": 1e3 * bare_p50, "bare_p99_ms": 1e3 * bare_p99}
    return {**{name: round(float(value), 3) for name, value in told.items()}, "ratio": round(float(p50 / bare_p50), 3)}


def _in_turns(times: int, *sides: Callable[[], object], turn: int = TURN) -> list[list[float]]:
    """Seconds of each call of each side, after a turn to warm up."""
    taken: list[list[float]] = [[] for _ in sides]
    for _ in range(turn):
        for call in sides:
            call()
    while len(taken[0]) < times:
        for call, seconds in zip(sides, taken, strict=True):
            for _ in range(turn):
                begin = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - begin)
    return taken


def _throughput(mesh: Mesh, chain: _Chain, query: bytes, entry: str, asks: int) -> dict[str, float]:
    """Asks a second with many in flight, three hops each; the median of several turns of each side."""

    def ours() -> None:
        replies = mesh.ask_many([TEXT] * asks, 0.5, concurrency=IN_FLIGHT, entry=entry)
        assert not any(isinstance(reply, Exception) for reply in replies)

    async def flood() -> None:
        places = asyncio.Semaphore(IN_FLIGHT)

        async def one() -> None:
            async with places:
                await chain.links[-3].call.remote(query)

        await asyncio.gather(*(one() for _ in range(asks)))

    mine, theirs = (float(np.median(s)) for s in _in_turns(5, ours, lambda: asyncio.run(flood()), turn=1))
    return {
        "asks_per_s": round(asks / mine, 1),
        "bare_asks_per_s": round(asks / theirs, 1),
        "throughput_ratio": round(theirs / mine, 3),
    }


def _steps_ms(mesh: Mesh, chain: _Chain, query: bytes, entry: str, asks: int) -> dict[str, float]:
    """Median milliseconds of three hops, from the bare chain to the mesh: awaited in another thread's loop, as a mesh
    does; through the mesh's agents instead of bare actors; and with all that a caller's side does besides.
    """
    import ray

    runtime, link, read = mesh._running.runtime, chain.links[-3], read_query(query)
    agent = runtime.handle(runtime.balance.replicas(entry)[0])

    async def awaited() -> bytes:
        return await link.call.remote(query)  # type: ignore[no-any-return]

    sides: dict[str, Callable[[], object]] = {
        "bare": lambda: ray.get(link.call.remote(query)),
        "bare_in_a_loop": lambda: mesh._call(awaited),
        "agents": lambda: ray.get(agent.route.remote(pack(replace(read, id=os.urandom(16).hex())))),
        "ask": lambda: mesh.ask(TEXT, 0.5, entry=entry),
    }
    taken = zip(sides, _in_turns(asks, *sides.values()), strict=True)
    return {f"{name}_ms": round(1e3 * float(np.median(seconds)), 3) for name, seconds in taken}


def _cpu_ms(ask: Callable[[], object], pids: Sequence[int], asks: int) -> dict[str, float]:
    """CPU milliseconds that an ask of three hops takes in the caller and in each actor, Ray's threads included."""
    processes = {"caller": os.getpid(), **{f"hop {number}": pid for number, pid in enumerate(pids, start=1)}}
    before = {name: _cpu_seconds(pid) for name, pid in processes.items()}
    for _ in range(asks):
        ask()
    return {name: round(1e3 * (_cpu_seconds(pid) - before[name]) / asks, 2) for name, pid in processes.items()}


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def parts_of_a_hop(times: int) -> dict[str, float]:
    """Microseconds, in this process and in a loop, of what a forwarding hop does that a bare link does not: its
    decisions, and packing a query and an acceptance in and out. In an agent, where nothing is warm, they take longer.
    """
    said, node = Piece(REFUSAL, 1, 0.0, 50, "stop"), _forwarder()
    sent, returned = _query(), pack(_accepted())
    decisions = packing = 0.0
    for number in range(times):
        query = replace(read_query(sent), id=str(number))
        accepted = replace(_accepted(), key=query.key)
        events: list[NodeEvent] = [Asked(query), Drafted(query.key, 1, said), accepted]
        begin = time.perf_counter()
        for event in events:
            node.step(event, float(number))
        middle = time.perf_counter()
        pack(read_query(sent))
        pack(read_routed(returned))
        decisions, packing = decisions + middle - begin, packing + time.perf_counter() - middle
    return {"node_us": round(1e6 * decisions / times, 1), "pack_us": round(1e6 * packing / times, 1)}


def _forwarder() -> Node:
    cards = {name: Card(name, cost) for name, cost in (("agent-4", 0.7), ("agent-5", 0.9))}
    directory = Directory(Cascade({card.name: card.cost for card in cards.values()}), cards)
    return Node(cards["agent-4"], directory, RefusalPolicy(), RefusalAssessor())


# ---------------------------------------------------------------------------------- in one process


def in_process(asks: int) -> dict[str, float]:
    """What one hop more costs in the asyncio runtime, and in a chain of coroutines."""
    answer, first, last = _accepted(), max(HOPS), 1

    async def call(left: int) -> Accepted:
        return answer if left == 1 else await call(left - 1)

    with Mesh(cascade("local")) as mesh:
        entries = [agent.name for agent in mesh.config.agents]

        def asked(hops: int) -> float:
            return float(np.median(_in_turns(asks, lambda: mesh.ask(TEXT, 0.5, entry=entries[-hops]))))

        def called(hops: int) -> float:
            async def many() -> float:
                begin = time.perf_counter()
                for _ in range(100 * asks):  # they are so short
                    await call(hops)
                return (time.perf_counter() - begin) / (100 * asks)

            return asyncio.run(many())

        ours = bare = 0.0
        for _ in range(3):
            ours += (asked(first) - asked(last)) / (first - last) / 3
            bare += (called(first) - called(last)) / (first - last) / 3
    return {"local_us_per_hop": round(1e6 * ours, 1), "local_ratio": round(ours / bare, 1)}


# ---------------------------------------------------------------------------------- in virtual time


def in_virtual_time(seed: int) -> dict[str, Any]:
    """Events a second with 10,000 agents, against 100 agents, and against a heap that plays as many events."""
    few_us, many_us, heap_us = [], [], []
    for _ in range(3):
        few = simulate(agents=100, queries=SIM_QUERIES, topology="nearest", seed=seed)
        many = simulate(agents=10_000, queries=SIM_QUERIES, topology="nearest", seed=seed)
        assert few["answered"] == many["answered"] == SIM_QUERIES
        few_us.append(few["us_per_event"])
        many_us.append(many["us_per_event"])
        heap_us.append(1e6 * _heap_seconds(many["events"], SIM_QUERIES) / many["events"])
    few_, many_, heap_ = (float(np.median(each)) for each in (few_us, many_us, heap_us))
    return {
        "sim_events_per_s": round(1e6 / many_),
        "sim_ratio_10000_vs_100": round(many_ / few_, 3),
        "sim_us_per_event": round(many_, 2),
        "heap_us_per_event": round(heap_, 2),
        "sim_ratio_vs_heap": round(many_ / heap_, 1),
    }


def _heap_seconds(events: int, waiting: int) -> float:
    """Seconds to play ``events`` that do nothing but push the next one, with ``waiting`` more in the heap."""
    heap: list[tuple[float, int, Callable[[], None], tuple[Any, ...]]] = []
    for number in range(waiting):
        heappush(heap, (float(number), number, _nothing, ()))
    begin = time.perf_counter()
    for number in range(events):
        at, _, do, what = heappop(heap)
        do(*what)
        heappush(heap, (at + waiting, waiting + number, do, what))
    return time.perf_counter() - begin


def _nothing() -> None:
    """What an event does that does nothing."""


# ---------------------------------------------------------------------------------- what is asked


def cascade(runtime: str) -> MeshConfig:
    """Five agents that refuse at once, but for the last, which answers at once."""
    names = [f"agent-{number}" for number in range(1, max(HOPS) + 1)]
    agents = [
        {"name": name, "cost": round(0.1 + 0.2 * rank, 1), "engine": {"refuses": name != names[-1]}}
        for rank, name in enumerate(names)
    ]
    defaults = {"engine": {"kind": "benchmarks.hops:NoOp"}, "prompt": "plain", "num_gpus": 0}
    return load({"name": "hops", "runtime": runtime, "agents": agents, "defaults": defaults})


def _query() -> bytes:
    return pack(Query("0" * 32, (Message("user", TEXT),), 0.5))


def _accepted() -> Accepted:
    """What the last of three agents gives back."""
    hops = tuple(Hop(f"agent-{number}", "refused", None, 0.001, 50, 1, 0.1) for number in (3, 4))
    end = End(("0" * 32, 1), "stop", Hop("agent-5", "answered", None, 0.001, 50, 1, 0.1))
    return Accepted(("0" * 32, 1), "agent-5", hops, Batch((Piece("Paris", 1, 0.0, 50, "stop"),), end))


def rows(result: dict[str, Any]) -> Sequence[dict[str, Any]]:
    """The figures on Ray, as a table."""
    return [{"hops": hops, **figures} for hops, figures in result["ray"].items()]
