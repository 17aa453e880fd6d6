"""Choosing gamma of the reliability rule, answer iff p > (1 - alpha) ** gamma, on validation rows.

The paper's gamma is 0.5. Which one pays best depends on the pool: where even the largest model is often wrong, a
high bar sends every query to the end of the line. What would have happened is known for every gamma, once every
agent has answered every row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.scores import Array

GAMMAS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
ALPHAS = (0.2, 0.5, 0.8)


def best_cut(score: Array, gain: Array) -> tuple[float, float]:
    """The threshold from which on to accept, and the sum of ``gain`` where the score is not below it. It stands halfway
    between two scores; it is infinite where accepting nothing is best, minus infinity where accepting all is.
    """
    if not len(score):
        return np.inf, 0.0
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    sums = np.cumsum(gain[order])
    last = np.flatnonzero(np.append(ordered[1:] < ordered[:-1], True))
    best = last[sums[last].argmax()]
    if sums[best] <= 0:
        return np.inf, 0.0
    below = ordered[best + 1] if best + 1 < len(ordered) else -np.inf
    between = (ordered[best] + below) / 2
    return float(between if np.isfinite(between) else below), float(sums[best])


@dataclass(frozen=True, slots=True)
class Judged:
    """One agent's answer to one row: its calibrated confidence (None: it refused) and whether it was right."""

    p: float | None
    right: bool


def utility(agents: Sequence[tuple[float, Mapping[str, Judged]]], alpha: float, gamma: float) -> float:
    """Mean of ``A - alpha * C`` of a cascade under the rule, over the rows that every agent has answered.

    Args:
        agents: (cost, answers by row) of each agent, in the order of the cascade; the last always answers.

    Raises:
        ValueError: there is no row that all have answered.
    """
    rows = set.intersection(*(set(answers) for _, answers in agents))
    if not rows:
        raise ValueError("there is no row that every agent has answered; give more")
    bar = (1 - alpha) ** gamma
    total = 0.0
    for row in rows:
        cost, answers = next(
            (agent for agent in agents[:-1] if (p := agent[1][row].p) is not None and p > bar), agents[-1]
        )
        total += answers[row].right - alpha * cost
    return total / len(rows)


def best_gamma(agents: Sequence[tuple[float, Mapping[str, Judged]]]) -> tuple[float, dict[float, dict[float, float]]]:
    """The gamma of ``GAMMAS`` with the highest utility in the mean over ``ALPHAS`` (ties: the lowest), and the
    utilities of all, by gamma and alpha.
    """
    table = {gamma: {alpha: utility(agents, alpha, gamma) for alpha in ALPHAS} for gamma in GAMMAS}
    return max(GAMMAS, key=lambda gamma: (round(sum(table[gamma].values()), 9), -gamma)), table
