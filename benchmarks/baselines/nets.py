"""Small networks on the vectors of questions: how all of them are trained, and how their sizes are chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Any, TypeAlias

import numpy as np

from benchmarks.baselines.base import Embedding
from benchmarks.baselines.descent import descend, seeded, tensor
from benchmarks.outcomes import Floats, Outcomes
from mesh.questions import Question
from training.scores import soft_log_loss

BATCH, RATE, EPOCHS, PATIENCE = 128, 1e-3, 200, 8  # questions a step, learning rate, and epochs at most and in vain

Candidate: TypeAlias = tuple[Callable[[int, int], Any], float]
"""What makes a network of so many inputs and outputs, and the weight decay that it is trained with."""
Label: TypeAlias = Callable[[Floats], Floats]
"""What a network learns, (outputs, Q), from scores, (A, Q)."""


class Net:
    """The best of several networks from questions to probabilities: each is trained with binary cross-entropy, and
    stopped where the loss on the validation rows is lowest.
    """

    def __init__(self, candidates: Iterable[Candidate], label: Label = lambda right: right) -> None:
        self._candidates, self._label = candidates, label

    def fit(self, train: Outcomes, validation: Outcomes, seed: int = 0) -> None:
        """Train every candidate, and keep the one of the lowest loss on ``validation``."""
        self._embedding = Embedding(seed=seed)
        rows, asked = self._embedding.fit(train.questions), self._embedding(validation.questions)
        good, asked_good = self._label(train.right), self._label(validation.right)
        lowest = np.inf
        for make, decay in self._candidates:
            with seeded(seed):
                net = make(rows.shape[1], len(good))
                loss = _train(net, decay, _tensor(rows), good, _tensor(asked), asked_good)
            if loss < lowest:
                lowest, self._net = loss, net

    def __call__(self, questions: Sequence[Question]) -> Floats:
        """Probabilities, (outputs, Q)."""
        return _probabilities(self._net, _tensor(self._embedding(questions)))


def perceptron(*hidden: int, dropout: float = 0.2) -> Callable[[int, int], Any]:
    """Makes multilayer perceptrons of these hidden layers."""

    def make(inputs: int, outputs: int) -> Any:
        from torch import nn

        layers: list[Any] = []
        for size in hidden:
            layers += [nn.Linear(inputs, size), nn.ReLU(), nn.Dropout(dropout)]
            inputs = size
        return nn.Sequential(*layers, nn.Linear(inputs, outputs))

    return make


def _train(net: Any, decay: float, rows: Any, good: Floats, asked: Any, asked_good: Floats) -> float:
    """Epoch by epoch, each in an order of its own; the lowest loss on ``asked`` comes back."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

    goal = tensor(good.T)
    batches = (batch for _ in count() for batch in torch.randperm(len(rows)).split(BATCH))

    def loss() -> Any:
        net.train()
        batch = next(batches)
        return cross_entropy(net(rows[batch]), goal[batch])

    def validation() -> float:
        return soft_log_loss(_probabilities(net, asked), asked_good)

    epoch = -(-len(rows) // BATCH)
    return descend(net, loss, validation, RATE, decay, EPOCHS * epoch, epoch, PATIENCE)


def _probabilities(net: Any, rows: Any) -> Floats:
    import torch

    net.eval()
    with torch.no_grad():
        found: Floats = net(rows).sigmoid().T.double().numpy()
    return found


def _tensor(rows: Floats) -> Any:
    """Vectors of unit length, stretched so that their numbers are about one."""
    return tensor(rows * np.sqrt(rows.shape[1]))
