"""What a set of replies was worth: accuracy, cost, utility ``U = A - alpha * C``, and who answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agents.messages import Reply
from training.scores import auroc, brier, ece, interval, log_loss, resampled

__all__ = ["Row", "Summary", "auroc", "brier", "ece", "log_loss", "oracle", "summarise"]


@dataclass(frozen=True, slots=True)
class Row:
    """One graded reply; ``hops`` counts the agents that worked on it, ``refused`` those that refused."""

    right: bool
    cost: float
    full_cost: float
    agent: str
    alpha: float
    hops: int = 1
    refused: int = 0

    @classmethod
    def of(cls, reply: Reply, right: bool) -> Row:
        """The row of a reply; a declined or failed one is never right, but costs what it cost."""
        refused = sum(hop.verdict == "refused" for hop in reply.path)
        right = right and reply.finish in ("stop", "length")
        return cls(right, reply.cost, reply.full_cost, reply.agent, reply.alpha, len(reply.path), refused)


@dataclass(frozen=True, slots=True)
class Summary:
    """Means over n replies. ``utility_ci`` is a bootstrap 95 % interval, ``shares`` are in percent."""

    n: int
    accuracy: float
    cost: float
    full_cost: float
    utility: float
    utility_ci: tuple[float, float]
    utility_full: float
    hops: float
    refused: float
    shares: dict[str, float]


def summarise(rows: Sequence[Row], resamples: int = 2000, seed: int = 0) -> Summary:
    """Sum up graded replies, each with its own alpha.

    Args:
        rows: at least one.
        resamples, seed: of the bootstrap.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("there are no rows to summarise; give at least one")
    columns = [(r.right, r.cost, r.full_cost, r.alpha, r.hops, r.refused) for r in rows]
    right, cost, full_cost, alpha, hops, refused = np.asarray(columns, dtype=float).T
    utility = right - alpha * cost
    counts = Counter(row.agent for row in rows)
    return Summary(
        n=len(rows),
        accuracy=float(right.mean()),
        cost=float(cost.mean()),
        full_cost=float(full_cost.mean()),
        utility=float(utility.mean()),
        utility_ci=interval([utility[at].mean() for at in resampled(len(rows), seed, resamples)]),
        utility_full=float((right - alpha * full_cost).mean()),
        hops=float(hops.mean()),
        refused=float(refused.mean()),
        shares={agent: 100 * count / len(rows) for agent, count in sorted(counts.items())},
    )


def oracle(alone: Mapping[str, Sequence[bool]], costs: Mapping[str, float], alpha: float) -> float:
    """Mean over the questions of the best utility that any single agent would have got.

    Args:
        alone: for every agent whether it is right by itself, question by question.
        costs: each agent's price in (0, 1].
    """
    utilities_AQ = np.asarray([np.asarray(right, dtype=float) - alpha * costs[name] for name, right in alone.items()])
    return float(utilities_AQ.max(axis=0).mean())
