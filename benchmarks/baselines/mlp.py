"""A multilayer perceptron from the question to every agent's chance to be right: the learnt router of RouterBench (Hu
et al., arXiv 2403.12031, 2024), with one output for each agent.

Adapted: trained with cross-entropy instead of regression on scores, so that its outputs are probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.baselines.base import Predicting
from benchmarks.baselines.nets import Net, perceptron
from benchmarks.outcomes import Floats, Outcomes
from mesh.questions import Question

CANDIDATES = ((perceptron(64), 0.1), (perceptron(256), 0.1), (perceptron(256, 256), 0.1), (perceptron(512, 512), 0.1))


class MLP(Predicting):
    """Its size, and when it stops, are chosen by log loss on the validation rows."""

    def fit(self, train: Outcomes, validation: Outcomes, seed: int = 0) -> None:
        """See ``Router``."""
        self._net = Net(CANDIDATES)
        self._net.fit(train, validation, seed)

    def predict(self, questions: Sequence[Question]) -> Floats:
        """See ``Predicting``."""
        return self._net(questions)
