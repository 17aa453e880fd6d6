"""What one may ask of a way to route besides how good it is: what becomes of it when agents leave and join, with nobody
learning anything anew, and what it spends on easy and on hard questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.outcomes import Outcomes, Routed
from benchmarks.walking import Way, walk
from topologies import Mesh


def comings_and_goings(
    test: Outcomes, way: Way, leave: Sequence[str], joins: str, alpha: float
) -> list[dict[str, Any]]:
    """Everybody but the newcomer ``joins``; without those who ``leave``; the first of these is back; the newcomer is
    there. Each is a complete mesh; a row tells utilities by cost and full cost, and the oracle's.

    Raises:
        ValueError: one of them is no agent of the pool, or nobody would be left.
    """
    for name in (*leave, joins):
        if name not in test.agents:
            raise ValueError(f"agent {name!r} is not recorded; there are {', '.join(test.agents)}")
    begun = [name for name in test.agents if name != joins]
    fewer = [name for name in begun if name not in leave]
    if not fewer:
        raise ValueError(f"nobody is left without {', '.join((*leave, joins))}")
    again = [name for name in begun if name not in leave[1:]]
    steps = {
        f"without {joins}": begun,
        f"{' and '.join(leave)} leave": fewer,
        f"{leave[0]} is back": again,
        f"{joins} joins": [name for name in test.agents if name not in leave[1:]],
    }
    return [{"step": step, **_there(test, way, names, alpha)} for step, names in steps.items()]


def _there(test: Outcomes, way: Way, names: Sequence[str], alpha: float) -> dict[str, Any]:
    some = test.of([test.agents.index(name) for name in names])
    everybody = Mesh(dict(zip(some.agents, some.costs.tolist(), strict=True)))
    found, _ = walk(some, way.policies, everybody, alpha, way.profiles)
    return {
        "agents": list(some.agents),
        "utility": float(found.utility(alpha).mean()),
        "utility_full": float(found.utility(alpha, True).mean()),
        "oracle": float(some.utilities(alpha).max(axis=0).mean()),
    }


def easy_and_hard(test: Outcomes, found: Mapping[str, Routed]) -> dict[str, dict[str, dict[str, float]]]:
    """For each way: accuracy, cost and full cost of questions that at least half of the agents get right, and of the
    others.
    """
    easy = test.right.mean(axis=0) >= 0.5
    return {
        name: {
            kind: {
                "n": float(here.sum()),
                "accuracy": float(routed.right[here].mean()),
                "cost": float(routed.cost[here].mean()),
                "full_cost": float(routed.full_cost[here].mean()),
            }
            for kind, here in (("easy", easy), ("hard", ~easy))
            if here.any()
        }
        for name, routed in found.items()
    }


def shares(found: Mapping[float, Routed], agents: Sequence[str]) -> dict[str, dict[str, float]]:
    """By alpha, the share of questions that each agent answers."""
    return {
        f"{alpha:g}": {name: float(np.mean(routed.agent == at)) for at, name in enumerate(agents)}
        for alpha, routed in found.items()
    }
