"""What each agent of a pool does, by itself, with each question: all that routing can be judged by, and learnt from.

Shapes: A agents, in the order of their prices, and Q questions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from mesh.questions import Question

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.floating[Any]]]
Ints: TypeAlias = np.ndarray[Any, np.dtype[np.integer[Any]]]
TOOK = ("seconds", "prompt_tokens", "generated_tokens", "look_seconds", "look_tokens")


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """Recorded outcomes of a pool.

    Args:
        questions, agents: Q and A of them.
        costs: (A,), the price of an answer, in (0, 1].
        right: (A, Q), scores in [0, 1] of the answers that agents give when they must.
        work: (A, Q), what such an answer costs in full, in units of price: tokens count.
        texts: A lists of Q, the answers.
        signals: measures by name, each (A, Q), NaN where there is none. ``likelihood`` is an answer's mean
            log-probability, ``p_true`` the agent's probability that its own answer is true; only who pays for it sees
            these.
        beliefs: by alpha, (A, Q): the agent's own p, NaN where it refused.
        looks: (A, Q), what it costs in full to find that out, before there is a draft; NaN where the draft is judged.
        took: what else was measured, each (A, Q), NaN where it was not: ``seconds``, ``prompt_tokens`` and
            ``generated_tokens`` of answers, ``look_seconds`` and ``look_tokens`` of looks.
    """

    questions: tuple[Question, ...]
    agents: tuple[str, ...]
    costs: Floats
    right: Floats
    work: Floats
    texts: tuple[tuple[str, ...], ...]
    signals: Mapping[str, Floats] = field(default_factory=dict)
    beliefs: Mapping[float, Floats] = field(default_factory=dict)
    looks: Floats | None = None
    took: Mapping[str, Floats] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.questions)

    def at(self, places: Ints) -> Outcomes:
        """Those of some questions."""
        return Outcomes(
            tuple(self.questions[place] for place in places),
            self.agents,
            self.costs,
            self.right[:, places],
            self.work[:, places],
            tuple(tuple(texts[place] for place in places) for texts in self.texts),
            {name: values[:, places] for name, values in self.signals.items()},
            {alpha: values[:, places] for alpha, values in self.beliefs.items()},
            None if self.looks is None else self.looks[:, places],
            {name: values[:, places] for name, values in self.took.items()},
        )

    def of(self, agents: Sequence[int]) -> Outcomes:
        """Those of some agents, by their places."""
        places = np.asarray(agents)
        return Outcomes(
            self.questions,
            tuple(self.agents[place] for place in agents),
            self.costs[places],
            self.right[places],
            self.work[places],
            tuple(self.texts[place] for place in agents),
            {name: values[places] for name, values in self.signals.items()},
            {alpha: values[places] for alpha, values in self.beliefs.items()},
            None if self.looks is None else self.looks[places],
            {name: values[places] for name, values in self.took.items()},
        )

    def looked(self, agent: int, question: int, alpha: float) -> float | None:
        """How sure an agent said it was; None where it refused."""
        return _known(self.beliefs[alpha][agent, question])

    def drafted(self, agent: int, question: int) -> float | None:
        """How sure an agent is of its draft, by its likelihood; None where there is none."""
        return _known(math.exp(min(self.signals["likelihood"][agent, question], 0.0)))

    def utilities(self, alpha: float) -> Floats:
        """What each answer is worth, (A, Q)."""
        return self.right - alpha * self.costs[:, None]


def _known(p: float) -> float | None:
    return None if math.isnan(p) else float(p)


@dataclass(frozen=True, slots=True)
class Drafts:
    """What an agent wrote when asked: ``texts``, and the ``signals`` of these."""

    texts: tuple[str, ...]
    signals: dict[str, Floats]


class Asked:
    """Questions to route: what may be known of them, and what it costs to know more. Whether an answer is right is not
    to be found here; drafts are, and ``drafted``, (A, Q), keeps account of them.
    """

    def __init__(self, outcomes: Outcomes) -> None:
        self.questions, self.agents, self.costs = outcomes.questions, outcomes.agents, outcomes.costs
        self.drafted = np.zeros((len(outcomes.agents), len(outcomes)), dtype=bool)
        self.__outcomes = outcomes

    def __len__(self) -> int:
        return len(self.questions)

    def draft(self, agent: int, places: Ints) -> Drafts:
        """Have an agent answer the questions at ``places``, at its price."""
        self.drafted[agent, places] = True
        outcomes = self.__outcomes
        texts = tuple(outcomes.texts[agent][place] for place in places)
        return Drafts(texts, {name: values[agent, places] for name, values in outcomes.signals.items()})


@dataclass(frozen=True, slots=True, eq=False)
class Routed:
    """What became of Q questions: who answered, whether that was right, its price, and the price of all work; how often
    a question was passed on, where that was counted.
    """

    agent: Ints
    right: Floats
    cost: Floats
    full_cost: Floats
    hops: Ints | None = None

    def utility(self, alpha: float, full: bool = False) -> Floats:
        """Question by question."""
        spent = self.full_cost if full else self.cost
        return self.right - alpha * spent


@dataclass(frozen=True, slots=True)
class Method:
    """One way to route, and what became of the test questions at each alpha."""

    name: str
    ours: bool
    found: Mapping[float, Routed]

    def points(self) -> list[tuple[float, float]]:
        """Mean cost and accuracy at each alpha."""
        return [(float(each.cost.mean()), float(each.right.mean())) for each in self.found.values()]


def routed(outcomes: Outcomes, chosen: Sequence[int] | Ints, asked: Asked) -> Routed:
    """Hold a router's choices to what was recorded. Whoever answers has drafted, if not before."""
    agent = np.asarray(chosen)
    everyone = np.arange(len(outcomes))
    drafted = asked.drafted.copy()
    drafted[agent, everyone] = True
    spent = (outcomes.work * drafted).sum(axis=0)
    return Routed(agent, outcomes.right[agent, everyone], outcomes.costs[agent], spent)
