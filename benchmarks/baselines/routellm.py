"""RouteLLM (Ong et al., arXiv 2406.18665, 2024), for n agents.

As published, it stands between a strong and a weak model: it predicts the probability that the strong one's answer
would win, a tie counting for the weak one, and asks the weak one where that is below a threshold. Two of its predictors
are here: matrix factorisation, where both models' scores are compared, and a classifier of the question.

Adapted: agents stand on a ladder, in the order of their prices, and a question goes to the first for which the
probability that a dearer one wins, the likeliest of them, is below that agent's threshold. A win is to be right where
the cheaper is wrong. Thresholds, and which agents stand on the ladder at all, are chosen by utility on the validation
rows, for each alpha. Scores differ by more than a margin where one wins, else it is a tie (Rao and Kupper, 1967): a
small network says the margin of a question, since agents tie on easy ones and on those that are too hard for all. The
classifier, a fine-tuned BERT in the paper, is a multilayer perceptron on the question's vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from benchmarks.baselines.matrix_factorisation import DECAYS, RANKS, factors
from benchmarks.baselines.mlp import CANDIDATES
from benchmarks.baselines.nets import Candidate, Net, perceptron
from benchmarks.outcomes import Asked, Floats, Ints, Outcomes
from mesh.questions import Question
from training.threshold import best_cut

MARGIN = 64  # hidden units of the net that says how likely a tie is


@dataclass(frozen=True, slots=True, eq=False)
class Ladder:
    """S agents in the order of their prices, and the thresholds of all but the last, (S - 1,)."""

    agents: tuple[int, ...]
    thresholds: Floats

    def __call__(self, wins: Floats) -> Ints:
        """Who answers each question, (Q,), by the probability that agent j wins over a cheaper i, (A, A, Q)."""
        stays = np.ones((len(self.agents), wins.shape[2]), dtype=bool)
        stays[:-1] = beaten(wins, self.agents) < self.thresholds[:, None]
        found: Ints = np.asarray(self.agents)[stays.argmax(axis=0)]
        return found


class RouteLLM:
    """Thresholds on predicted wins. Subclasses say which ``candidates`` there are for the predictor."""

    def candidates(self, agents: int) -> Sequence[Candidate]:
        """Networks from a question to the log-odds that a dearer agent wins, for each pair of ``agents``."""
        raise NotImplementedError

    def fit(self, train: Outcomes, validation: Outcomes, seed: int = 0) -> None:
        """See ``Router``."""
        self._agents = len(train.agents)
        self._net = Net(self.candidates(self._agents), won)
        self._net.fit(train, validation, seed)
        self._validation, self._validation_wins = validation, self._wins(validation.questions)
        self._ladders: dict[float, Ladder] = {}

    def route(self, asked: Asked, alpha: float) -> Ints:
        """See ``Router``."""
        if alpha not in self._ladders:
            self._ladders[alpha] = ladder(self._validation_wins, self._validation.utilities(alpha))
        return self._ladders[alpha](self._wins(asked.questions))

    def _wins(self, questions: Sequence[Question]) -> Floats:
        wins = np.zeros((self._agents, self._agents, len(questions)))
        wins[np.triu_indices(self._agents, 1)] = self._net(questions)
        return wins


class RouteLLMMatrixFactorisation(RouteLLM):
    """An agent's score is the product of its vector and the question's, projected; wins follow from scores."""

    def candidates(self, agents: int) -> Sequence[Candidate]:
        """See ``RouteLLM``."""
        return [(_compared(rank, agents), decay) for rank, decay in product(RANKS, DECAYS)]


class RouteLLMClassifier(RouteLLM):
    """A classifier that says of each pair whether the dearer one wins."""

    def candidates(self, agents: int) -> Sequence[Candidate]:
        """See ``RouteLLM``."""
        return CANDIDATES


def won(right: Floats) -> Floats:
    """By how much the dearer agent of each pair is better, (pairs, Q), of scores, (A, Q)."""
    cheaper, dearer = np.triu_indices(len(right), 1)
    return np.maximum(right[dearer] - right[cheaper], 0)


def beaten(wins: Floats, agents: Sequence[int]) -> Floats:
    """The probability that an agent loses to the likeliest of the dearer ones, (S - 1, Q)."""
    found: Floats = wins[np.ix_(agents[:-1], agents)].max(axis=1)  # none wins over itself or a dearer one
    return found


def ladder(wins: Floats, utilities: Floats) -> Ladder:
    """The best of the ladders that are left when agents are taken away one by one, each time the one without which
    utility, (A, Q), is best.
    """
    found, best = _climbed(wins, utilities, tuple(range(len(utilities))))
    shorter = found
    while len(shorter.agents) > 1:
        without = [tuple(a for a in shorter.agents if a != agent) for agent in shorter.agents]
        shorter, utility = max((_climbed(wins, utilities, agents) for agents in without), key=lambda tried: tried[1])
        if utility > best:
            found, best = shorter, utility
    return found


def _climbed(wins: Floats, utilities: Floats, agents: tuple[int, ...]) -> tuple[Ladder, float]:
    found = Ladder(agents, thresholds(beaten(wins, agents), utilities[list(agents)]))
    return found, float(np.take_along_axis(utilities, found(wins)[None], axis=0).mean())


def thresholds(p: Floats, utilities: Floats) -> Floats:
    """Thresholds, (S - 1,), on ``p``, (S - 1, Q), for the utility, (S, Q), of who answers: each in turn, from the last
    to the first, is set to its best while the others stand, until none can be bettered alone.
    """
    found, best = np.zeros(len(p)), -np.inf
    while True:
        for place in reversed(range(len(p))):
            stays = np.vstack([p < found[:, None], np.ones((1, p.shape[1]), dtype=bool)])
            comes = ~stays[:place].any(axis=0)
            later = place + 1 + stays[place + 1 :].argmax(axis=0)
            gain = utilities[place] - np.take_along_axis(utilities, later[None], axis=0)[0]
            found[place] = threshold(p[place, comes], gain[comes])
        stays = np.vstack([p < found[:, None], np.ones((1, p.shape[1]), dtype=bool)])
        utility = float(np.take_along_axis(utilities, stays.argmax(axis=0)[None], axis=0).mean())
        if utility <= best + 1e-12:
            return found
        best = utility


def threshold(p: Floats, gain: Floats) -> float:
    """Below which ``p``, (Q,), the sum of ``gain``, (Q,), is greatest."""
    return max(-best_cut(-p, gain)[0], 0.0)


def _compared(rank: int, agents: int) -> Callable[[int, int], Any]:
    def make(inputs: int, outputs: int) -> Any:
        from torch import nn

        cheaper, dearer = np.triu_indices(agents, 1)

        class Compared(nn.Module):
            """The difference of two scores, less the margin."""

            def __init__(self) -> None:
                super().__init__()
                self.scores, self.margin = factors(rank)(inputs, agents), perceptron(MARGIN)(inputs, 1)

            def forward(self, rows: Any) -> Any:
                scores = self.scores(rows)
                return scores[:, dearer] - scores[:, cheaper] - self.margin(rows)

        return Compared()

    return make
