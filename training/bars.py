"""Learning what to leave to others: at each alpha every agent's bar, by what the rest of its mesh really got.

An agent that answers, and is right with probability p, gains p - alpha * cost; one that forwards gains what those
behind it gain. So it pays to answer above some p, which depends on who stands behind: the last bars are found first,
and then all of them again, since an agent only meets what those before it have left. Validation rows choose.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.floating[Any]]]
ROUNDS = 5


def best_bars(p: Floats, worth: Floats, passing: Floats, rounds: int = ROUNDS) -> tuple[Floats, float]:
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
            bars[agent] = _best_bar(p[agent, met], (worth[agent] - behind)[met])
        if repeat and np.array_equal(before, bars):
            break
    return bars, float(_gained(p, worth, passing, bars, 0).mean())


def _met(p: Floats, bars: Floats, agent: int) -> Any:
    """What an agent is asked: what nobody before it answers."""
    before = p[:agent] > bars[:agent, None]
    return ~before.any(axis=0)


def _gained(p: Floats, worth: Floats, passing: Floats, bars: Floats, first: int) -> Floats:
    """What questions gain that come to agent ``first``, (Q,)."""
    gained: Floats = worth[-1].copy()
    for agent in range(len(p) - 2, first - 1, -1):
        gained = np.where(p[agent] > bars[agent], worth[agent], gained - passing[agent])
    return gained


def _best_bar(p: Floats, surplus: Floats) -> float:
    """Above which p the surplus of answering adds up to the most; midway between the two p that it parts."""
    known = ~np.isnan(p)
    order = np.argsort(-p[known], kind="stable")
    falling, total = p[known][order], np.concatenate([[0.0], np.cumsum(surplus[known][order])])
    parts = np.concatenate([[True], falling[1:] < falling[:-1], [True]]) if len(falling) else np.array([True])
    best = int(np.argmax(np.where(parts, total, -np.inf)))
    if best == 0:
        return 1.0
    return float((falling[best - 1] + falling[best]) / 2) if best < len(falling) else 0.0
