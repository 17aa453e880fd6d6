"""Rules that look at no question: what any router has to beat.

Random takes any agent with equal chance, Smallest always the cheapest, Largest always the dearest. BestSingle always
takes the one agent that did best on all rows there are to learn from, at the price in question.
"""

from __future__ import annotations

import numpy as np

from benchmarks.outcomes import Asked, Floats, Ints, Outcomes


class Random:
    """Any agent, with equal chance."""

    def fit(self, train: Outcomes, validation: Outcomes, seed: int = 0) -> None:
        """See ``Router``."""
        self._seed = seed

    def route(self, asked: Asked, alpha: float) -> Ints:
        """See ``Router``."""
        return np.random.default_rng(self._seed).integers(len(asked.agents), size=len(asked))


class Smallest:
    """Always the cheapest agent."""

    def fit(self, train: Outcomes, validation: Outcomes, seed: int = 0) -> None:
        """See ``Router``."""

    def route(self, asked: Asked, alpha: float) -> Ints:
        """See ``Router``."""
        return np.full(len(asked), np.argmin(asked.costs))


class Largest:
    """Always the dearest agent."""

    def fit(self, train: Outcomes, validation: Outcomes, seed: int = 0) -> None:
        """See ``Router``."""

    def route(self, asked: Asked, alpha: float) -> Ints:
        """See ``Router``."""
        return np.full(len(asked), np.argmax(asked.costs))


class BestSingle:
    """Always the agent of the best mean utility."""

    def fit(self, train: Outcomes, validation: Outcomes, seed: int = 0) -> None:
        """See ``Router``."""
        self._right: Floats = np.hstack([train.right, validation.right]).mean(axis=1)

    def route(self, asked: Asked, alpha: float) -> Ints:
        """See ``Router``."""
        return np.full(len(asked), np.argmax(self._right - alpha * asked.costs))
