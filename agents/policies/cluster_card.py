"""Routing by cards that tell, for every sort of query, how often an agent is right."""

from __future__ import annotations

from collections.abc import Mapping

from agents.policies.base import Answer, Decision, Forward, View, number
from agents.policies.cells import Key, Means
from agents.policies.learner import Done, Learner, Lesson


class ClusterCard(Learner):
    """Answer iff ``p - alpha * c`` is at least what the best neighbour's own answer is worth by its card, else forward
    to that (UniRoute: Jitkrittum et al. 2025, arXiv 2502.08773, where a card is an agent's error on each cluster of
    some hundred probes, so that who joins can be routed to at once). Sorts of queries are those of ``cells.cluster``;
    what comes of queries is added to the cards.

    Args:
        cards: by agent, the share that it gets right of each kind of query (its first word, or the signs in it).

    Raises:
        ConfigError: ``cards`` is something else.
    """

    PROBES = 30  # observations that a share on a card stands for

    def __init__(self, cards: Mapping[str, Mapping[str, float]] = {}) -> None:
        super().__init__()
        self.cards = Means(weight=5.0)
        for agent, shares in cards.items():
            for kind, share in shares.items():
                right = number(f"cluster_card: cards[{agent}][{kind}]", share, 0, 1)
                self.cards.cells[agent, kind] = (self.PROBES, float(right))

    def choose(self, view: View, done: Done) -> Decision:
        worth = {
            card.name: self.cards.value(_keys(card.name, done), 1.0) - view.alpha * card.cost
            for card in view.neighbours
        }
        best = max(worth, key=worth.__getitem__)
        return Answer() if self.own(view, done) >= worth[best] else Forward(best)

    def taught(self, done: Done, lesson: Lesson) -> None:
        keys = _keys(lesson.last, done)
        if not lesson.again:
            self.cards.learn(keys, lesson.right)
        elif done.guessed is not None:
            self.cards.correct(keys, lesson.right - done.guessed)

    def doubted(self, agent: str) -> None:
        self.cards.doubt(agent)


def _keys(agent: str, done: Done) -> tuple[Key, ...]:
    kind, size = done.sort
    return (agent,), (agent, kind), (agent, kind, size)
