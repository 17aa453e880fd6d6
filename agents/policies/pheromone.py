"""Routing by trails."""

from __future__ import annotations

from random import Random

from agents.policies.base import Answer, Decision, Forward, View, number
from agents.policies.learner import Done, Learner, Lesson
from agents.policies.threshold import Reliability

LEAST, MOST = 0.05, 5.0  # of a trail (MAX-MIN ant system: Stuetzle and Hoos 2000)


class Pheromone(Learner):
    """Who would forward, by the reliability rule, draws a neighbour by the trails of this kind of query (ant colony
    optimisation, Dorigo 1996; AMRO-S has trails for tasks): a reply whose utility is above ``gate`` adds what it is
    above that to the trail it came by, as soon as it is known, and all trails of its kind evaporate by ``decay``.

    Args:
        gamma: of the reliability rule. gate: see above. decay: in (0, 1).
        power: how much the stronger trail is preferred.

    Raises:
        ConfigError: an option is out of bounds.
    """

    def __init__(self, gamma: float = 0.5, gate: float = 0.0, decay: float = 0.02, power: float = 2.0) -> None:
        super().__init__()
        self.rule = Reliability(gamma)
        self.gate = number("pheromone: gate", gate, -1, 1)
        self.decay, self.power = number("pheromone: decay", decay, 0, 1), number("pheromone: power", power, 0, 20)
        self.trails: dict[str, dict[str, float]] = {}  # of a kind of query, to a neighbour

    def choose(self, view: View, done: Done) -> Decision:
        if isinstance(self.rule.decide(view), Answer):
            return Answer()
        trails = self.trails.get(done.sort[0], {})
        names = [card.name for card in view.neighbours]
        weights = [trails.get(name, 1.0) ** self.power for name in names]
        return Forward(Random(view.seed).choices(names, weights)[0])

    def taught(self, done: Done, lesson: Lesson) -> None:
        if lesson.peer is None:
            return
        trails = self.trails.setdefault(done.sort[0], {})
        deposit = max(lesson.utility - self.gate, 0.0)
        if lesson.again and done.guessed is not None:  # only what had been thought of it too little, or too much
            deposit -= max(lesson.utility - lesson.right + done.guessed - self.gate, 0.0)
        else:
            for name in trails:
                trails[name] = max(trails[name] * (1 - self.decay), LEAST)
        trails[lesson.peer] = min(max(trails.get(lesson.peer, 1.0) + deposit, LEAST), MOST)
