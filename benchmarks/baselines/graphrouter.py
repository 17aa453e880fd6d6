"""GraphRouter ("GraphRouter: A Graph-based Router for LLM Selections", arXiv 2410.03834, 2024).

Tasks, questions and agents are the nodes of one graph. A question is tied to its task, and to every agent by what
came of it. Messages run over these ties twice, so that an agent's node knows which questions it does well and a
task's node knows its questions; then an edge is predicted: how likely an agent is right on a question.

Adapted: a known outcome weighs a question-agent edge in two kinds of messages, right and wrong. A question whose
outcomes are to be predicted has no such edges: in training these are drawn anew in every step, and new questions
join the graph of all training questions by their task and their embedding. The best ``p - alpha * cost`` decides, so
that one graph serves any alpha, instead of one for each trade-off.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.baselines.base import Embedding, Predicting
from benchmarks.baselines.descent import descend, seeded, tensor
from benchmarks.outcomes import Floats, Ints, Outcomes
from mesh.questions import Question

SETTINGS = ((32, 1.0), (64, 0.1), (64, 4.0))  # size of a node's state, weight decay; chosen by log loss on validation
ROUNDS = 2
TARGETS, KNOWN = 512, 1536  # questions to predict, and questions with outcomes around them, in a step
RATE = 1e-3


class GraphRouter(Predicting):
    """The graph of the training questions, and a network that passes its messages."""

    def fit(self, train: Outcomes, validation: Outcomes, seed: int = 0) -> None:
        """See ``Router``."""
        import torch

        self._embedding = Embedding(seed=seed)
        self._tasks = {task: place for place, task in enumerate(sorted({q.task for q in train.questions}))}
        rows = tensor(self._embedding.fit(train.questions))
        known = rows, tensor(self._ties(train.questions)), tensor(train.right.T)
        held = *self._joining(validation.questions), tensor(validation.right.T)
        tried = [_fitted(known, held, tensor(train.costs), *setting, seed) for setting in SETTINGS]
        self._loss, self._network, prices = (*min(tried, key=lambda found: found[0]), tensor(train.costs))
        with torch.no_grad():
            self._graph = _graph(self._network, prices, *known)

    def predict(self, questions: Sequence[Question]) -> Floats:
        """See ``Predicting``."""
        import torch

        with torch.no_grad():
            logits = _edges(self._network, self._graph, *self._joining(questions))
        found: Floats = torch.sigmoid(logits).numpy().T.astype(float)
        return found

    def _joining(self, questions: Sequence[Question]) -> tuple[Any, Any]:
        return tensor(self._embedding(questions)), tensor(self._ties(questions))

    def _ties(self, questions: Sequence[Question]) -> Floats:
        """Question by task; a question of an unknown one is tied to none."""
        places: Ints = np.array([self._tasks.get(q.task, -1) for q in questions])
        return (places[:, None] == np.arange(len(self._tasks))).astype(float)


def messages(weights: Any, states: Any) -> Any:
    """What each receiver hears: the mean of the senders' ``states``, (S, H), by ``weights``, (R, S); 0 from nobody."""
    return weights @ states / weights.sum(dim=1, keepdim=True).clamp(min=1e-6)


def _network(size: int, embedding: int, tasks: int, agents: int) -> Any:
    from torch import nn

    heard = {"question": 3, "agent": 2, "task": 1}  # kinds of messages
    rounds = [
        nn.ModuleDict({name: nn.Linear(size * (1 + count), size) for name, count in heard.items()})
        for _ in range(ROUNDS)
    ]
    return nn.ModuleDict(
        {
            "question": nn.Sequential(nn.Linear(embedding, size), nn.ReLU(), nn.Dropout(0.1)),
            "agent": nn.Embedding(agents, size),
            "price": nn.Linear(1, size),
            "task": nn.Embedding(tasks, size),
            "rounds": nn.ModuleList(rounds),
            "ask": nn.Linear(size, size),
            "bias": nn.Linear(size, 1),
        }
    )


def _heard(layer: Any, state: Any, *heard: Any) -> Any:
    import torch

    return state + torch.relu(layer(torch.cat([state, *heard], dim=1)))


def _first(network: Any, rows_QE: Any) -> Any:
    return network["question"](rows_QE * rows_QE.shape[1] ** 0.5)


def _graph(network: Any, prices: Any, rows: Any, ties: Any, right: Any) -> list[tuple[Any, Any]]:
    """States of agents and tasks, before the first round and after each, among questions with known outcomes."""
    question = _first(network, rows)
    agent = network["agent"].weight + network["price"](prices[:, None])
    task = network["task"].weight
    states = [(agent, task)]
    for layer in network["rounds"]:
        told = messages(ties, task), messages(right, agent), messages(1 - right, agent)
        new_agent = _heard(layer["agent"], agent, messages(right.T, question), messages(1 - right.T, question))
        new_task = _heard(layer["task"], task, messages(ties.T, question))
        question, agent, task = _heard(layer["question"], question, *told), new_agent, new_task
        states.append((agent, task))
    return states


def _edges(network: Any, graph: list[tuple[Any, Any]], rows: Any, ties: Any) -> Any:
    """Log-odds, (Q, A), of questions that hear from their task alone, and are heard by nobody."""
    question = _first(network, rows)
    for layer, (_, task) in zip(network["rounds"], graph, strict=False):
        silence = question.new_zeros(question.shape)
        question = _heard(layer["question"], question, messages(ties, task), silence, silence)
    agent, _ = graph[-1]
    return network["ask"](question) @ agent.T / agent.shape[1] ** 0.5 + network["bias"](agent).T


def _fitted(
    known: tuple[Any, ...], held: tuple[Any, ...], prices: Any, size: int, decay: float, seed: int
) -> tuple[float, Any]:
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

    rows, ties, right = known
    targets = min(TARGETS, len(rows) // 2)
    with seeded(seed):
        network = _network(size, rows.shape[1], ties.shape[1], right.shape[1])

        def loss() -> Any:
            network.train()
            drawn = torch.randperm(len(rows))[: targets + KNOWN]
            around, asked = drawn[targets:], drawn[:targets]
            graph = _graph(network, prices, rows[around], ties[around], right[around])
            return cross_entropy(_edges(network, graph, rows[asked], ties[asked]), right[asked])

        def validation() -> float:
            network.eval()
            graph = _graph(network, prices, *known)
            return float(cross_entropy(_edges(network, graph, *held[:2]), held[2]))

        lowest = descend(network, loss, validation, RATE, decay)
    return lowest, network.eval()
