"""What must hold whatever happens, in whatever order: hypothesis looks for a history in which it does not."""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
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

EXAMPLES = {"default": 300, "thorough": 10_000}[os.environ.get("HYPOTHESIS_PROFILE", "default")]
explored = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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
        assert self.engine <= self.running <= self.turns.keys()
        assert len(self.running) <= self.settings.running
        return commands

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


class AnyOrder(Adversary):
    """Whatever is under way may happen next, however late that makes everything else."""

    def step(self) -> None:
        at, _, do, what = self._heap.pop(self.rng.randrange(len(self._heap)))
        self.now = max(self.now, at)
        do(*what)
        self.check()


SHARES = st.sampled_from((0.0, 0.2, 0.5, 1.0))
TROUBLES = st.sampled_from((0.0, 0.0, 0.2, 0.6))
TIMES = st.floats(0, 6, allow_nan=False).map(lambda at: round(at, 3))


@st.composite
def histories(draw: st.DrawFn, kind: type[Adversary] = Adversary) -> Adversary:
    """A small pool under a heavy load, with deaths, stalls, cancellations and changes of who is there on the way."""
    engine = {"refuse": draw(SHARES), "fail": draw(TROUBLES), "stall": draw(TROUBLES)}
    engine |= {"delay_s": draw(st.sampled_from((0.0, 0.1, 0.6))), "piece_s": draw(st.sampled_from((0.0, 0.2)))}
    limits = {"running": draw(st.integers(1, 3)), "waiting": draw(st.integers(0, 4)), "tick_s": TICK_S}
    limits |= {"stall_s": draw(st.sampled_from((0.4, 1.0, 10.0))), "lease_s": draw(st.sampled_from((0.6, 15.0)))}
    rule, shape, count = draw(st.sampled_from(sorted(RULES))), draw(st.sampled_from(SHAPES)), draw(st.integers(1, 5))
    config = load(pool(rule, shape, count, draw(st.integers(0, 99)), engine, limits=limits))
    kind.rng = draw(st.randoms(use_true_random=False))
    kind.twice = draw(st.booleans())
    world = kind(
        agent_specs(config), config.build_topology(), tick_s=TICK_S, stall_s=limits["stall_s"], notice_s=draw(TIMES) / 6
    )
    specs = dict(world._specs)
    names = st.sampled_from(sorted(specs))
    for number in range(draw(st.integers(1, 12))):
        fields = draw(
            st.sampled_from(({}, {"may_decline": True}, {"must_answer": True}, {"max_cost": 1.0}, {"hops_left": 1}))
        )
        asked = question(number, draw(st.sampled_from((0.2, 0.5, 0.8))))
        asked = type(asked)(asked.id, asked.messages, asked.alpha, seed=asked.seed, remaining_s=DEADLINE_S, **fields)
        world.ask(asked, draw(TIMES), draw(st.none() | names))
        if draw(st.integers(0, 5)) == 0:
            world.cancel(asked.id, draw(TIMES))
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
            world.cut(
                [name, *([draw(st.sampled_from(sorted(world.agents)))] if draw(st.booleans()) else [])], at, lasting
            )


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


@explored
@given(st.data())
def test_whatever_fails_and_however_long_messages_take(data: st.DataObject) -> None:
    with patch("mesh.runtimes.virtual.Node", Watched):
        world = data.draw(histories())
        must_hold(world)
    for number, ended in world.ended.items():
        assert ended - world.begun[number] <= DEADLINE_S + TICK_S + 1e-9


@explored
@given(st.data())
def test_whatever_happens_in_any_order(data: st.DataObject) -> None:
    with patch("mesh.runtimes.virtual.Node", Watched):
        must_hold(data.draw(histories(AnyOrder)))
