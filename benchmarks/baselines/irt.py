"""IRT-Router ("IRT-Router: Effective and Interpretable Multi-LLM Routing via Item Response Theory", arXiv
2506.01048, 2025).

Item response theory, as tests of people are analysed: an agent has abilities, a question asks for some of them more
than for others (its discrimination) and is easier or harder (its difficulty). Whether the agent is right is
``sigmoid(discrimination . ability - difficulty)``. Discrimination and difficulty are read off the question's
embedding, so that new questions have them too; the agent of the best ``p - alpha * cost`` answers.

Adapted: abilities are learnt freely instead of from descriptions of the agents, which stay the same here; embeddings
are those that all routers of this benchmark get; how many abilities there are and how they are read is chosen on
validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.baselines.base import Embedding, Predicting
from benchmarks.baselines.descent import descend, seeded, tensor
from benchmarks.outcomes import Floats, Outcomes
from mesh.questions import Question

# abilities, hidden units before them (0 for a linear reading), and weight decay; chosen by log loss on validation
SETTINGS = ((16, 0, 1.0), (16, 64, 0.1), (16, 64, 1.0), (32, 128, 1.0), (16, 64, 5.0))
BATCH = 512
RATE = 1e-3


class IRT(Predicting):
    """Abilities, discriminations and a difficulty, of the setting with the lowest log loss on validation."""

    def fit(self, train: Outcomes, validation: Outcomes, seed: int = 0) -> None:
        """See ``Router``."""
        self._embedding = Embedding(seed=seed)
        known = tensor(self._embedding.fit(train.questions)), tensor(train.right.T)
        held = tensor(self._embedding(validation.questions)), tensor(validation.right.T)
        tried = [_fitted(known, held, *setting, seed) for setting in SETTINGS]
        self._loss, self._network = min(tried, key=lambda found: found[0])

    def predict(self, questions: Sequence[Question]) -> Floats:
        """See ``Predicting``."""
        import torch

        with torch.no_grad():
            logits = _logits(self._network, tensor(self._embedding(questions)))
        found: Floats = torch.sigmoid(logits).numpy().T.astype(float)
        return found


def log_odds(discrimination: Any, ability: Any, difficulty: Any) -> Any:
    """Of being right, (Q, A): ``discrimination``, (Q, D), ``ability``, (A, D), and ``difficulty``, (Q,)."""
    return discrimination @ ability.T - difficulty[:, None]


def _logits(network: Any, rows_QE: Any) -> Any:
    from torch.nn.functional import softplus

    hidden = network["hidden"](rows_QE * rows_QE.shape[1] ** 0.5)
    return log_odds(
        softplus(network["discrimination"](hidden)), network["ability"].weight, network["difficulty"](hidden)[:, 0]
    )


def _fitted(
    known: tuple[Any, Any], held: tuple[Any, Any], abilities: int, hidden: int, decay: float, seed: int
) -> tuple[float, Any]:
    import torch
    from torch import nn
    from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

    (rows, right), size = known, known[0].shape[1]
    with seeded(seed):
        network = nn.ModuleDict(
            {
                "hidden": nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Dropout(0.1))
                if hidden
                else nn.Identity(),
                "discrimination": nn.Linear(hidden or size, abilities),
                "difficulty": nn.Linear(hidden or size, 1),
                "ability": nn.Embedding(right.shape[1], abilities),
            }
        )

        def loss() -> Any:
            network.train()
            batch = torch.randint(len(rows), (BATCH,))
            return cross_entropy(_logits(network, rows[batch]), right[batch])

        def validation() -> float:
            network.eval()
            return float(cross_entropy(_logits(network, held[0]), held[1]))

        lowest = descend(network, loss, validation, RATE, decay)
    return lowest, network.eval()
