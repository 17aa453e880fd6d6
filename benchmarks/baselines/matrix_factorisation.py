"""Matrix factorisation, the best of the routers in RouteLLM (Ong et al., arXiv 2406.18665, 2024), for n agents.

A question's vector is projected, and its product with an agent's vector, plus the agent's bias, is the log-odds that
the agent is right. Adapted: the paper learns which of two agents wins; here each agent's answers are labelled, and all
agents are learnt at once. ``routellm`` has the published form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

from benchmarks.baselines.base import Predicting
from benchmarks.baselines.nets import Net
from benchmarks.outcomes import Floats, Outcomes
from mesh.questions import Question

RANKS, DECAYS = (4, 16, 64), (0.1, 1.0)


class MatrixFactorisation(Predicting):
    """Its rank, weight decay, and when it stops, are chosen by log loss on the validation rows."""

    def fit(self, train: Outcomes, validation: Outcomes, seed: int = 0) -> None:
        """See ``Router``."""
        self._net = Net((factors(rank), decay) for rank, decay in product(RANKS, DECAYS))
        self._net.fit(train, validation, seed)

    def predict(self, questions: Sequence[Question]) -> Floats:
        """See ``Predicting``."""
        return self._net(questions)


def factors(rank: int) -> Callable[[int, int], Any]:
    """Makes factorisations: a projection to ``rank`` numbers, and for each output a vector and a bias."""

    def make(inputs: int, outputs: int) -> Any:
        from torch import nn

        return nn.Sequential(nn.Linear(inputs, rank), nn.Linear(rank, outputs))

    return make
