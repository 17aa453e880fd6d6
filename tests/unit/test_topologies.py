"""Shapes, by hand, and every way to get a graph wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

from topologies import TOPOLOGIES, Topology, TopologyError
from topologies.graph import Edges

FIVE = {"e": 0.9, "d": 0.7, "c": 0.5, "b": 0.3, "a": 0.1}
SQUARE = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}


def links(shape: str, agents: dict[str, float] = FIVE, **options: Any) -> dict[str, str]:
    topology = TOPOLOGIES[shape](agents, **options)
    return {name: "".join(topology.neighbours(name)) for name in topology.agents}


@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        ("cascade", {}, {"a": "b", "b": "c", "c": "d", "d": "e", "e": ""}),
        ("tree", {}, {"a": "bc", "b": "de", "c": "", "d": "", "e": ""}),
        ("tree", {"branching": 1}, {"a": "b", "b": "c", "c": "d", "d": "e", "e": ""}),
        ("tree", {"branching": 3}, {"a": "bcd", "b": "e", "c": "", "d": "", "e": ""}),
        ("mesh", {}, {"a": "bcde", "b": "cdea", "c": "deba", "d": "ecba", "e": "dcba"}),
        ("nearest", {}, {"a": "bcd", "b": "cda", "c": "deb", "d": "ecb", "e": "dcb"}),
        ("nearest", {"k": 2}, {"a": "bc", "b": "ca", "c": "db", "d": "ec", "e": "dc"}),
        ("nearest", {"k": 99}, {"a": "bcde", "b": "cdea", "c": "deba", "d": "ecba", "e": "dcba"}),
        ("small_world", {"k": 2, "p": 0}, {"a": "be", "b": "ca", "c": "db", "d": "ec", "e": "da"}),
        ("small_world", {"k": 1, "p": 1.0}, {"a": "b", "b": "c", "c": "d", "d": "e", "e": "a"}),
        ("small_world", {"k": 3, "p": 0}, {"a": "bce", "b": "cda", "c": "deb", "d": "eca", "e": "dba"}),
        (
            "edges",
            {"edges": {"a": ["c", "b", "c"], "c": ("d", "e")}},
            {"a": "cb", "b": "", "c": "de", "d": "", "e": ""},
        ),
    ],
)
def test_neighbours_by_hand(shape: str, options: dict[str, Any], expected: dict[str, str]) -> None:
    assert links(shape, **options) == expected


def test_agents_of_one_cost_are_ordered_by_name() -> None:
    assert links("cascade", {"z": 0.5, "y": 0.5, "x": 0.9}) == {"y": "z", "z": "x", "x": ""}


@pytest.mark.parametrize(
    ("shape", "exits"), [("cascade", "e"), ("tree", "cde"), ("mesh", "e"), ("nearest", "e"), ("small_world", "e")]
)
def test_exits_by_hand(shape: str, exits: str) -> None:
    assert "".join(TOPOLOGIES[shape](FIVE).exits()) == exits


def test_exits_of_a_mesh_are_all_of_the_highest_cost() -> None:
    assert TOPOLOGIES["mesh"]({"a": 0.1, "b": 0.9, "c": 0.9}).exits() == ("b", "c")


def test_stand_ins_come_after_those_who_are_up() -> None:
    tree = TOPOLOGIES["tree"](FIVE)  # a -> b c, b -> d e
    assert tree.neighbours("a", frozenset("b")) == ("c", "d", "e")
    assert tree.neighbours("a", frozenset("bd")) == ("c", "e")
    cascade = TOPOLOGIES["cascade"](FIVE)
    assert cascade.neighbours("a", frozenset("bcd")) == ("e",)
    assert cascade.neighbours("a", frozenset("bcde")) == ()


def test_entries_by_hand() -> None:
    assert TOPOLOGIES["mesh"](FIVE, "c").entries() == ("c", "d", "e", "b", "a")
    assert TOPOLOGIES["cascade"](FIVE).entries(frozenset("ac")) == ("b", "d", "e")
    unwalked = Unreachable({f"{i:04}": 0.5 for i in range(1_001)}, "0003")
    assert unwalked.entries()[:4] == ("0003", "0000", "0001", "0002")


def test_small_world_moves_edges_by_seed_and_keeps_the_ring() -> None:
    agents = {f"{i:03}": (i + 1) / 100 for i in range(100)}
    small = TOPOLOGIES["small_world"]
    still, moved, again, other = (
        {name: small(agents, p=p, seed=seed).neighbours(name) for name in agents}
        for p, seed in ((0.0, 1), (0.5, 1), (0.5, 1), (0.5, 2))
    )
    assert moved == again
    assert moved != other
    assert still["050"] == ("051", "052", "049", "048")
    following = {name: f"{(int(name) + 1) % 100:03}" for name in agents}
    assert all(following[name] in moved[name] for name in agents)
    kept = sum(len(set(still[name]) & set(moved[name])) - 1 for name in agents)  # of 300 that may move
    assert 110 < kept < 190


def test_an_entry_asked_for_stays_when_somebody_cheaper_joins() -> None:
    assert TOPOLOGIES["mesh"]({"b": 0.5, "c": 0.9}, "b").join("a", 0.1).entry == "b"
    cascade = TOPOLOGIES["cascade"]({"b": 0.5, "c": 0.9}, "b")
    with pytest.raises(TopologyError, match="'a' cannot be reached from entry 'b'"):
        cascade.join("a", 0.1)
    assert cascade.join("a", 0.1, entry="a").entry == "a"


def test_an_entry_asked_for_may_leave() -> None:
    assert TOPOLOGIES["mesh"](FIVE, "c").leave("c").entry == "a"
    assert TOPOLOGIES["mesh"](FIVE, "c").leave("a").entry == "c"


def test_explicit_edges_are_copied() -> None:
    edges = {"a": ["b", "c"], "b": ["d"]}
    given = TOPOLOGIES["edges"](SQUARE, edges=edges)
    edges["b"].append("a")
    assert given.options["edges"] == {"a": ["b", "c"], "b": ["d"]}


def test_explicit_edges_bridge_an_agent_that_leaves() -> None:
    given = TOPOLOGIES["edges"](SQUARE, edges={"a": ["b", "c"], "b": ["d"]})
    assert given.leave("b").neighbours("a") == ("c", "d")
    assert given.leave("a").neighbours("b") == ("d", "c")  # the new entry reaches what the old one did
    with pytest.raises(TopologyError, match="'e' cannot be reached from entry 'a'; add an edge"):
        given.join("e", 0.5)
    assert given.join("e", 0.5, edges={"a": ["b", "c", "e"], "b": ["d"]}).neighbours("a") == ("b", "c", "e")


@pytest.mark.parametrize(
    ("agents", "message"),
    [
        ({}, "no agents; a topology needs at least one"),
        ({"a": 0}, "agent 'a': cost must be a number in (0, 1], not 0"),
        ({"a": 0.5, "b": 1.01}, "agent 'b': cost must be a number in (0, 1], not 1.01"),
        ({"a": -0.1}, "not -0.1"),
        ({"a": float("nan")}, "not nan"),
        ({"a": float("inf")}, "not inf"),
        ({"a": True}, "agent 'a': cost must be a number in (0, 1], not True"),
        ({"a": "0.5"}, "not '0.5'"),
        ({"a": None}, "not None"),
        ({"": 0.5}, "agent name '' must be a string that is not empty"),
        ({" ": 0.5}, "agent name ' ' must be"),
        ({7: 0.5}, "agent name 7 must be"),
    ],
)
def test_bad_agents_are_named(agents: dict[Any, Any], message: str) -> None:
    with pytest.raises(TopologyError, match=re.escape(message)):
        TOPOLOGIES["cascade"](agents)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ("tree", {"branching": 0}, "branching must be of type int in [1, inf], not 0"),
        ("tree", {"branching": True}, "branching must be of type int in [1, inf], not True"),
        ("tree", {"branchin": 2}, "Tree takes ['branching'], no option 'branchin'"),
        ("nearest", {"k": 1}, "k must be of type int in [2, inf], not 1"),
        ("nearest", {"k": 2.5}, "not 2.5"),
        ("mesh", {"k": 3}, "Mesh takes [], no option 'k'"),
        ("small_world", {"k": 0}, "k must be of type int in [1, inf], not 0"),
        ("small_world", {"p": 1.5}, "p must be of type float in [0, 1], not 1.5"),
        ("small_world", {"p": float("nan")}, "not nan"),
        ("small_world", {"p": True}, "p must be of type float in [0, 1], not True"),
        ("small_world", {"seed": "x"}, "seed must be of type int"),
        ("edges", {"edges": [["a", "b"]]}, "edges must be of type dict, not [['a', 'b']]"),
        ("edges", {"edges": {"a": "b"}}, "edges of 'a': must be a list of names, for a known agent, not 'b'"),
        ("edges", {"edges": {"a": [["b"]]}}, "edges of 'a'"),
        ("edges", {"edges": {"x": ["a"]}}, "edges of 'x'"),
        ("edges", {"cyclic": "yes"}, "cyclic must be of type bool, not 'yes'"),
        ("edges", {"edges": {"a": ["x"]}}, "edge from 'a' to 'x': must lead to another of ('a', 'b', 'c', 'd')"),
        ("edges", {"edges": {"a": ["a"]}}, "edge from 'a' to 'a'"),
        ("edges", {"edges": {"a": ["b", "d"]}}, "agent 'c' cannot be reached from entry 'a'; add an edge to it"),
    ],
)
def test_bad_options_and_edges_are_named(shape: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TopologyError, match=re.escape(message)):
        TOPOLOGIES[shape](SQUARE, **options)


def test_a_graph_without_exit_names_who_is_stuck() -> None:
    loop = {"a": ["b", "d"], "b": ["c"], "c": ["b"]}  # from d one can stop; from b and c one cannot
    with pytest.raises(TopologyError, match=r"agent 'b' is stuck in a cycle without exit, \['b', 'c'\]"):
        TOPOLOGIES["edges"](SQUARE, edges=loop)
    assert TOPOLOGIES["edges"](SQUARE, edges=loop, cyclic=True).exits() == ("d",)
    assert TOPOLOGIES["edges"](SQUARE, edges={**loop, "c": ["b", "d"]}).exits() == ("d",)


def test_a_complete_mesh_has_at_most_256_agents() -> None:
    agents = {f"{i}": 0.5 for i in range(256)}
    full = TOPOLOGIES["mesh"](agents)
    assert len(full.neighbours("7")) == 255
    with pytest.raises(TopologyError, match="257 agents, mesh takes 256: use nearest or small_world"):
        full.join("256", 0.5)


def test_long_lists_of_known_agents_are_cut() -> None:
    with pytest.raises(TopologyError, match=r"unknown agent 'x'; known: .{1,80}\.\.\.\)$"):
        TOPOLOGIES["nearest"]({f"{i:03}": 0.5 for i in range(999)}).neighbours("x")


class Unreachable(Topology):
    """A plug-in whose agents reach nobody, but for the dearest: it points to a stranger."""

    def _successors(self, name: str) -> Sequence[str]:
        return ["stranger"] if name == self.names[-1] else []


def test_plug_ins_are_walked_up_to_1000_agents_and_on_demand() -> None:
    agents = {f"{i:04}": 0.5 for i in range(1_001)}
    large = Unreachable(agents)
    with pytest.raises(TopologyError, match="'0001' cannot be reached"):
        large.check(whole=True)
    with pytest.raises(TopologyError, match="edge from '1000' to 'stranger'"):
        large.neighbours("1000")
    with pytest.raises(TopologyError, match="'0001' cannot be reached"):
        large.leave("0500")
    with pytest.raises(TopologyError, match="cannot be reached"):
        Edges(agents)
