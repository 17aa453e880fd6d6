"""Routing as a contextual bandit that is told the preference."""

from __future__ import annotations

import math
import zlib

from agents.policies.base import Answer, Decision, Forward, View, number
from agents.policies.learner import Done, Learner, Lesson

KINDS = 8  # sorts of queries are hashed to so many
WIDE = 4 + KINDS
Context = tuple[tuple[int, float], ...]


class Bandit(Learner):
    """LinUCB with an arm for each neighbour (Li et al. 2010, arXiv 1003.0146, disjoint): what forwarding to it is worth
    is linear in what is known of the query, and is taken to be as much higher as it may well be, so that little known
    arms are tried. The preference stands in the context, so that one bandit serves every alpha (as in BaRP).

    The context is 1, alpha, this agent's p and its product with alpha, and the kind of query, hashed. Answer iff
    ``p - alpha * c`` is at least the best arm's bound, else pull that.

    Args:
        width: standard deviations by which an arm may be better than it seems.

    Raises:
        ConfigError: ``width`` is no number above or equal to 0.
    """

    def __init__(self, width: float = 0.5) -> None:
        super().__init__()
        self.width = number("bandit: width", width, 0)
        self.arms: dict[str, Arm] = {}

    def choose(self, view: View, done: Done) -> Decision:
        x = context(done, view.alpha)
        bounds = {card.name: self.arms.get(card.name, UNKNOWN).bound(x, self.width) for card in view.neighbours}
        best = max(bounds, key=bounds.__getitem__)
        return Answer() if self.own(view, done) >= bounds[best] else Forward(best)

    def taught(self, done: Done, lesson: Lesson) -> None:
        if lesson.peer is None:
            return
        arm, x = self.arms.setdefault(lesson.peer, Arm()), context(done, lesson.outcome.alpha)
        if lesson.again and done.guessed is not None:
            arm.correct(x, lesson.right - done.guessed)
        else:
            arm.learn(x, lesson.utility)


class Arm:
    """Ridge regression, kept up to date one observation at a time (Sherman and Morrison 1950)."""

    def __init__(self) -> None:
        self.inverse = [[float(row == column) for column in range(WIDE)] for row in range(WIDE)]
        self.sums = [0.0] * WIDE

    def bound(self, x: Context, width: float) -> float:
        """What it may well be worth."""
        along = self._times(x)
        spread = sum(along[place] * value for place, value in x)
        mean = sum(left * right for left, right in zip(along, self.sums, strict=True))
        return mean + width * math.sqrt(max(spread, 0.0))

    def learn(self, x: Context, reward: float) -> None:
        """At ``x`` it was worth ``reward``."""
        along = self._times(x)
        scale = 1 / (1 + sum(along[place] * value for place, value in x))
        for row, left in zip(self.inverse, along, strict=True):
            for column, right in enumerate(along):
                row[column] -= scale * left * right
        self.correct(x, reward)

    def correct(self, x: Context, change: float) -> None:
        """What was learnt at ``x`` was ``change`` too little."""
        for place, value in x:
            self.sums[place] += change * value

    def _times(self, x: Context) -> list[float]:
        return [sum(row[place] * value for place, value in x) for row in self.inverse]


UNKNOWN = Arm()


def context(done: Done, alpha: float) -> Context:
    """What is known of a query, as numbers and their places; the others are 0."""
    p = 0.0 if done.p is None else done.p
    kind = 4 + zlib.crc32(done.sort[0].encode()) % KINDS
    return ((0, 1.0), (1, alpha), (2, p), (3, alpha * p), (kind, 1.0))
