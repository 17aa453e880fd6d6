"""RouterDC ("RouterDC: Query-Based Router by Dual Contrastive Learning for Assembling Large Language Models", arXiv
2409.19886, 2024).

Questions and agents are vectors of one space; the agent whose vector is most similar to the question's answers. Two
losses shape the space: one pulls a question towards each agent that is right on it and away from those that are
wrong; the other pulls a question towards one of its own cluster and away from those of other clusters, which
steadies training.

Adapted: the encoder is a small network on the embeddings that all routers of this benchmark get; since similarity
knows no prices, a logistic regression on the similarities to all agents, fitted on validation, says how likely each
is right, and the best ``p - alpha * cost`` decides. Temperature and the second loss's weight are those of the lowest
log loss there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.baselines.base import Embedding, Predicting
from benchmarks.baselines.descent import descend, seeded, tensor
from benchmarks.outcomes import Floats, Outcomes
from mesh.questions import Question

SETTINGS = ((0.1, 0.2), (0.3, 0.0), (0.3, 0.2), (1.0, 0.2))  # temperature, and the weight of the loss between questions
CLUSTERS, SIZE, HIDDEN = 8, 64, 128
BATCH, STEPS = 128, 1000
RATE, DECAY = 2e-3, 1.0
SHRINKAGE = 1e-3  # of the calibration's weights
NEVER = -1e4  # a log-similarity that no sum notices


class RouterDC(Predicting):
    """The space, and the calibration of its similarities."""

    def fit(self, train: Outcomes, validation: Outcomes, seed: int = 0) -> None:
        """See ``Router``."""
        from sklearn.cluster import KMeans

        self._embedding = Embedding(seed=seed)
        rows = self._embedding.fit(train.questions)
        clusters = KMeans(min(CLUSTERS, len(rows)), n_init=1, random_state=seed).fit_predict(rows)
        known = tensor(rows), tensor(train.right.T), tensor(clusters)
        held = tensor(self._embedding(validation.questions)), tensor(validation.right.T)
        tried = [_fitted(known, held, temperature, weight, seed) for temperature, weight in SETTINGS]
        self._loss, self._network, self._calibration = min(tried, key=lambda found: found[0])

    def predict(self, questions: Sequence[Question]) -> Floats:
        """See ``Predicting``."""
        import torch

        with torch.no_grad():
            logits = self._calibration(_similarities(self._network, tensor(self._embedding(questions))))
        found: Floats = torch.sigmoid(logits).numpy().T.astype(float)
        return found


def sample_agent_loss(similarities: Any, right: Any) -> Any:
    """Mean over all pairs of a question and an agent that is right on it of ``-log`` of the pair's share in the sum
    over itself and the agents that are wrong. Both arguments are (Q, A); right is from a half on.
    """
    import torch

    good = right >= 0.5
    wrong = similarities.masked_fill(good, NEVER).logsumexp(dim=1, keepdim=True)
    losses = torch.nn.functional.softplus(wrong - similarities)
    return (losses * good).sum() / good.sum().clamp(min=1)


def sample_sample_loss(similarities: Any, clusters: Any) -> Any:
    """The same between questions, (Q, Q): each with one drawn from its cluster, against all of other clusters."""
    import torch

    same = clusters[:, None] == clusters[None, :]
    others = same & ~torch.eye(len(same), dtype=torch.bool)
    paired = others.any(dim=1)
    if not paired.any():
        return similarities.sum() * 0
    near = torch.multinomial(others[paired].float(), 1)
    apart = similarities.masked_fill(same, NEVER).logsumexp(dim=1, keepdim=True)[paired]
    return torch.nn.functional.softplus(apart - similarities[paired].gather(1, near)).mean()


def _vectors(network: Any, rows_QE: Any) -> Any:
    from torch.nn.functional import normalize

    return normalize(network["encoder"](rows_QE * rows_QE.shape[1] ** 0.5), dim=1)


def _similarities(network: Any, rows_QE: Any) -> Any:
    from torch.nn.functional import normalize

    return _vectors(network, rows_QE) @ normalize(network["agents"].weight, dim=1).T


def _fitted(
    known: tuple[Any, Any, Any], held: tuple[Any, Any], temperature: float, weight: float, seed: int
) -> tuple[float, Any, Any]:
    import torch
    from torch import nn

    rows, right, clusters = known
    with seeded(seed):
        encoder = nn.Sequential(nn.Linear(rows.shape[1], HIDDEN), nn.ReLU(), nn.Dropout(0.1), nn.Linear(HIDDEN, SIZE))
        network = nn.ModuleDict({"encoder": encoder, "agents": nn.Embedding(right.shape[1], SIZE)})
        calibration = nn.Linear(right.shape[1], right.shape[1])

        def loss() -> Any:
            network.train()
            batch = torch.randint(len(rows), (BATCH,))
            found = sample_agent_loss(_similarities(network, rows[batch]) / temperature, right[batch])
            if weight:
                vectors = _vectors(network, rows[batch])
                found = found + weight * sample_sample_loss(vectors @ vectors.T / temperature, clusters[batch])
            return found

        def validation() -> float:
            network.eval()
            return _calibrate(calibration, _similarities(network, held[0]), held[1])

        descend(network, loss, validation, RATE, DECAY, steps=STEPS, every=50, patience=4)
        with torch.no_grad():
            return validation(), network, calibration


def _calibrate(model: Any, similarities: Any, right: Any) -> float:
    """Fit logistic regressions of ``right`` on ``similarities``, both (Q, A), on from where they are; their loss."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=30, line_search_fn="strong_wolfe")

    def closure() -> Any:
        optimizer.zero_grad()
        found = cross_entropy(model(similarities), right) + SHRINKAGE * (model.weight**2).mean()
        found.backward()
        return found

    with torch.enable_grad():
        optimizer.step(closure)
    return float(cross_entropy(model(similarities), right).detach())
