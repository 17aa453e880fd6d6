"""For one scripted pool and seed, Ray, asyncio and virtual time walk the same paths, and say and charge the same."""

from __future__ import annotations

import pytest

from agents.messages import Reply
from tests.pools import asked, pool, questions, simulated, trail

pytestmark = pytest.mark.ray


@pytest.mark.parametrize(
    ("rule", "topology", "alpha"),
    [("refusal", "tree", 0.5), ("reliability", "cascade", 0.2), ("p_true", "mesh", 0.8)],
)
def test_three_runtimes_agree(rule: str, topology: str, alpha: float) -> None:
    source, texts = pool(rule, topology, agents=4, seed=3), questions(25)
    ray = [trail(each) for each in asked({**source, "runtime": "ray"}, texts, alpha)]
    assert ray == [trail(each) for each in asked(source, texts, alpha)]
    assert ray == [trail(each) for each in simulated(source, texts, alpha)]
    assert len({path for path, *_ in ray}) >= 3  # the pool is one that routes


@pytest.mark.parametrize(("rule", "topology"), [("speculative", "cascade"), ("committee", "mesh")])
def test_several_at_once_on_ray(rule: str, topology: str) -> None:
    """Who is quicker may differ from run to run; that each query is answered once, and all work counted, does not."""
    source = {**pool(rule, topology, agents=4, seed=3), "runtime": "ray"}
    replies = asked(source, questions(25), 0.5)
    for reply in replies:
        assert isinstance(reply, Reply)
        assert reply.attempts == 1
        assert reply.path[-1].agent == reply.agent
        assert reply.full_cost == pytest.approx(sum(hop.full_cost for hop in reply.path))
    assert any(len(reply.path) > 2 for reply in replies if isinstance(reply, Reply))
