"""Routing by shortest paths over what is known of the graph."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush

from agents.errors import ConfigError
from agents.policies.base import Answer, Decision, Decline, Forward, View, number
from agents.policies.threshold import Reliability

log = logging.getLogger(__name__)


class ShortestPath(Reliability):
    """Who would forward, by the reliability rule, does so along the cheapest way to somebody who will do, and where
    there is none logs that and escalates: to the caller where that one allows it, else by answering itself
    (Self-Healing Router: Dijkstra over a graph of costs, in which what fails costs infinity until it is back).

    An edge costs what the agent at its end charges, and one to who is down, visited or too dear infinity: such a one is
    in nobody's view, so a way goes through it only where the graph says that others come after it. Who will do are the
    ``goals``; without any, all that no known edge leads on from, and where everybody leads on, the dearest neighbour.

    Args:
        edges: of each agent, to whom it may forward, as far as known: the same graph as the topology's. What is not
            known ends at the neighbours.
        costs: of agents that are no neighbours; one that is not told costs 1.
        goals: see above.
        gamma: of the reliability rule.

    Raises:
        ConfigError: an option is something else.
    """

    def __init__(
        self,
        edges: Mapping[str, Sequence[str]] = {},
        costs: Mapping[str, float] = {},
        goals: Sequence[str] = (),
        gamma: float = 0.5,
    ) -> None:
        if not isinstance(edges, Mapping) or not all(isinstance(to, list | tuple) for to in edges.values()):
            raise ConfigError(f"policy shortest_path: edges is {edges!r:.80}; it must be names by agent, as lists")
        for name, cost in costs.items():
            number(f"shortest_path: costs[{name}]", cost, 0, 1, above=True)
        super().__init__(gamma)
        self.edges, self.costs, self.goals = edges, costs, frozenset(goals)

    def decide(self, view: View) -> Decision:
        if isinstance(super().decide(view), Answer):
            return Answer()
        first = self.first(view)
        if first is None:
            log.info("agent %s: no way leads on for query %s; it is escalated", view.agent.name, view.id)
            return Decline()
        return Forward(first)

    def first(self, view: View) -> str | None:
        """The first step of the cheapest way to who will do; None where every way costs infinity."""
        seen = {card.name: card.cost for card in view.neighbours}
        dead = {view.agent.name, *self.edges.get(view.agent.name, ())} - seen.keys()  # no way leads through these
        heap = [(cost, place, name, name) for place, (name, cost) in enumerate(seen.items())]
        heapify(heap)
        ways: dict[str, str] = {}  # to whom the way is known: its first step; the nearest first
        while heap:
            cost, place, name, first = heappop(heap)
            if name in ways:
                continue
            ways[name] = first
            if name in self.goals:
                return first
            for to in self.edges.get(name, ()):
                if to not in dead and to not in ways:
                    heappush(heap, (cost + seen.get(to, self.costs.get(to, 1.0)), place, to, first))
        if self.goals or not ways:
            return None
        ends = (first for name, first in ways.items() if not any(to in ways for to in self.edges.get(name, ())))
        return next(ends, max(seen, key=seen.__getitem__))
