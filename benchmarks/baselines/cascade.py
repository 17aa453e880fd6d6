"""Cascades: agents draft one after the other, and the first whose draft scores high enough answers; the last always
does.

Which agents, in which order and from which score on is searched on validation rows. What a draft scores may depend
on the agent before: scores are (A + 1, A, Q), by the agent before, by the agent that drafts, by question; the last
row is for who drafts first. ``worth``, (A, Q), is what an answer earns, ``paid``, (A, Q), what a draft takes away
whether it is used or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from benchmarks.outcomes import Asked, Drafts, Floats, Ints, Outcomes
from training.threshold import best_cut

FIRST = -1  # the row of scores of who drafts first
SEARCHED = 8  # agents that all cascades of three are tried of: those that do best in twos
GRID = 24  # thresholds tried of the second of three
LONGEST = 6  # agents in a cascade
GAIN = 1e-9  # what more of utility makes a longer cascade better

Score = Callable[[int, Drafts, Ints, "tuple[int, tuple[str, ...]] | None"], Floats]


@dataclass(frozen=True, slots=True)
class Cascade:
    """``thresholds`` are one fewer than ``agents``; ``utility`` is its mean where it was chosen."""

    agents: tuple[int, ...]
    thresholds: tuple[float, ...]
    utility: float


def stakes(outcomes: Outcomes, alpha: float, full: bool) -> tuple[Floats, Floats]:
    """``worth`` and ``paid``: with all drafts paid for, or, if not ``full``, only the answering agent's price."""
    if full:
        return outcomes.right, alpha * outcomes.work
    return outcomes.utilities(alpha), np.zeros_like(outcomes.right)


def run(cascade: Cascade, asked: Asked, score: Score) -> Ints:
    """Who answers each question. ``score`` gets an agent, its drafts, their places, and who drafted before and what."""
    chosen: Ints = np.full(len(asked), cascade.agents[-1])
    left: Ints = np.arange(len(asked))
    before: tuple[int, tuple[str, ...]] | None = None
    for agent, threshold in zip(cascade.agents, cascade.thresholds, strict=False):
        drafts = asked.draft(agent, left)
        taken = known(score(agent, drafts, left, before)) >= threshold
        chosen[left[taken]] = agent
        left = left[~taken]
        before = agent, tuple(text for text, done in zip(drafts.texts, taken, strict=True) if not done)
    return chosen


def search(scores: Floats, worth: Floats, paid: Floats, by_number: bool = False) -> Cascade:
    """The cascade of the highest mean utility: of all of one and two agents, at every threshold; of three, at every
    threshold of the first and some of the second; and of longer ones, by adding agents as long as that pays.
    ``by_number``: only in the order of the agents, which is that of their prices.
    """
    scores = known(scores)
    singles = [Cascade((agent,), (), float(mean)) for agent, mean in enumerate((worth - paid).mean(axis=1))]
    pairs = [_two(scores, worth, paid, *two) for two in _orders(range(len(worth)), 2, by_number)]
    found = _better(max(singles, key=_utility), pairs)
    triples = _orders(_promising(singles, pairs), 3, by_number)
    found = _better(found, (_three(scores, worth, paid, *three) for three in triples))
    found = _polished(found, scores, worth, paid)
    while len(found.agents) < LONGEST:
        longer = _better(found, _grown(found, scores, worth, paid, by_number))
        if longer is found:
            break
        found = _polished(longer, scores, worth, paid)
    return found


def known(scores: Floats) -> Floats:
    """Where there is no score, the lowest."""
    return np.where(np.isnan(scores), -np.inf, scores)


def values(cascade: Cascade, scores: Floats, worth: Floats, paid: Floats) -> Floats:
    """What a cascade earns question by question, (Q,)."""
    scores = known(scores)
    return _tail(cascade.agents, cascade.thresholds, FIRST, scores, worth, paid)


def _tail(
    agents: tuple[int, ...], thresholds: tuple[float, ...], before: int, scores: Floats, worth: Floats, paid: Floats
) -> Floats:
    earned = worth[agents[-1]] - paid[agents[-1]]
    for place in reversed(range(len(thresholds))):
        agent, previous = agents[place], agents[place - 1] if place else before
        earned = np.where(scores[previous, agent] >= thresholds[place], worth[agent], earned) - paid[agent]
    return earned


def _orders(agents: range | list[int], count: int, by_number: bool) -> Iterator[tuple[int, ...]]:
    return (order for order in permutations(agents, count) if not by_number or list(order) == sorted(order))


def _promising(singles: list[Cascade], pairs: list[Cascade]) -> list[int]:
    best = {one.agents[0]: one.utility for one in singles}
    for pair in pairs:
        for agent in pair.agents:
            best[agent] = max(best[agent], pair.utility)
    return sorted(sorted(best, key=lambda agent: -best[agent])[:SEARCHED])


def _utility(cascade: Cascade) -> float:
    return cascade.utility


def _better(found: Cascade, others: Iterator[Cascade] | list[Cascade]) -> Cascade:
    other = max(others, key=_utility, default=found)
    return other if other.utility > found.utility + GAIN else found


def _two(scores: Floats, worth: Floats, paid: Floats, first: int, second: int) -> Cascade:
    rest = worth[second] - paid[second]
    start, gained = best_cut(scores[FIRST, first], worth[first] - rest)
    return Cascade((first, second), (start,), float(np.mean(rest - paid[first]) + gained / len(rest)))


def _three(scores: Floats, worth: Floats, paid: Floats, first: int, second: int, third: int) -> Cascade:
    score, grid = scores[first, second], _grid(scores[first, second])
    accepted = score >= grid[:, None]
    rest = np.where(accepted, worth[second], worth[third] - paid[third]) - paid[second]
    order = np.argsort(-scores[FIRST, first], kind="stable")
    ordered = scores[FIRST, first][order]
    last = np.append(ordered[1:] < ordered[:-1], True)
    sums = np.where(last, np.cumsum((worth[first] - rest)[:, order], axis=1), -np.inf)
    best = int((rest.sum(axis=1) + np.maximum(sums.max(axis=1), 0)).argmax())
    start, gained = best_cut(scores[FIRST, first], worth[first] - rest[best])
    utility = float(np.mean(rest[best] - paid[first]) + gained / len(ordered))
    return Cascade((first, second, third), (start, float(grid[best])), utility)


def _grid(score: Floats) -> Floats:
    there = np.unique(score)
    return there if len(there) <= GRID else there[np.linspace(0, len(there) - 1, GRID).astype(int)]


def _grown(found: Cascade, scores: Floats, worth: Floats, paid: Floats, by_number: bool) -> Iterator[Cascade]:
    for place in range(len(found.agents) + 1):
        at = min(place, len(found.thresholds))  # behind the last, it is the last that gets a threshold
        for agent in sorted(set(range(len(worth))) - set(found.agents)):
            agents = (*found.agents[:place], agent, *found.agents[place:])
            if not by_number or list(agents) == sorted(agents):
                thresholds = (*found.thresholds[:at], np.inf, *found.thresholds[at:])
                yield _fitted(Cascade(agents, thresholds, 0.0), at, scores, worth, paid)


def _fitted(cascade: Cascade, place: int, scores: Floats, worth: Floats, paid: Floats) -> Cascade:
    """The best threshold of one place, all others being what they are."""
    agents, thresholds = cascade.agents, cascade.thresholds
    reached = np.ones(worth.shape[1], dtype=bool)
    for earlier in range(place):
        reached &= scores[agents[earlier - 1] if earlier else FIRST, agents[earlier]] < thresholds[earlier]
    agent, before = agents[place], agents[place - 1] if place else FIRST
    rest = _tail(agents[place + 1 :], thresholds[place + 1 :], agent, scores, worth, paid)
    start, _ = best_cut(scores[before, agent][reached], (worth[agent] - rest)[reached])
    changed = Cascade(agents, (*thresholds[:place], start, *thresholds[place + 1 :]), 0.0)
    return Cascade(
        agents, changed.thresholds, float(_tail(agents, changed.thresholds, FIRST, scores, worth, paid).mean())
    )


def _polished(cascade: Cascade, scores: Floats, worth: Floats, paid: Floats) -> Cascade:
    """Thresholds in turn, until none gains."""
    while True:
        found = cascade
        for place in reversed(range(len(cascade.thresholds))):
            found = _better(found, [_fitted(found, place, scores, worth, paid)])
        if found is cascade:
            return found
        cascade = found
