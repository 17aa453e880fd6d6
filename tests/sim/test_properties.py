"""What must hold whatever happens, in whatever order: hypothesis looks for a history in which it does not."""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Callable
from heapq import heapify
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from agents.messages import (
    Drafted,
    DraftFailed,
    Generate,
    Judge,
    Key,
    NodeCommand,
    NodeEvent,
    Piece,
    Query,
    Reply,
    Scored,
    Stop,
)
from agents.node import Node
from agents.spec import AgentSpec
from mesh.assemble import agent_specs
from mesh.config import load
from mesh.runtimes.trouble import Troubled
from mesh.runtimes.virtual import Caller, VirtualHost
from mesh.simulate import question
from tests.pools import RULES, SHAPES, pool

EXAMPLES = {"default": 500, "thorough": 10_000}[os.environ.get("HYPOTHESIS_PROFILE", "default")]
explored = settings(
    max_examples=EXAMPLES, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TICK_S, DEADLINE_S, LATENCY_S = 0.25, 3.0, 0.5


class Watched(Node):
    """A node that is looked at after every step; ``engine`` holds what a real one would work on."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.until: dict[Key, float] = {}
        self.assessed: set[Key] = set()
        self.engine: set[Key] = set()

    def step(self, event: NodeEvent, now: float) -> list[NodeCommand]:
        match event:
            case Drafted(key, _, Piece(finish="stop" | "length")) | Scored(key) | DraftFailed(key):
                self.engine.discard(key)
        before = set(self.turns)
        commands = super().step(event, now)
        for key in self.turns.keys() - before:
            assert now >= self.until.get(key, 0.0), "it was here before, in this attempt"
            self.until[key] = self.turns[key].deadline + self.settings.stall_s
            self.assessed.discard(key)
        for command in commands:
            match command:
                case Generate(request):
                    self._work(request.key)
                    if not request.ban:
                        assert request.key not in self.assessed, "it was assessed before, in this attempt"
                        self.assessed.add(request.key)
                case Judge(request):
                    self._work(request.key)
                case Stop(key):
                    self.engine.discard(key)
        self.check()
        return commands

    def check(self) -> None:
        limits = self.settings
        assert self.engine <= self.running <= self.turns.keys()
        assert len(self.running) <= limits.running
        assert len(self.turns) <= limits.running + limits.waiting

    def _work(self, key: Key) -> None:
        assert key not in self.engine, "two drafts at once"
        self.engine.add(key)


class Adversary(Troubled):
    """Messages take as long as hypothesis likes; calls that may arrive twice now and then do."""

    rng: random.Random
    twice = False

    def __init__(self, *args: Any, **options: Any) -> None:
        self.begun: dict[int, float] = {}
        self.ended: dict[int, float] = {}
        super().__init__(*args, **options)

    def send(self, do: Callable[..., None], *what: Any) -> None:
        self.messages += 1
        self.at(self.now + self.rng.choice((0.0, 0.001, 0.02, LATENCY_S)), do, *what)

    def call(self, caller: Caller, agent: str, key: Key, method: Callable[..., None], *what: Any) -> None:
        for _ in range(2 if self.twice and method is not VirtualHost.pull and self.rng.random() < 0.1 else 1):
            super().call(caller, agent, key, method, *what)

    def _ask(self, number: int, *what: Any) -> None:
        self.begun[number] = self.now
        super()._ask(number, *what)

    def end(self, asker: Any, result: Any) -> None:
        super().end(asker, result)
        self.ended[asker.number] = self.now

    def step(self) -> None:
        super().step()
        self.check()

    def check(self) -> None:
        for agent in self.agents.values():
            assert agent.drafts.keys() <= agent.node.running, "the engine works for nobody"


SHARES = st.sampled_from((0.0, 0.2, 0.5, 1.0))
TROUBLES = st.sampled_from((0.0, 0.0, 0.2, 0.6))
ALPHAS = st.sampled_from((0.2, 0.5, 0.8))
FIELDS = st.sampled_from(({}, {"may_decline": True}, {"must_answer": True}, {"max_cost": 1.0}, {"hops_left": 1}))
PLACES = st.integers(0, 9)
TIMES = st.floats(0, 6, allow_nan=False).map(lambda at: round(at, 3))


@st.composite
def worlds(draw: st.DrawFn, kind: type[Adversary] = Adversary) -> Adversary:
    """A small pool whose agents are soon full, refuse, fail and stall."""
    engine = {"refuse": draw(SHARES), "fail": draw(TROUBLES), "stall": draw(TROUBLES)}
    engine |= {"delay_s": draw(st.sampled_from((0.0, 0.1, 0.6))), "piece_s": draw(st.sampled_from((0.0, 0.2)))}
    limits = {"running": draw(st.integers(1, 3)), "waiting": draw(st.integers(0, 4)), "tick_s": TICK_S}
    limits |= {"stall_s": draw(st.sampled_from((0.4, 1.0, 10.0))), "lease_s": draw(st.sampled_from((0.6, 15.0)))}
    rule, shape, count = draw(st.sampled_from(sorted(RULES))), draw(st.sampled_from(SHAPES)), draw(st.integers(1, 5))
    config = load(pool(rule, shape, count, draw(st.integers(0, 99)), engine, limits=limits))
    kind.rng = draw(st.randoms(use_true_random=False))
    kind.twice = draw(st.booleans())
    return kind(
        agent_specs(config), config.build_topology(), tick_s=TICK_S, stall_s=limits["stall_s"], notice_s=draw(TIMES) / 6
    )


def asked(number: int, alpha: float, fields: dict[str, Any]) -> Query:
    """A query with some of what a query may say."""
    return replace(question(number, alpha), remaining_s=DEADLINE_S, **fields)


@st.composite
def histories(draw: st.DrawFn) -> Adversary:
    """Such a pool under a heavy load, with deaths, stalls, cancellations and changes of who is there on the way."""
    world = draw(worlds())
    specs = dict(world._specs)
    names = st.sampled_from(sorted(specs))
    for number in range(draw(st.integers(1, 12))):
        query = asked(number, draw(ALPHAS), draw(FIELDS))
        world.ask(query, draw(TIMES), draw(st.none() | names))
        if draw(st.integers(0, 5)) == 0:
            world.cancel(query.id, draw(TIMES))
    for _ in range(draw(st.integers(0, 5))):
        name, at = draw(names), draw(TIMES)
        world.kill(name, at)
        if draw(st.booleans()):
            world.revive(name, at + draw(TIMES) / 4)
    for number in range(draw(st.integers(0, 5))):
        changed(draw, world, specs[draw(names)], number)
    return world


def changed(draw: st.DrawFn, world: Adversary, spec: AgentSpec, number: int) -> None:
    """An agent comes, goes, changes, stands still, slows down or is cut off; a newcomer may leave at once."""
    at, lasting, name = draw(TIMES), draw(TIMES) / 2, spec.name
    match draw(st.sampled_from(("joins", "leaves", "is updated", "stands still", "is slow", "is cut off"))):
        case "joins":
            card, setup = replace(spec.card, name=f"new{number}"), dataclasses.replace(spec.setup, agent=f"new{number}")
            world.join(dataclasses.replace(spec, card=card, setup=setup), at)
            if draw(st.booleans()):
                world.leave(card.name, at + lasting)
        case "leaves":
            world.leave(name, at)
        case "is updated":
            engine = {**spec.engine[1], "refuse": draw(SHARES)}
            world.update(dataclasses.replace(spec, engine=(spec.engine[0], engine)), at)
        case "stands still":
            world.stall(name, at, lasting)
        case "is slow":
            world.slow(name, at, lasting)
        case "is cut off":
            world.silence_s = draw(TIMES) / 4
            beside = [draw(st.sampled_from(sorted(world.agents) or [name]))] if draw(st.booleans()) else []
            world.cut([name, *beside], at, lasting)


def must_hold(world: Adversary) -> None:
    """After the end: everybody has an answer, and nobody holds anything."""
    results = world.run()
    assert world.lost == 0
    assert len(results) == len(world.ended)  # one end each; a second one raises in the simulation
    for agent in world.agents.values():
        node = agent.node
        assert not any((node.turns, node.running, node.queue, agent.drafts, agent.outboxes))
    for reply in results:
        if isinstance(reply, Reply):
            assert reply.path[-1].agent == reply.agent
            assert abs(reply.full_cost - sum(hop.full_cost for hop in reply.path)) < 1e-9


def in_time(data: st.DataObject) -> None:
    """A history in which everything happens at its time."""
    with patch("mesh.runtimes.virtual.Node", Watched):
        world = data.draw(histories())
        must_hold(world)
    for number, ended in world.ended.items():
        assert ended - world.begun[number] <= DEADLINE_S + TICK_S + 1e-9


@explored
@given(st.data())
def test_whatever_fails_and_however_long_messages_take(data: st.DataObject) -> None:
    in_time(data)


class AnyOrder(RuleBasedStateMachine):
    """Whatever is under way may happen next, however late that makes everything else."""

    def __init__(self) -> None:
        super().__init__()
        self._watched = patch("mesh.runtimes.virtual.Node", Watched)
        self._watched.start()
        self.names: list[str] = []
        self.queries: list[str] = []

    @initialize(world=worlds())
    def begin(self, world: Adversary) -> None:
        self.world, self.specs = world, dict(world._specs)
        self.names = sorted(self.specs)

    def name(self, place: int) -> str:
        return self.names[place % len(self.names)]

    @rule(places=st.lists(st.integers(0, 40), min_size=1, max_size=20))
    def some_of_it_happens(self, places: list[int]) -> None:
        for place in places:
            if self.world._heap:
                at, _, do, what = self.world._heap.pop(place % len(self.world._heap))
                self.world.now = max(self.world.now, at)
                do(*what)
                self.world.check()

    @rule(alpha=ALPHAS, fields=FIELDS, entry=st.none() | PLACES)
    def one_asks(self, alpha: float, fields: dict[str, Any], entry: int | None) -> None:
        query = asked(len(self.queries), alpha, fields)
        self.queries.append(query.id)
        self.world.ask(query, self.world.now, None if entry is None else self.name(entry))

    @precondition(lambda self: self.queries)
    @rule(place=PLACES)
    def one_is_given_up(self, place: int) -> None:
        self.world.cancel(self.queries[place % len(self.queries)], self.world.now)

    @rule(place=PLACES)
    def one_dies(self, place: int) -> None:
        self.world.kill(self.name(place), self.world.now)

    @rule(place=PLACES)
    def one_is_started_again(self, place: int) -> None:
        """Also before anybody has heard of its death, and while messages of its last life are under way."""
        self.world.revive(self.name(place), self.world.now)

    @rule(data=st.data(), place=PLACES)
    def something_changes(self, data: st.DataObject, place: int) -> None:
        changed(data.draw, self.world, self.specs[self.name(place)], len(self.world.directory.cards))

    def in_order(self) -> None:
        """What is left happens by its time, or now where that has passed."""
        world = self.world
        world._heap[:] = [(max(at, world.now), *what) for at, *what in world._heap]
        heapify(world._heap)

    @invariant()
    def agents_hold_what_they_may(self) -> None:
        for agent in self.world.agents.values() if self.names else ():
            agent.node.check()

    def teardown(self) -> None:
        try:
            if self.names:
                self.in_order()
                must_hold(self.world)
        finally:
            self._watched.stop()


def test_whatever_happens_in_any_order() -> None:
    run_state_machine_as_test(AnyOrder, settings=explored)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("ordered", [True, False])
def test_whatever_happens_many_times_over(ordered: bool) -> None:
    many = settings(explored, max_examples=25_000)
    if ordered:
        many(given(st.data())(in_time))()
    else:
        run_state_machine_as_test(AnyOrder, settings=many)
