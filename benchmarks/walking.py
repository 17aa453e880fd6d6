"""Our own way to route, on recorded outcomes: real policies on real topologies, hop by hop, with the confidences that
agents had. What a mesh does, without its models; ``tests/models/test_walking.py`` holds it to a live one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from agents.messages import Card
from agents.policies import Forward, Policy, View
from benchmarks.outcomes import Floats, Outcomes, Routed
from topologies import Topology


def walk(
    outcomes: Outcomes,
    policies: Mapping[str, Policy],
    topology: Topology,
    alpha: float,
) -> tuple[Routed, list[tuple[int, ...]]]:
    """Send every question through the mesh.

    Args:
        policies: each agent's.

    Raises:
        ValueError: nothing was recorded at this alpha, or not what a look costs.

    Returns:
        What became of the questions, and whom each one met, the last of whom answered.
    """
    place = {name: number for number, name in enumerate(outcomes.agents)}
    cards = {name: Card(name, float(outcomes.costs[place[name]])) for name in outcomes.agents}
    if outcomes.looks is None or alpha not in outcomes.beliefs:
        raise ValueError(f"no confidences were recorded at alpha {alpha:g}; there are {sorted(outcomes.beliefs)}")
    known = outcomes.beliefs[alpha]
    paths, spent = [], np.zeros(len(outcomes))
    for number in range(len(outcomes)):
        met, forced = _path(known[:, number], place, cards, policies, topology, alpha)
        paths.append(met)
        for hop in met[:-1]:
            look = outcomes.looks[hop, number]
            spent[number] += outcomes.work[hop, number] if np.isnan(look) else look
        if not forced:
            spent[number] += np.nan_to_num(outcomes.looks[met[-1], number])
    agent, everyone = np.array([met[-1] for met in paths]), np.arange(len(paths))
    answered = outcomes.right[agent, everyone], outcomes.costs[agent], spent + outcomes.work[agent, everyone]
    return Routed(agent, *answered), paths


def _path(
    known: Floats,
    place: Mapping[str, int],
    cards: Mapping[str, Card],
    policies: Mapping[str, Policy],
    topology: Topology,
    alpha: float,
) -> tuple[tuple[int, ...], bool]:
    """Whom one question meets, and whether the last had no choice, so that it answers without a look."""
    met: list[int] = []
    at = topology.entries()[0]
    while True:
        met.append(place[at])
        peers = tuple(cards[name] for name in topology.neighbours(at) if place[name] not in met)
        if not peers or not policies[at].assesses:
            return tuple(met), True
        p = float(known[place[at]])
        view = View(cards[at], alpha, None if math.isnan(p) else p, math.isnan(p), peers)
        decision = policies[at].decide(view)
        if not isinstance(decision, Forward):
            return tuple(met), False
        at = decision.peer
