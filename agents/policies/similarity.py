"""Routing to whoever was right about similar queries."""

from __future__ import annotations

import math
from collections.abc import Mapping

from agents.errors import ConfigError
from agents.policies.base import Answer, Decision, Forward, View
from agents.policies.learner import Done, Learner, Lesson
from agents.profile import features

FADES, LEAST = 0.98, 1e-3  # of a centroid, with every query that joins it; what is less is dropped


class Similarity(Learner):
    """Answer iff ``p`` is above 1 - alpha; else forward to the neighbour that was right about similar queries, and
    wrong about others: by the cosine between the query's hashed n-grams and the centroid of what the neighbour got
    right (RouterRetriever), less that with the centroid of what it got wrong, less what it costs.

    Args:
        about: by agent, a description of what it can do, with which its centroid begins (as SkillRouter has it).

    Raises:
        ConfigError: a description is no text.
    """

    def __init__(self, about: Mapping[str, str] = {}) -> None:
        super().__init__()
        self.centroids: dict[tuple[str, bool], tuple[dict[int, float], float]] = {}  # and its length
        for agent, text in about.items():
            if not isinstance(text, str):
                raise ConfigError(f"policy similarity: about[{agent}] is {text!r}; it must be a text")
            self._join(agent, True, text)

    def choose(self, view: View, done: Done) -> Decision:
        if not view.refused and self.right(done.me, done) > 1 - view.alpha:
            return Answer()
        scores = {card.name: self.score(card.name, done.text) - view.alpha * card.cost for card in view.neighbours}
        return Forward(max(scores, key=scores.__getitem__))

    def score(self, agent: str, text: str) -> float:
        """How much a text resembles what an agent is good at, in [-1, 1]."""
        found = features(text)
        return self._cosine(agent, True, found) - self._cosine(agent, False, found)

    def _cosine(self, agent: str, right: bool, found: tuple[int, ...]) -> float:
        centroid, length = self.centroids.get((agent, right), ({}, 1.0))
        return sum(centroid.get(each, 0.0) for each in found) / (length * math.sqrt(len(found)))

    def _join(self, agent: str, right: bool, text: str) -> None:
        before, _ = self.centroids.get((agent, right), ({}, 1.0))
        found = features(text)
        centroid = {each: FADES * weight for each, weight in before.items() if weight > LEAST}
        for each in found:
            centroid[each] = centroid.get(each, 0.0) + len(found) ** -0.5
        self.centroids[agent, right] = centroid, math.sqrt(sum(weight * weight for weight in centroid.values()))

    def taught(self, done: Done, lesson: Lesson) -> None:
        if lesson.peer is not None and lesson.outcome.right is not None:
            self._join(lesson.peer, bool(lesson.outcome.right), done.text)
