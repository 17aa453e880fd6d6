"""The benchmark of hops measures what it says: the right number of hops, and both sides the same bytes."""

from __future__ import annotations

import pytest

from agents.messages import Accepted, Asked, Drafted, Generate, NodeEvent, Piece, Query, Route
from agents.prompts import REFUSAL
from agents.wire import read_query
from benchmarks import hops
from mesh.client import Mesh


@pytest.mark.parametrize("number", hops.HOPS)
def test_a_query_takes_as_many_hops_as_it_should(number: int) -> None:
    with Mesh(hops.cascade("local")) as mesh:
        reply = mesh.ask(hops.TEXT, 0.5, entry=f"agent-{max(hops.HOPS) + 1 - number}")
    assert len(reply.path) == number
    assert [hop.verdict for hop in reply.path] == ["refused"] * (number - 1) + ["answered"]


def test_the_bare_chain_passes_on_what_a_mesh_does() -> None:
    query = read_query(hops._query())
    assert isinstance(query, Query)
    assert query.messages[-1].content == hops.TEXT
    assert isinstance(hops._accepted(), Accepted)
    assert len(hops._accepted().hops) == 2


def test_both_sides_take_turns() -> None:
    calls: list[str] = []
    ours, bare = hops._in_turns(20, lambda: calls.append("ours"), lambda: calls.append("bare"))
    assert len(ours) == len(bare) == 20
    turns = calls[2 * hops.TURN :]
    assert turns == (["ours"] * hops.TURN + ["bare"] * hops.TURN) * 2


def test_in_process_and_in_virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hops, "SIM_QUERIES", 50)
    told = {**hops.in_process(20), **hops.in_virtual_time(seed=0)}
    assert all(value > 0 for value in told.values())
    assert told["local_ratio"] > 1


def test_the_parts_of_a_hop_are_those_of_a_hop() -> None:
    node, query = hops._forwarder(), read_query(hops._query())
    piece = Piece(REFUSAL, 1, 0.0, 50, "stop")
    events: list[NodeEvent] = [Asked(query), Drafted(query.key, 1, piece), hops._accepted()]
    commands = [[type(command) for command in node.step(event, 1.0)] for event in events]
    assert commands == [[Generate], [Route], [Accepted]]
    assert all(value > 0 for value in hops.parts_of_a_hop(5).values())
