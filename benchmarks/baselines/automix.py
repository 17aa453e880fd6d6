"""AutoMix ("AutoMix: Automatically Mixing Language Models", arXiv 2310.12963, 2023).

An agent drafts an answer and verifies it itself. Self-verification is noisy, and not always higher for what is
right, so a meta-verifier decides what to make of it: a partially observed decision process whose observations are
the verification's values, cut into bins, and whose actions are to give the answer or to hand the question to a
stronger agent.

Adapted: more agents than two, in the order of their prices; a question may skip some. Self-verification is P(true),
the probability that the agent gives to its own draft. What an action is worth after an observation is its mean over
the validation rows that come there, drawn towards that of all rows where there are few; it is worked out from the
dearest agent back to the cheapest, for each alpha. As in the paper there is a simpler variant too, a threshold for
each agent; for each alpha the one is taken that earns more on the half of the validation rows that it was not fitted
on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.baselines.cascade import Cascade, run, search, stakes, values
from benchmarks.baselines.uncertainty import recorded
from benchmarks.outcomes import Asked, Drafts, Floats, Ints, Outcomes

BINS = 8  # of equally many validation rows; one more is for drafts that have no P(true)
PRIOR = 4.0  # rows that the mean over all rows counts for
SWEEPS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Who drafts first; ``next``, (A, BINS + 1), says who goes on after an observation: the agent itself answers."""

    start: int
    next: Ints
    utility: float


class AutoMix:
    """Both meta-verifiers. Drafts that nobody uses are paid for too, unless ``full`` is false."""

    def __init__(self, full: bool = True) -> None:
        self._full = full

    def fit(self, train: Outcomes, validation: Outcomes, seed: int = 0) -> None:
        """See ``Router``. Learns nothing from ``train``. Raises ``ConfigError`` where no P(true) is recorded."""
        self._verified = recorded(validation, "p_true", "automix")
        self._edges = [_quantiles(verified) for verified in self._verified]
        self._validation, self._chosen = validation, dict[float, Cascade | Plan]()

    def route(self, asked: Asked, alpha: float) -> Ints:
        """See ``Router``."""
        if alpha not in self._chosen:
            self._chosen[alpha] = self._choose(alpha)
        found = self._chosen[alpha]
        return run(found, asked, _verified) if isinstance(found, Cascade) else self._follow(found, asked)

    def _choose(self, alpha: float) -> Cascade | Plan:
        worth, paid = stakes(self._validation, alpha, self._full)
        seen = np.array([observed(*pair) for pair in zip(self._verified, self._edges, strict=True)])
        scores = np.broadcast_to(self._verified, (len(worth) + 1, *worth.shape))
        earned = np.zeros(2)
        half = np.arange(worth.shape[1]) % 2 == 0
        for fit, test in ((half, ~half), (~half, half)):
            by_plan = plan(seen[:, fit], worth[:, fit], paid[:, fit])
            by_threshold = search(scores[..., fit], worth[:, fit], paid[:, fit], by_number=True)
            earned += (
                planned(by_plan, seen[:, test], worth[:, test], paid[:, test]).sum(),
                values(by_threshold, scores[..., test], worth[:, test], paid[:, test]).sum(),
            )
        return plan(seen, worth, paid) if earned[0] > earned[1] else search(scores, worth, paid, by_number=True)

    def _follow(self, found: Plan, asked: Asked) -> Ints:
        at: Ints = np.full(len(asked), found.start)
        for agent, going in enumerate(found.next):
            if (going == agent).all():
                continue
            places = np.flatnonzero(at == agent)
            verified = asked.draft(agent, places).signals["p_true"]
            at[places] = going[observed(verified, self._edges[agent])]
        return at


def observed(verified: Floats, edges: Floats) -> Ints:
    """The bin of each P(true); the last for none."""
    return np.where(np.isnan(verified), BINS, np.searchsorted(edges, verified, side="right"))


def plan(seen: Ints, worth: Floats, paid: Floats) -> Plan:
    """The plan of the highest mean utility that is found on observations ``seen``, (A, Q): first as if all questions
    came to every agent, then by what comes to it under the plan before, as long as that gains.
    """
    found = _back(seen, worth, paid, np.ones(worth.shape, dtype=bool))
    for _ in range(SWEEPS):
        other = _back(seen, worth, paid, _reached(found, seen))
        if other.utility <= found.utility:
            break
        found = other
    return found


def planned(found: Plan, seen: Ints, worth: Floats, paid: Floats) -> Floats:
    """What a plan earns question by question, (Q,)."""
    earned = worth - paid
    everyone = np.arange(worth.shape[1])
    for agent in reversed(range(len(worth))):
        going = found.next[agent][seen[agent]]
        earned[agent] = np.where(going == agent, worth[agent], earned[going, everyone]) - paid[agent]
    return earned[found.start]


def _back(seen: Ints, worth: Floats, paid: Floats, reached: Floats) -> Plan:
    agents, everyone = len(worth), np.arange(worth.shape[1])
    going: Ints = np.repeat(np.arange(agents)[:, None], BINS + 1, axis=1)
    earned = worth - paid
    for agent in reversed(range(agents - 1)):
        options = np.vstack([worth[agent], earned[agent + 1 :]])
        here = reached[agent] if reached[agent].any() else np.ones_like(reached[agent])
        inside = (seen[agent] == np.arange(BINS + 1)[:, None]) & here
        means = options[:, here].mean(axis=1)
        drawn = (inside @ options.T + PRIOR * means) / (inside.sum(axis=1, keepdims=True) + PRIOR)
        going[agent] = agent + drawn.argmax(axis=1)
        earned[agent] = options[going[agent][seen[agent]] - agent, everyone] - paid[agent]
    means = earned.mean(axis=1)
    return Plan(int(means.argmax()), going, float(means.max()))


def _reached(found: Plan, seen: Ints) -> Floats:
    """Which questions come to which agent, (A, Q)."""
    at: Ints = np.full(seen.shape[1], found.start)
    reached = np.zeros(seen.shape, dtype=bool)
    for agent, going in enumerate(found.next):
        reached[agent] = at == agent
        at = np.where(reached[agent], going[seen[agent]], at)
    return reached


def _quantiles(values: Floats) -> Floats:
    there = values[~np.isnan(values)]
    return np.unique(np.quantile(there, np.arange(1, BINS) / BINS)) if len(there) else np.empty(0)


def _verified(agent: int, drafts: Drafts, places: Ints, before: object) -> Floats:
    return drafts.signals["p_true"]
