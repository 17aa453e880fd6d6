"""A mesh on Ray, whose neighbour is a mesh in another process that has nothing to do with Ray."""

from __future__ import annotations

import pytest

from agents.messages import Reply
from tests.federated import Elsewhere
from tests.ray.conftest import Opener, row, until
from tests.serving import WORDS, pool

pytestmark = [pytest.mark.ray, pytest.mark.timeout(200)]


def test_a_mesh_elsewhere_is_a_neighbour_like_any_other(open_mesh: Opener) -> None:
    slow = {**pool({"a": {"refuse": 1.0}, "b": {"answer": WORDS, "pieces": 10, "piece_s": 0.2}}), "name": "elsewhere"}
    with Elsewhere(slow) as there:
        agents = [
            {"name": "nano", "cost": 0.1, "engine": {"kind": "scripted", "refuse": 1.0}},
            {"name": "berlin", "cost": 0.5, "engine": {"kind": "mesh", "target": there.target, "rate": 0.5}},
            {"name": "last", "cost": 0.9, "engine": {"kind": "scripted", "answer": WORDS}},
        ]
        mesh = open_mesh({}, agents=agents)
        reply = mesh.ask("count", 0.3)
        assert (reply.text, reply.agent, reply.cost) == (WORDS, "berlin", 0.5)
        assert [hop.agent for hop in reply.path] == ["nano", "berlin/a", "berlin/b"]
        assert row(mesh, "berlin")["target"] == there.target
        stream = mesh.stream("count")
        next(stream)
        stream.close()
        assert until(lambda: all(agent.in_hand == 0 for agent in there.status().values()))
        stream = mesh.stream("count")
        seen = [next(stream) for _ in range(3)]
        there.kill()
        *more, reply = stream  # type: ignore[assignment]
        assert "".join(str(piece) for piece in (*seen, *more)) == WORDS
        assert isinstance(reply, Reply)
        assert (reply.agent, reply.attempts) == ("last", 2)
        assert row(mesh, "berlin")["state"] == "up"
        there.start()
        assert until(lambda: mesh.ask("count").agent == "berlin")
