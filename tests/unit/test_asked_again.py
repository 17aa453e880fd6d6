"""A host that is asked again for an answer that it has given up says so, instead of having its caller wait."""

from __future__ import annotations

import asyncio

from agents.messages import Accepted, Rejected
from agents.spec import open_host
from mesh.assemble import agent_specs
from mesh.config import load
from mesh.directory import NOBODY
from mesh.runtimes.local import LocalRuntime
from mesh.simulate import question
from tests.pools import pool


async def test_an_answer_that_nobody_pulled_is_given_up() -> None:
    settings = pool(engine={"refuse": 0.0}, agents=1, limits={"lease_s": 0.05, "tick_s": 0.02})
    host = await open_host(agent_specs(load(settings))["a0"], NOBODY, LocalRuntime())
    first = await host.route(question(0, 0.5))
    assert isinstance(first, Accepted)
    assert first.batch is not None
    second = await host.route(question(0, 0.5))  # its first asker may have died before it could tell
    assert isinstance(second, Accepted)
    assert second.batch is not None
    assert second.batch.pieces[:1] == first.batch.pieces
    await asyncio.sleep(0.2)
    again = await host.route(question(0, 0.5))
    assert isinstance(again, Rejected)
    assert (again.reason, again.detail) == ("failed", "its answer was given up")
    await host.close()
