"""For one scripted pool and seed, Ray, asyncio and virtual time walk the same paths, and say and charge the same."""

from __future__ import annotations

import pytest

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
