"""Routing by ability and difficulty: item response theory."""

from __future__ import annotations

import math

from agents.offers import logit, sigmoid
from agents.policies.base import Answer, Decision, Forward, View
from agents.policies.learner import Done, Learner, Lesson

FIRST, LEAST = 0.5, 0.02  # sizes of gradient steps


class Irt(Learner):
    """Agent j is right with probability ``1 / (1 + exp(b - theta_j))``: its ability less the query's difficulty (Rasch
    1960; IRT-Router routes so). How difficult a query is follows from how sure this agent is of itself, whose own
    ability is the zero: ``b = -logit(p)``. Abilities are learnt from outcomes by gradient steps, for each kind of query
    by itself; before there are any, an agent twice as dear is taken to be one unit more able.

    Answer iff ``p - alpha * c`` is at least what the best neighbour's answer is worth, else forward to that.
    """

    def __init__(self) -> None:
        super().__init__()
        self.abilities: dict[tuple[str, str], tuple[int, float]] = {}  # by agent and kind: steps taken, theta

    def choose(self, view: View, done: Done) -> Decision:
        worth = {}
        for card in view.neighbours:
            begun = (0, math.log2(card.cost / view.agent.cost))
            _, ability = self.abilities.setdefault((card.name, done.sort[0]), begun)
            worth[card.name] = sigmoid(ability - self.difficulty(done)) - view.alpha * card.cost
        best = max(worth, key=worth.__getitem__)
        return Answer() if self.own(view, done) >= worth[best] else Forward(best)

    def difficulty(self, done: Done) -> float:
        """How difficult a query is for this agent."""
        return -logit(0.02 if done.p is None else self.right(done.me, done))

    def taught(self, done: Done, lesson: Lesson) -> None:
        if lesson.after:
            count, ability = self.abilities.get((lesson.last, done.sort[0]), (0, 0.0))
            step = max(FIRST / (1 + count) ** 0.5, LEAST)
            change = lesson.right - sigmoid(ability - self.difficulty(done))
            self.abilities[lesson.last, done.sort[0]] = (count + 1, ability + step * change)
