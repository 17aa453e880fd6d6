"""Twice as much as a mesh can do: it does as much as it can, its queues stay short, and the rest is told at once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from agents.errors import AgentBusy
from agents.messages import Reply
from mesh.config import load
from tests.pools import pool, query, simulation

SECONDS, SERVICE_S, RUNNING, WAITING = 60, 0.4, 8, 8
CAPACITY = RUNNING / SERVICE_S  # queries a second, of one agent


def outcomes(rate: float, agents: int = 1, **engine: Any) -> tuple[Counter[str], list[Reply], int]:
    """How queries end that come at so many a second; the replies; and the most that any agent had in hand."""
    limits = {"running": RUNNING, "waiting": WAITING}
    settings = pool(agents=agents, engine={"refuse": 0.0, "delay_s": SERVICE_S, "pieces": 1, **engine}, limits=limits)
    config, world, most = load(settings), simulation(settings), 0

    def look() -> None:
        nonlocal most
        most = max(most, *(len(host.node.turns) for host in world.agents.values()))

    for number in range(int(rate * SECONDS)):
        at = number / rate
        world.ask(query(config, f"question {number}", 0.5, str(number)), at)
        world.at(at + 0.01, look)
    ends = world.run()
    replies = [end for end in ends if isinstance(end, Reply)]
    return Counter("answered" if isinstance(end, Reply) else type(end).__name__ for end in ends), replies, most


@pytest.mark.parametrize("agents", [1, 3])
def test_goodput_at_twice_the_capacity(agents: int) -> None:
    """At least nine tenths of that at capacity; who gets no answer is told that everybody is busy."""
    capacity = agents * CAPACITY
    at_capacity, _, _ = outcomes(capacity, agents)
    twice, replies, most = outcomes(2 * capacity, agents)
    assert twice["answered"] >= 0.9 * at_capacity["answered"]
    assert at_capacity["answered"] >= 0.95 * capacity * SECONDS
    assert set(twice) == {"answered", AgentBusy.__name__}
    assert most <= RUNNING + WAITING
    assert max(reply.seconds for reply in replies) < 2 * (RUNNING + WAITING) / CAPACITY + 1


def test_a_full_agent_leaves_queries_to_others() -> None:
    """The cheapest of three gets all that comes; what it has no room for, the next ones answer."""
    ends, replies, _ = outcomes(2.5 * CAPACITY, agents=3)
    assert ends["answered"] == int(2.5 * CAPACITY * SECONDS)
    assert min(Counter(reply.agent for reply in replies).values()) > 0.3 * CAPACITY * SECONDS
    assert {hop.reason for reply in replies for hop in reply.path if hop.verdict == "failed"} == {"busy"}


def test_what_cannot_end_in_time_is_ended_at_its_deadline() -> None:
    limits = {"running": 1, "waiting": 100, "tick_s": 0.05}
    settings = pool(agents=1, engine={"refuse": 0.0, "delay_s": 1.0}, limits=limits)
    config, world = load(settings), simulation(settings)
    for number in range(10):
        world.ask(query(config, f"question {number}", 0.5, str(number), remaining_s=4.5))
    ends = world.run()
    assert [type(end).__name__ for end in ends] == ["Reply"] * 4 + ["DeadlineExceeded"] * 6
    assert world.now < 6  # the six were not worked on afterwards
