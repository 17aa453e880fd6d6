"""k nearest neighbours, the plain rule that learnt routers are held to in RouterBench (Hu et al., arXiv 2403.12031,
2024) and in "Rethinking Predictive Modeling for LLM Routing" (Li, arXiv 2505.12601, 2025).

An agent is as likely to be right as it was on the questions most alike. Adapted: nearer neighbours may count for more,
where validation says so, and the mean is drawn a little towards the agent's mean over all questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from benchmarks.baselines.base import Embedding, Predicting
from benchmarks.outcomes import Floats, Ints, Outcomes
from mesh.questions import Question
from training.scores import soft_log_loss

NEIGHBOURS = (5, 10, 20, 40, 80, 160)
SHARPNESS = (0.0, 5.0, 10.0, 20.0)  # how much more a nearer one counts: the exponent's slope over the cosine
PRIOR = 1.0  # neighbours that the mean over all questions counts for


class Knn(Predicting):
    """The number of neighbours and how they are weighted are chosen by log loss on the validation rows."""

    def fit(self, train: Outcomes, validation: Outcomes, seed: int = 0) -> None:
        """See ``Router``."""
        from sklearn.neighbors import NearestNeighbors

        self._embedding = Embedding(seed=seed)
        rows, self._right = self._embedding.fit(train.questions), train.right
        self._near = NearestNeighbors(n_neighbors=min(max(NEIGHBOURS), len(rows)), algorithm="brute").fit(rows)
        cosines, places = self._nearest(validation.questions)

        def loss(chosen: tuple[int, float]) -> float:
            return soft_log_loss(self._mean(cosines, places, *chosen), validation.right)

        self._k, self._sharpness = min(product(NEIGHBOURS, SHARPNESS), key=loss)

    def predict(self, questions: Sequence[Question]) -> Floats:
        """See ``Predicting``."""
        return self._mean(*self._nearest(questions), self._k, self._sharpness)

    def _nearest(self, questions: Sequence[Question]) -> tuple[Floats, Ints]:
        distances, places = self._near.kneighbors(self._embedding(questions))
        return 1 - distances**2 / 2, places  # vectors are of unit length

    def _mean(self, cosines: Floats, places: Ints, k: int, sharpness: float) -> Floats:
        weights = np.exp(sharpness * (cosines[:, :k] - 1))
        right = (self._right[:, places[:, :k]] * weights).sum(axis=2)
        found: Floats = (right + PRIOR * self._right.mean(axis=1, keepdims=True)) / (weights.sum(axis=1) + PRIOR)
        return found
