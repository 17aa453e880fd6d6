"""How often the agent was right on the questions most alike, by character n-grams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.judges.base import ngrams, texts
from mesh.questions import Question

NEIGHBOURS = (10, 25, 50, 100)  # the number is chosen by log loss on a fifth of the rows


class Knn:
    """k nearest neighbours by cosine."""

    def fit(self, questions: Sequence[Question], right: Sequence[bool]) -> None:
        """See ``Judge``."""
        self._features, good = ngrams(), np.asarray(right, dtype=float)
        rows = self._features.fit_transform(texts(questions))
        last = np.arange(len(good)) % 5 == 0
        near = _nearest(rows[~last], rows[last], max(NEIGHBOURS))
        tried = {k: _loss(_mean(good[~last], near[:, :k]), good[last]) for k in NEIGHBOURS}
        self._rows, self._right, self._k = rows, good, min(tried, key=lambda k: tried[k])

    def predict(self, questions: Sequence[Question]) -> np.ndarray[Any, Any]:
        """See ``Judge``."""
        return _mean(self._right, _nearest(self._rows, self._features.transform(texts(questions)), self._k))


def _nearest(rows: Any, asked: Any, k: int) -> np.ndarray[Any, Any]:
    """Places of the ``k`` rows nearest to each of ``asked``, the nearest first; (Q, k)."""
    from sklearn.neighbors import NearestNeighbors

    near = NearestNeighbors(n_neighbors=min(k, rows.shape[0]), metric="cosine").fit(rows)
    places: np.ndarray[Any, Any] = near.kneighbors(asked, return_distance=False)
    return places


def _mean(right: np.ndarray[Any, Any], places: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = (right[places].sum(axis=1) + 1) / (places.shape[1] + 2)
    return found


def _loss(p: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> float:
    return float(-np.mean(np.log(np.where(right > 0, p, 1 - p))))
