"""What a router is, and the text features that several of them share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from benchmarks.outcomes import Asked, Floats, Ints, Outcomes
from mesh.questions import Question

DIMENSIONS = 128


class Router(Protocol):
    """Decides for each question which agent answers it. One object is fitted once, and then asked at any alpha."""

    def fit(self, train: Outcomes, validation: Outcomes, seed: int = 0) -> None:
        """Learn from ``train``; whatever has to be chosen (a size, a strength, a threshold) is chosen by the utility or
        the loss on ``validation``. A seed gives the same router again.
        """
        ...

    def route(self, asked: Asked, alpha: float) -> Ints:
        """The number of the agent that answers each question, (Q,). Who looks at drafts pays for them."""
        ...


class Embedding:
    """Questions as vectors of unit length: character n-grams of one to four, weighted by how rare they are, reduced to
    their main directions (latent semantic analysis).
    """

    def __init__(self, dimensions: int = DIMENSIONS, seed: int = 0) -> None:
        self.dimensions, self.seed = dimensions, seed

    def fit(self, questions: Sequence[Question]) -> Floats:
        """Learn the directions; the vectors of ``questions``, (Q, D), come back. Do not change these."""
        self._ngrams, self._main, rows = _directions(tuple(questions), self.dimensions, self.seed)
        return rows

    def __call__(self, questions: Sequence[Question]) -> Floats:
        """Vectors, (Q, D)."""
        from benchmarks.judges.base import texts

        return _unit(self._main.transform(self._ngrams.transform(texts(questions))))


@lru_cache(maxsize=2)  # most routers learn from the same questions, one after the other
def _directions(questions: tuple[Question, ...], dimensions: int, seed: int) -> tuple[Any, Any, Floats]:
    from sklearn.decomposition import TruncatedSVD

    from benchmarks.judges.base import ngrams, texts

    counts = ngrams()
    rows = counts.fit_transform(texts(questions))
    size = max(1, min(dimensions, rows.shape[1] - 1, rows.shape[0] - 1))
    main = TruncatedSVD(size, random_state=seed).fit(rows)
    return counts, main, _unit(main.transform(rows))


class Predicting:
    """A router that predicts how likely each agent is right, and takes the one of the best expected utility: what is
    learnt once serves any alpha. Subclasses say ``predict``.
    """

    def predict(self, questions: Sequence[Question]) -> Floats:
        """Probabilities, (A, Q)."""
        raise NotImplementedError

    def route(self, asked: Asked, alpha: float) -> Ints:
        """See ``Router``."""
        return best(self.predict(asked.questions), asked.costs, alpha)


def best(p: Floats, costs: Floats, alpha: float) -> Ints:
    """The agent of the highest ``p - alpha * cost``, (Q,), of ``p``, (A, Q); the cheapest of equals."""
    found: Ints = (p - alpha * costs[:, None]).argmax(axis=0)
    return found


def _unit(rows: Any) -> Floats:
    found: Floats = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return found
