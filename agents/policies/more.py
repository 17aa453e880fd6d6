"""Policies that learn, or go by more than their own verdict: ways to route among others."""

from __future__ import annotations

from agents.policies.bandit import Bandit
from agents.policies.base import Policy
from agents.policies.budget import Budget
from agents.policies.cluster_card import ClusterCard
from agents.policies.committee import Committee
from agents.policies.guard import Guard
from agents.policies.irt import Irt
from agents.policies.pheromone import Pheromone
from agents.policies.shortest_path import ShortestPath
from agents.policies.similarity import Similarity
from agents.policies.speculative import Speculative
from agents.policies.value import Value

MORE: dict[str, type[Policy]] = {
    "value": Value,
    "budget": Budget,
    "bandit": Bandit,
    "irt": Irt,
    "cluster_card": ClusterCard,
    "pheromone": Pheromone,
    "similarity": Similarity,
    "shortest_path": ShortestPath,
    "committee": Committee,
    "speculative": Speculative,
    "guard": Guard,
}
