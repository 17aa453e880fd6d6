"""UniRoute (Jitkrittum et al., arXiv 2502.08773, 2025), with K-means clusters.

Questions fall into clusters, and an agent is the vector of its error rates in these. A question goes to the agent of
the least error in the question's cluster plus alpha times its price. Adapted: an agent's error in a cluster counts one
question more, answered as well as the agent answers on average, so that small clusters tell less.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.baselines.base import Embedding, Predicting
from benchmarks.outcomes import Floats, Ints, Outcomes
from mesh.questions import Question
from training.scores import soft_log_loss

CLUSTERS = (3, 5, 10, 20, 40, 80, 160, 320)
STARTS = 3  # of K-means, of which the best is kept


class UniRoute(Predicting):
    """The number of clusters is chosen by log loss on the validation rows."""

    def fit(self, train: Outcomes, validation: Outcomes, seed: int = 0) -> None:
        """See ``Router``."""
        from sklearn.cluster import KMeans

        self._embedding = Embedding(seed=seed)
        rows, asked = self._embedding.fit(train.questions), self._embedding(validation.questions)
        lowest = np.inf
        for count in CLUSTERS:
            if count > len(rows):
                break
            clusters = KMeans(count, n_init=STARTS, random_state=seed).fit(rows)
            agents = errors(train.right, clusters.labels_, count)
            loss = soft_log_loss(1 - agents[:, clusters.predict(asked)], validation.right)
            if loss < lowest:
                lowest, self._clusters, self._agents = loss, clusters, agents

    def predict(self, questions: Sequence[Question]) -> Floats:
        """See ``Predicting``."""
        found: Floats = 1 - self._agents[:, self._clusters.predict(self._embedding(questions))]
        return found


def errors(right: Floats, clusters: Ints, count: int) -> Floats:
    """Error rates, (A, count), of scores, (A, Q), on questions of clusters, (Q,)."""
    wrong = 1 - right
    within = clusters == np.arange(count)[:, None]
    found: Floats = (wrong @ within.T + wrong.mean(axis=1, keepdims=True)) / (within.sum(axis=1) + 1)
    return found
