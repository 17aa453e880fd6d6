"""Routing by uncertainty ("Confident or Seek Stronger: Exploring Uncertainty-Based On-device LLM Routing From
Benchmarking to Generalization", arXiv 2502.04428, 2025).

A cheap agent answers what it is confident of, a stronger one gets the rest. Confidence here is the draft's
likelihood, the mean log-probability of its tokens, as it stands: no weights are learnt.

Adapted: more agents than two, in the order of their prices; which of them take part and from which likelihood on
each answers is what earns most on validation, for each alpha.
"""

from __future__ import annotations

import numpy as np

from agents.errors import ConfigError
from benchmarks.baselines.cascade import Cascade, run, search, stakes
from benchmarks.outcomes import Asked, Drafts, Floats, Ints, Outcomes


class Uncertainty:
    """Thresholds on likelihoods. Drafts that nobody uses are paid for too, unless ``full`` is false."""

    def __init__(self, full: bool = True) -> None:
        self._full = full

    def fit(self, train: Outcomes, validation: Outcomes, seed: int = 0) -> None:
        """See ``Router``. Learns nothing from ``train``."""
        self._validation, self._cascades = validation, dict[float, Cascade]()
        self._likelihood = recorded(validation, "likelihood", "uncertainty")

    def route(self, asked: Asked, alpha: float) -> Ints:
        """See ``Router``."""
        if alpha not in self._cascades:
            agents = len(self._likelihood)
            scores = np.broadcast_to(self._likelihood, (agents + 1, *self._likelihood.shape))
            worth, paid = stakes(self._validation, alpha, self._full)
            self._cascades[alpha] = search(scores, worth, paid, by_number=True)
        return run(self._cascades[alpha], asked, _likelihood)


def recorded(outcomes: Outcomes, signal: str, router: str) -> Floats:
    """A signal, (A, Q). Raises ``ConfigError`` where no draft has it."""
    found = outcomes.signals.get(signal)
    if found is None or np.isnan(found).all():
        raise ConfigError(
            f"{router} routes by {signal!r}, which these outcomes do not have: record it, or leave {router} out"
        )
    return found


def _likelihood(agent: int, drafts: Drafts, places: Ints, before: object) -> Floats:
    return drafts.signals["likelihood"]
