"""The shell around a node: what becomes of callers, timers and answers when something is slow or breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from agents.host import Host
from agents.messages import Accepted, Batch, Card, Query, Rejected
from agents.spec import open_host
from mesh.assemble import agent_specs
from mesh.config import load
from mesh.directory import NOBODY, Directory
from mesh.runtimes.local import LocalRuntime
from mesh.simulate import question
from tests.pools import pool
from topologies.cascade import Cascade


async def opened(engine: dict[str, Any], links: Any = NOBODY, **limits: float) -> Host:
    settings = pool(engine={"refuse": 0.0, **engine}, agents=1, limits={"tick_s": 0.02, **limits})
    return await open_host(agent_specs(load(settings))["a0"], links, LocalRuntime())


async def test_an_answer_is_not_given_up_while_its_owner_waits_for_it() -> None:
    host = await opened({"piece_s": 0.3, "pieces": 2}, lease_s=0.1)
    asked = question(0, 0.5)
    begun = await host.route(asked)
    assert isinstance(begun, Accepted)
    rest = await host.pull(asked.key, 1)
    assert isinstance(rest, Batch)
    assert rest.end is not None
    assert rest.end.finish == "stop"
    await host.close()


async def test_an_answer_is_given_up_when_its_owner_has_stopped_waiting() -> None:
    host = await opened({"piece_s": 0.05, "pieces": 200, "answer": "word " * 200}, lease_s=0.1)
    asked = question(0, 0.5)
    await host.route(asked)
    pull = asyncio.create_task(host.pull(asked.key, 1))
    await asyncio.sleep(0.01)
    pull.cancel()
    await asyncio.sleep(0.3)
    assert not await host.probe(asked.key)
    assert host.engine.running() == 0
    await host.close()


async def test_every_answer_is_given_up_in_its_own_time() -> None:
    host = await opened({"piece_s": 0.5, "pieces": 20, "answer": "word " * 20}, lease_s=0.1)
    waited_for, forgotten = question(0, 0.5), question(1, 0.5)
    await asyncio.gather(host.route(waited_for), host.route(forgotten))
    pull = asyncio.create_task(host.pull(waited_for.key, 1))
    await asyncio.sleep(0.25)
    assert [await host.probe(asked.key) for asked in (waited_for, forgotten)] == [True, False]
    pull.cancel()
    await asyncio.sleep(0.25)
    assert not await host.probe(waited_for.key)
    await host.close()


class Breaks:
    """Links that, from some moment on, cannot be walked any more."""

    cards = NOBODY.cards
    broken = False

    def neighbours(self, name: str, down: frozenset[str] = frozenset()) -> Sequence[str]:
        if self.broken:
            raise LookupError("the registry is gone")
        return ()


async def test_timers_go_on_after_a_plug_in_has_raised(caplog: pytest.LogCaptureFixture) -> None:
    links = Breaks()
    host = await opened({"stall": 1.0, "pieces": 1}, links, stall_s=0.05)
    asking = asyncio.create_task(host.route(replace(question(0, 0.5), remaining_s=0.4)))
    await asyncio.sleep(0.02)
    links.broken = True
    result = await asyncio.wait_for(asking, 2)
    assert isinstance(result, Rejected)
    assert "the registry is gone" in caplog.text
    await host.close()


class Broken(LocalRuntime):
    """A transport that raises what no transport should."""

    async def route(self, agent: str, query: Query) -> Accepted | Rejected:
        raise ZeroDivisionError("no way to " + agent)


async def test_a_transport_that_raises_costs_that_peer_and_nothing_else() -> None:
    cards = {name: Card(name, cost) for name, cost in (("a0", 0.1), ("a1", 0.9))}
    links = Directory(Cascade({card.name: card.cost for card in cards.values()}), cards)
    host = await opened({"refuse": 1.0}, links)
    host.transport = Broken()
    begun = await asyncio.wait_for(host.route(question(0, 0.5)), 2)
    assert isinstance(begun, Accepted)
    assert [(hop.agent, hop.verdict) for hop in begun.hops] == [("a0", "refused"), ("a1", "failed")]
    await host.close()
