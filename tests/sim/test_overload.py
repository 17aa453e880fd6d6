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


def test_what_cannot_end_in_time_is_not_begun() -> None:
    limits = {"running": 1, "waiting": 100, "tick_s": 0.05}
    settings = pool(agents=1, engine={"refuse": 0.0, "delay_s": 1.0}, limits=limits)
    config, world = load(settings), simulation(settings)
    for number in range(10):
        world.ask(query(config, f"question {number}", 0.5, str(number), remaining_s=4.5))
    ends = world.run()
    assert [type(end).__name__ for end in ends] == ["Reply"] * 4 + ["DeadlineExceeded"] * 6
    assert "it would take 1.1 s here, and 0.5 s are left" in str(ends[4])
    assert world.now < 4.5  # known before the deadline: nothing was begun in vain


def test_where_deadlines_are_short_work_is_not_wasted_on_what_will_be_late() -> None:
    """Twice the capacity, a queue longer than the deadline allows: what is answered is answered in time."""
    limits = {"running": RUNNING, "waiting": 200, "tick_s": 0.05}
    settings = pool(agents=1, engine={"refuse": 0.0, "delay_s": SERVICE_S}, limits=limits)
    config, world = load(settings), simulation(settings)
    for number in range(int(2 * CAPACITY * SECONDS)):
        at = number / (2 * CAPACITY)
        world.ask(query(config, f"question {number}", 0.5, str(number), remaining_s=2.0), at)
    ends = Counter(type(end).__name__ for end in world.run())
    assert ends["Reply"] >= 0.9 * CAPACITY * SECONDS
    assert set(ends) == {"Reply", "DeadlineExceeded"}


def test_high_priority_is_answered_through_an_overload() -> None:
    limits = {"running": RUNNING, "waiting": WAITING}
    settings = pool(agents=1, engine={"refuse": 0.0, "delay_s": SERVICE_S}, limits=limits)
    config, world = load(settings), simulation(settings)
    asked = int(2 * CAPACITY * SECONDS)
    for number in range(asked):  # a fifth high, three fifths normal, a fifth low
        priority = (2, 1, 1, 1, 0)[number % 5]
        world.ask(query(config, f"question {number}", 0.5, str(number), priority=priority), number / (2 * CAPACITY))
    ends = world.run()
    answered = Counter((2, 1, 1, 1, 0)[at % 5] for at, end in enumerate(ends) if isinstance(end, Reply))
    assert answered[2] == asked / 5
    assert answered[0] < 0.1 * asked / 5
    assert answered.total() >= 0.9 * CAPACITY * SECONDS


def test_a_brown_out_answers_more_cheaply_and_says_so() -> None:
    """Agents that would forward at the alpha asked for answer themselves while they have too much to do."""
    engine = {"refuse": 0.0, "confidence": 0.6, "delay_s": SERVICE_S, "pieces": 1}
    found = []
    for brownout in (0.0, 1.0):
        limits = {"running": RUNNING, "waiting": WAITING, "brownout": brownout}
        settings = pool("reliability", agents=2, engine=engine, limits=limits)
        config, world = load(settings), simulation(settings)
        for number in range(int(2 * CAPACITY * SECONDS)):
            world.ask(query(config, f"question {number}", 0.5, str(number)), number / (2 * CAPACITY))
        replies = [end for end in world.run() if isinstance(end, Reply)]
        assert {reply.alpha for reply in replies} == {0.5}
        used = [reply.alpha_used for reply in replies if reply.alpha_used is not None]
        assert len(used) == len(replies)
        assert max(used) > 0.6 if brownout else set(used) == {0.5}
        found.append((len(replies), sum(reply.full_cost for reply in replies) / len(replies)))
    (asked_for, dear), (browned, cheap) = found
    assert browned >= asked_for
    assert cheap < 0.8 * dear
