"""FORC, "Fly-swat or cannon?" (Šakota, Peyrard and West, arXiv 2308.06077, 2023).

One meta-model for all agents reads a question together with the agent's name, and predicts the score of the answer;
questions are then assigned so that predicted score less alpha times cost is greatest. Adapted: the paper fine-tunes a
small language model; this meta-model is a network, or boosted trees, whichever validation prefers, on the question's
vector and the agent's name. Prices are known, so that none has to be predicted, and questions share no budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.baselines.base import Embedding, Predicting
from benchmarks.baselines.nets import Net, perceptron
from benchmarks.outcomes import Floats, Outcomes
from mesh.questions import Question
from training.profiles import weighed
from training.scores import soft_log_loss

LEAVES, ROUNDS, PATIENCE = 31, 300, 10  # of trees: their size, and how many at most and in vain
DROPOUT = 0.2


class Forc(Predicting):
    """The meta-model, and when its training stops, are chosen by log loss on the validation rows."""

    def fit(self, train: Outcomes, validation: Outcomes, seed: int = 0) -> None:
        """See ``Router``."""
        models: tuple[Net | Trees, ...] = (Net([(_joint(128), 0.1), (_joint(128, 64), 0.1)]), Trees())
        for model in models:
            model.fit(train, validation, seed)
        self._model = min(models, key=lambda model: soft_log_loss(model(validation.questions), validation.right))

    def predict(self, questions: Sequence[Question]) -> Floats:
        """See ``Predicting``."""
        return self._model(questions)


class Trees:
    """Gradient boosting on questions with agents' names, stopped where validation says that more rounds are in vain."""

    def fit(self, train: Outcomes, validation: Outcomes, seed: int = 0) -> None:
        """Learn which agent is right on what."""
        from sklearn.ensemble import HistGradientBoostingClassifier

        self._embedding, self._agents = Embedding(seed=seed), len(train.agents)
        known = labelled(named(self._embedding.fit(train.questions), self._agents), train.right)
        rows, labels, weights = labelled(self._rows(validation.questions), validation.right)
        self._model = HistGradientBoostingClassifier(
            max_leaf_nodes=LEAVES,
            max_iter=ROUNDS,
            max_bins=63,
            categorical_features=[rows.shape[1] - 1],
            early_stopping=True,
            n_iter_no_change=PATIENCE,
            random_state=seed,
        ).fit(*known, X_val=rows, y_val=labels, sample_weight_val=weights)

    def __call__(self, questions: Sequence[Question]) -> Floats:
        """Probabilities, (A, Q)."""
        p: Floats = self._model.predict_proba(self._rows(questions))[:, 1]
        return p.reshape(self._agents, -1)

    def _rows(self, questions: Sequence[Question]) -> Floats:
        return named(self._embedding(questions), self._agents)


def named(rows: Floats, agents: int) -> Floats:
    """Each question, (Q, D), once with each agent: (A * Q, D + 1)."""
    names = np.repeat(np.arange(agents), len(rows))
    return np.column_stack([np.tile(rows, (agents, 1)), names])


def labelled(rows: Floats, right: Floats) -> tuple[Floats, Any, Floats]:
    """Rows, labels and weights, for each question with each agent; see ``weighed``."""
    places, labels, weights = weighed(right.ravel())
    return rows[places], labels, weights


def _joint(*hidden: int) -> Callable[[int, int], Any]:
    """Makes networks whose first layer adds a question's projection and an agent's vector; the rest knows only that."""

    def make(inputs: int, agents: int) -> Any:
        from torch import nn

        class Joint(nn.Module):
            """A question's projection and an agent's vector, added."""

            def __init__(self) -> None:
                super().__init__()
                self.question, self.agent = nn.Linear(inputs, hidden[0]), nn.Embedding(agents, hidden[0])
                score = perceptron(*hidden[1:], dropout=DROPOUT)(hidden[0], 1)
                self.score = nn.Sequential(nn.ReLU(), nn.Dropout(DROPOUT), score)

            def forward(self, rows: Any) -> Any:
                return self.score(self.question(rows)[:, None] + self.agent.weight).squeeze(-1)

        return Joint()

    return make
