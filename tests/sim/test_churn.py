"""Everything that can happen to a mesh happens to it, in virtual time; and what watches over it sees what is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from agents import node
from agents.errors import MeshError
from agents.messages import Asked, Card, Query, Reply
from agents.node import Node, Turn
from mesh.churn import KINDS, Watched
from mesh.directory import Directory
from mesh.owner import Owner
from mesh.runtimes.sim import Simulation
from mesh.simulate import question, simulate
from tests.pools import pool, simulation

QUERIES = 2_000


def churned(**options: Any) -> dict[str, Any]:
    settings = {"agents": 60, "queries": QUERIES, "faults": 45, "topology": "small_world", "rate": 1.0, "seed": 1}
    return simulate(**{**settings, **options})


@pytest.mark.parametrize("topology", ["small_world", "nearest", "mesh"])
def test_whatever_happens_every_promise_is_kept(topology: str) -> None:
    result = churned(topology=topology, fail=0.01)
    assert (result["answered"] + result["failed"], result["lost"]) == (QUERIES, 0)
    assert result["answered"] > QUERIES / 2  # 45 faults in half a minute, some of which strike an eighth of all
    assert result["faults"] == dict.fromkeys(sorted(KINDS), 5)
    assert {*result["failures"]} <= {"DeadlineExceeded", "NoAgentLeft", "AgentBusy"}


@pytest.mark.parametrize("topology", ["tree", "cascade"])
def test_where_all_enter_at_one_agent_too(topology: str) -> None:
    result = churned(topology=topology, rate=20.0)
    assert (result["answered"] + result["failed"], result["lost"]) == (QUERIES, 0)


def test_a_seed_repeats_all_of_it() -> None:
    first, again, other = (churned(seed=seed) for seed in (1, 1, 2))
    assert first["digest"] == again["digest"] != other["digest"]


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_million_queries_among_a_thousand_agents() -> None:
    result = churned(agents=1_000, queries=1_000_000, faults=1_800, rate=0.5, alpha=0.8)
    assert (result["answered"] + result["failed"], result["lost"]) == (1_000_000, 0)
    assert result["answered"] > 980_000
    assert min(result["faults"].values()) == 200


# ---------------------------------------------------------------------------------- what is wrong is seen


def forgetful(self: Node, turn: Turn, result: Any) -> None:
    """Remembers nothing of a query that is over."""
    del self.turns[turn.query.key]


def anybody(self: Directory, name: str, down: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Knows no edges."""
    return tuple(other for other in [*self.cards][::-7] if other not in down)


def back(self: Node, turn: Turn, reserve: float = 0.0) -> tuple[Card, ...]:
    """Forwards also to who had it before."""
    failed = [hop.agent for hop in turn.path if hop.verdict == "failed"]
    names = self.links.neighbours(self.card.name, self.down.union(turn.query.excluded, failed))
    return tuple(self.links.cards[name] for name in names)


def hopeful(self: Node, turn: Turn, reserve: float = 0.0) -> tuple[Card, ...]:
    """Forwards also to who is down."""
    visited = {self.card.name, *[hop.agent for hop in turn.path]}
    names = self.links.neighbours(self.card.name)
    return tuple(self.links.cards[name] for name in names if name not in visited)


def greedy(self: Node, event: Asked, now: float, out: list[Any]) -> None:
    """Takes whatever comes."""
    query = event.query
    self.turns[query.key] = Turn(query, now, now + query.remaining_s, now, query.path)
    self.queue.append(query.key)


WRONG: list[tuple[Any, str, Any, str]] = [
    (Node, "_remember", forgetful, "a second time"),
    (Directory, "neighbours", anybody, "to whom no edge leads"),
    (Node, "_peers", back, "who had it before"),
    (Node, "_peers", hopeful, "who is known to be of no use"),
    (Owner, "_tick", lambda self, now: [], "not over by its deadline"),
    (node, "_HANDLERS", {**node._HANDLERS, Asked: greedy}, "queries in hand"),
]


@pytest.mark.parametrize(("where", "name", "wrong", "told"), WRONG, ids=[told for *_, told in WRONG])
def test_a_broken_promise_is_seen_and_how_to_see_it_again(
    where: Any, name: str, wrong: Callable[..., Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, name, wrong)
    with pytest.raises(MeshError) as caught:
        churned(rate=4.0)
    assert told in str(caught.value)
    again = f"again: mesh sim --agents 60 --queries {QUERIES} --alpha 0.5 --seed 1 --topology small_world"
    assert again in str(caught.value)
    assert str(caught.value).endswith("--faults 45")


def test_a_query_that_ends_twice_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    end = Simulation.end

    def twice(self: Simulation, asker: Any, result: Any) -> None:
        end(self, asker, result)
        if self.over == 100:
            self.at(self.now, Watched.end, self, asker, result)

    monkeypatch.setattr(Simulation, "end", twice)
    with pytest.raises(MeshError, match="ends twice"):
        churned()


# ---------------------------------------------------------------------------------- one thing at a time


def query(number: int) -> Query:
    return question(number, 0.5)


def world(agents: int = 3, refuse: float = 1.0, **engine: Any) -> Watched:
    """A cascade of agents that refuse all, but for the last, which must answer."""
    plain = simulation(pool(engine={"refuse": refuse, **engine}, agents=agents))
    return Watched(plain._specs, plain.directory.topology, tick_s=0.25, stall_s=2.0)


def test_who_stands_still_goes_on_where_it_was() -> None:
    mesh = world(delay_s=1.0)
    mesh.ask(query(0))
    mesh.stall("a1", 1.5, 10.0)
    (reply,) = mesh.run()
    assert isinstance(reply, Reply)
    assert [hop.agent for hop in reply.path] == ["a0", "a1", "a2"]
    assert 12.5 < reply.seconds < 15.0


def test_who_is_slow_takes_ten_times_as_long() -> None:
    seconds = []
    for slow in (False, True):
        mesh = world(agents=1, refuse=0.0, delay_s=1.0)
        if slow:
            mesh.slow("a0", 0.0, 60.0)
        mesh.ask(query(0), at=0.1)
        (reply,) = mesh.run()
        assert isinstance(reply, Reply)
        seconds.append(reply.seconds)
    assert seconds[1] - seconds[0] == pytest.approx(9.0, abs=0.01)


def test_who_is_cut_off_is_left_and_found_again() -> None:
    mesh = world()
    mesh.cut(["a1"], 0.0, 60.0)
    for number, at in enumerate((1.0, 40.0, 90.0)):
        mesh.ask(query(number), at)
    during, known, after = (reply for reply in mesh.run() if isinstance(reply, Reply))
    assert [(hop.agent, hop.reason) for hop in during.path] == [("a0", ""), ("a1", "died"), ("a2", "forced")]
    assert [hop.agent for hop in known.path] == ["a0", "a2"]  # by then everybody had heard that it is gone
    assert known.seconds < 1 < 17 < during.seconds  # it was taken for dead after 18 s
    assert [hop.agent for hop in after.path] == ["a0", "a1", "a2"]


def test_who_leaves_finishes_what_it_has() -> None:
    mesh = world(refuse=0.0, delay_s=3.0)
    mesh.ask(query(0))
    mesh.leave("a0", 1.0)
    mesh.ask(query(1), at=2.0)
    first, second = mesh.run()
    assert isinstance(first, Reply)
    assert isinstance(second, Reply)
    assert (first.agent, first.attempts, second.agent) == ("a0", 1, "a1")
    assert {*mesh.agents} == {"a1", "a2"}


def test_a_newcomer_is_asked_and_its_price_is_the_answers() -> None:
    mesh = world(delay_s=2.0)
    mesh.ask(query(0))  # under way when somebody joins whom its caller has never heard of
    spec = mesh._specs["a2"]
    setup = dataclasses.replace(spec.setup, agent="b")
    mesh.join(dataclasses.replace(spec, card=replace(spec.card, name="b", cost=1.0), setup=setup), 1.0)
    (reply,) = mesh.run()
    assert isinstance(reply, Reply)
    assert [hop.agent for hop in reply.path] == ["a0", "a1", "a2", "b"]
    assert (reply.agent, reply.cost) == ("b", 1.0)


def test_who_is_upgraded_serves_its_new_version_from_the_next_draft_on() -> None:
    mesh = world(refuse=0.0, delay_s=1.0, answer="old")
    spec = mesh._specs["a0"]
    mesh.ask(query(0), at=0.5)
    mesh.update(dataclasses.replace(spec, engine=("scripted", {**spec.engine[1], "answer": "new"})), 1.0)
    mesh.ask(query(1), at=2.0)
    assert [reply.text for reply in mesh.run() if isinstance(reply, Reply)] == ["old", "new"]
