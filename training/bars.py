"""Learning what to leave to others: at each alpha every agent's bar, by what the rest of its mesh really got.

An agent that answers, and is right with probability p, gains p - alpha * cost; one that forwards gains what those
behind it gain. So it pays to answer above some p, which depends on who stands behind: the last bars are found first,
and then all of them again, since an agent only meets what those before it have left. Validation rows choose.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from training.scores import Array
from training.threshold import best_cut

ROUNDS = 5


def best_bars(p: Array, worth: Array, passing: Array, rounds: int = ROUNDS) -> tuple[Array, float]:
    """The bars of a line of agents that together gain the most.

    Args:
        p: (A, Q), each agent's confidence, in the order in which they are asked; NaN is a refusal.
        worth: (A, Q), what each one's answer gains, its price taken off.
        passing: (A, Q), what it costs when an agent passes a question on.
        rounds: how often all bars are looked at again.

    Returns:
        Bars, (A,), the last is 0 and means nothing, and the mean gain.
    """
    agents = len(p)
    bars = np.zeros(agents)
    for repeat in range(rounds):
        before = bars.copy()
        for agent in range(agents - 2, -1, -1):
            met = _met(p, bars, agent) if repeat else np.ones(p.shape[1], dtype=bool)
            behind = _gained(p, worth, passing, bars, agent + 1) - passing[agent]
            asked = met & ~np.isnan(p[agent])
            cut, _ = best_cut(p[agent, asked], (worth[agent] - behind)[asked])
            bars[agent] = np.clip(cut, 0, 1)
        if repeat and np.array_equal(before, bars):
            break
    return bars, float(_gained(p, worth, passing, bars, 0).mean())


def _met(p: Array, bars: Array, agent: int) -> Any:
    """What an agent is asked: what nobody before it answers."""
    before = p[:agent] > bars[:agent, None]
    return ~before.any(axis=0)


def _gained(p: Array, worth: Array, passing: Array, bars: Array, first: int) -> Array:
    """What questions gain that come to agent ``first``, (Q,)."""
    gained: Array = worth[-1].copy()
    for agent in range(len(p) - 2, first - 1, -1):
        gained = np.where(p[agent] > bars[agent], worth[agent], gained - passing[agent])
    return gained
