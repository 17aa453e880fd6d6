"""Small networks on the vectors of questions: how all of them are trained, and how their sizes are chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from typing import Any, TypeAlias

import numpy as np

from benchmarks.baselines.base import Embedding, log_loss
from benchmarks.outcomes import Floats, Outcomes
from mesh.questions import Question

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
        import torch

        self._embedding = Embedding(seed=seed)
        rows, asked = self._embedding.fit(train.questions), self._embedding(validation.questions)
        good, asked_good = self._label(train.right), self._label(validation.right)
        lowest = np.inf
        for make, decay in self._candidates:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
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
    import torch

    goal = torch.tensor(good.T, dtype=torch.float32)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=decay)
    lowest, in_vain, best = np.inf, 0, deepcopy(net.state_dict())
    for _ in range(EPOCHS):
        net.train()
        for batch in torch.randperm(len(rows)).split(BATCH):
            optimizer.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(net(rows[batch]), goal[batch]).backward()
            optimizer.step()
        loss = log_loss(_probabilities(net, asked), asked_good)
        if loss < lowest:
            lowest, in_vain, best = loss, 0, deepcopy(net.state_dict())
        else:
            in_vain += 1
        if in_vain == PATIENCE:
            break
    net.load_state_dict(best)
    return lowest


def _probabilities(net: Any, rows: Any) -> Floats:
    import torch

    net.eval()
    with torch.no_grad():
        found: Floats = net(rows).sigmoid().T.double().numpy()
    return found


def _tensor(rows: Floats) -> Any:
    """Vectors of unit length, stretched so that their numbers are about one."""
    import torch

    return torch.tensor(rows * np.sqrt(rows.shape[1]), dtype=torch.float32)
