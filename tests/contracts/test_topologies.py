"""What every shape in TOPOLOGIES promises."""

from __future__ import annotations

import pickle
from collections import deque
from typing import Any

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topologies import TOPOLOGIES, Topology, TopologyError

SIZES = (1, 2, 3, 4, 5, 8, 40)
shapes = pytest.mark.parametrize("shape", sorted(TOPOLOGIES))
pools = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=4), st.floats(0.01, 1.0, allow_subnormal=False), min_size=1, max_size=14
)


def dearer(agents: dict[str, float]) -> dict[str, list[str]]:
    """Explicit edges for ``agents``: each to the next two in the order of cost and name."""
    order = sorted(agents, key=lambda name: (agents[name], name))
    return {name: order[rank + 1 : rank + 3] for rank, name in enumerate(order)}


def build(shape: str, agents: dict[str, float]) -> Topology:
    options: dict[str, Any] = {"edges": dearer(agents)} if shape == "edges" else {}
    return TOPOLOGIES[shape](agents, **options)


def join(topology: Topology, name: str, cost: float) -> Topology:
    agents = {**topology.agents, name: cost}
    return topology.join(name, cost, **({"edges": dearer(agents)} if "edges" in topology.options else {}))


def pool(size: int) -> dict[str, float]:
    """Costs rise in steps, with two agents to a step."""
    return {f"agent-{i}": (i // 2 + 1) / size for i in reversed(range(size))}


def stand_ins(topology: Topology, name: str, down: frozenset[str]) -> list[str]:
    """Naive reference of ``neighbours``: whole paths, breadth first, through agents that are down."""
    found: list[str] = []
    paths: deque[tuple[str, ...]] = deque([(name, to) for to in topology.neighbours(name)])
    while paths:
        path = paths.popleft()
        if path[-1] not in down and path[-1] not in found:
            found.append(path[-1])
        if path[-1] in down:
            paths.extend((*path, to) for to in topology.neighbours(path[-1]) if to not in path)
    return found


def assert_sound(topology: Topology) -> None:
    topology.check(whole=True)
    graph = topology.graph()
    assert {name: graph.nodes[name]["cost"] for name in graph} == topology.agents
    assert nx.descendants(graph, topology.entry) | {topology.entry} == set(topology.agents)
    for name in topology.agents:
        near = topology.neighbours(name)
        assert list(graph.successors(name)) == list(near)
        assert name not in near
        assert len(set(near)) == len(near)
        assert {name, *nx.descendants(graph, name)} & set(topology.exits())
    assert sorted(topology.entries()) == sorted(topology.agents)
    assert topology.entries()[0] == topology.entry


@shapes
@pytest.mark.parametrize("size", SIZES)
def test_every_size_is_sound(shape: str, size: int) -> None:
    topology = build(shape, pool(size))
    assert_sound(topology)
    assert topology.entry == "agent-0"
    assert list(topology.agents) == sorted(topology.agents, key=lambda name: (topology.agents[name], name))


@shapes
def test_copies_are_equal_and_pickles_are_small(shape: str) -> None:
    topology = build(shape, pool(8))
    bare = len(pickle.dumps(topology))
    topology.entries()
    copy = pickle.loads(pickle.dumps(topology))
    assert len(pickle.dumps(topology)) == bare
    assert copy == topology == build(shape, dict(reversed(pool(8).items())))
    assert [copy.neighbours(name) for name in copy.agents] == [topology.neighbours(name) for name in topology.agents]
    assert topology != build(shape, pool(9))
    assert topology != TOPOLOGIES["tree" if shape == "cascade" else "cascade"](pool(8))


@shapes
def test_agents_and_options_cannot_be_changed_from_outside(shape: str) -> None:
    agents = pool(3)
    topology = build(shape, agents)
    agents["stranger"] = 0.5
    assert "stranger" not in topology.agents
    with pytest.raises(TypeError):
        topology.agents["stranger"] = 0.5  # type: ignore[index]


@shapes
def test_join_and_leave_leave_the_old_one_alone(shape: str) -> None:
    old = build(shape, pool(5))
    grown = join(old, "new", 0.5)
    assert_sound(grown)
    assert grown.agents["new"] == 0.5
    assert old == build(shape, pool(5))
    shrunk = grown.leave("new")
    assert_sound(shrunk)
    assert shrunk.agents == old.agents
    assert "new" in grown.agents


@shapes
def test_when_the_entry_leaves_the_cheapest_left_takes_over(shape: str) -> None:
    agents = {"a": 0.1, "c": 0.3, "b": 0.2, "d": 0.4}
    shrunk = build(shape, agents).leave("a")
    assert shrunk.entry == "b"
    assert_sound(shrunk)


@shapes
def test_a_joining_cheapest_agent_becomes_the_default_entry(shape: str) -> None:
    grown = join(build(shape, {"b": 0.2, "c": 0.3}), "a", 0.1)
    assert grown.entry == "a"
    assert_sound(grown)


@shapes
def test_bad_members_are_named(shape: str) -> None:
    topology = build(shape, {"a": 0.5})
    with pytest.raises(TopologyError, match=r"'a' is here already, at cost 0\.5"):
        topology.join("a", 0.1)
    with pytest.raises(TopologyError, match="'a' is the last one"):
        topology.leave("a")
    for call in (topology.leave, topology.neighbours):
        with pytest.raises(TopologyError, match=r"unknown agent 'x'; known: \('a',\)"):
            call("x")
    with pytest.raises(TopologyError, match="entry 'x' is no agent"):
        TOPOLOGIES[shape]({"a": 0.5}, "x")
    with pytest.raises(TopologyError, match="no option 'colour'"):
        TOPOLOGIES[shape]({"a": 0.5}, colour="red")
    with pytest.raises(TopologyError, match="no agents"):
        TOPOLOGIES[shape]({})


@shapes
@given(agents=pools, data=st.data())
@settings(deadline=None, max_examples=40)
def test_those_down_are_replaced_by_their_own_neighbours(
    shape: str, agents: dict[str, float], data: st.DataObject
) -> None:
    topology = build(shape, agents)
    down = data.draw(st.frozensets(st.sampled_from([*topology.agents, "stranger"]), max_size=5))
    for name in topology.agents:
        near = topology.neighbours(name, down)
        assert list(near) == stand_ins(topology, name, down)
        assert not {name, *down} & set(near)
    assert set(topology.entries(down)) == set(topology.agents) - down


@shapes
@given(agents=pools, data=st.data())
@settings(deadline=None, max_examples=40)
def test_any_sequence_of_joins_and_leaves_is_sound(shape: str, agents: dict[str, float], data: st.DataObject) -> None:
    topology = build(shape, agents)
    for step in range(data.draw(st.integers(1, 8))):
        if len(topology.agents) > 1 and data.draw(st.booleans()):
            topology = topology.leave(data.draw(st.sampled_from(sorted(topology.agents))))
        else:
            topology = join(topology, f"new-{step}", data.draw(st.floats(0.01, 1.0)))
        assert_sound(topology)


# mesh refuses as many, edges holds every edge from the start
@pytest.mark.parametrize("shape", sorted(TOPOLOGIES.keys() - {"mesh", "edges"}))
def test_ten_thousand_agents_stay_lazy(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    successors = TOPOLOGIES[shape]._successors

    def counting(self: Topology, name: str) -> object:
        asked.append(name)
        return successors(self, name)

    monkeypatch.setattr(TOPOLOGIES[shape], "_successors", counting)
    topology = build(shape, {f"agent-{i:05}": (i + 1) / 10_000 for i in range(10_000)})
    assert asked == []
    for i in range(0, 10_000, 100):
        assert topology.neighbours(f"agent-{i:05}") == topology.neighbours(f"agent-{i:05}")
    assert len(asked) == 100
