"""What is measured, for Prometheus: through Ray, whose agent on each machine offers it.

Where the server is no Ray replica (in a test), nothing is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from agents.messages import Reply

SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0]
COSTS = [0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0]
HOPS = [1, 2, 3, 4, 5, 8, 16, 64]
COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {  # name -> (what it counts, its tags)
    "mesh_queries": ("Queries, by how they ended: answered, cancelled, or an error's code.", ("ended", "alpha")),
    "mesh_verdicts": ("What agents did: answered, refused, declined, failed.", ("agent", "verdict", "alpha")),
    "mesh_cost": ("Sum of the answering agents' prices.", ("agent", "alpha")),
    "mesh_full_cost": ("Sum of the full costs.", ("alpha",)),
    "mesh_tokens": ("Tokens read and written by agents.", ("agent", "kind")),
    "mesh_feedback": ("Replies said to be right or wrong.", ("agent", "right")),
}  # fmt: skip
HISTOGRAMS: dict[str, tuple[str, Sequence[float], tuple[str, ...]]] = {  # name -> (what it measures, bounds, its tags)
    "mesh_hops": ("Agents on a query's path.", HOPS, ("alpha",)),
    "mesh_query_full_cost": ("Full cost of a query.", COSTS, ("alpha",)),
    "mesh_first_token_seconds": ("From a query to its first token.", SECONDS, ("alpha",)),
    "mesh_query_seconds": ("From a query to its reply's end.", SECONDS, ("alpha",)),
    "mesh_queue_seconds": ("What queries waited before the mesh heard of them.", SECONDS, ()),
}
GAUGES = {
    "mesh_running": ("Queries that are worked on, by this replica.", ("replica",)),
    "mesh_waiting": ("Queries that queue, at this replica.", ("replica",)),
}


class Meters(Protocol):
    """Where measurements go."""

    def count(self, name: str, by: float, tags: Mapping[str, str]) -> None: ...

    def observe(self, name: str, value: float, tags: Mapping[str, str]) -> None: ...

    def level(self, name: str, value: float) -> None: ...


class NoMeters:
    """Measures nothing."""

    def count(self, name: str, by: float, tags: Mapping[str, str]) -> None: ...

    def observe(self, name: str, value: float, tags: Mapping[str, str]) -> None: ...

    def level(self, name: str, value: float) -> None: ...


class RayMeters:
    """Measures through Ray. Names get ``ray_`` before them, and counters ``_total`` behind, as Ray and Prometheus do.

    Args:
        mesh: the mesh's name, a tag of everything. replica: this replica's, a tag of what is only its own.
    """

    def __init__(self, mesh: str, replica: str) -> None:
        from ray.util.metrics import Counter, Gauge, Histogram

        self._made: dict[str, Any] = {}
        for name, (told, tags) in COUNTERS.items():
            self._made[name] = Counter(name, told, ("mesh", *tags))
        for name, (told, bounds, tags) in HISTOGRAMS.items():
            self._made[name] = Histogram(name, told, [float(bound) for bound in bounds], ("mesh", *tags))
        for name, (told, tags) in GAUGES.items():
            self._made[name] = Gauge(name, told, ("mesh", *tags))
            self._made[name].set_default_tags({"mesh": mesh, "replica": replica})
        for name in (*COUNTERS, *HISTOGRAMS):
            self._made[name].set_default_tags({"mesh": mesh})

    def count(self, name: str, by: float, tags: Mapping[str, str]) -> None:
        if by > 0:
            self._made[name].inc(by, tags=dict(tags))

    def observe(self, name: str, value: float, tags: Mapping[str, str]) -> None:
        self._made[name].observe(value, tags=dict(tags))

    def level(self, name: str, value: float) -> None:
        self._made[name].set(value)


def measure(meters: Meters, reply: Reply) -> None:
    """All that a reply tells. Alphas are told to a tenth, so that a thousand of them are no thousand time series."""
    alpha = band(reply.alpha)
    meters.count("mesh_queries", 1, {"ended": "answered", "alpha": alpha})
    meters.count("mesh_cost", reply.cost, {"agent": reply.agent, "alpha": alpha})
    meters.count("mesh_full_cost", reply.full_cost, {"alpha": alpha})
    for hop in reply.path:
        meters.count("mesh_verdicts", 1, {"agent": hop.agent, "verdict": hop.verdict, "alpha": alpha})
        meters.count("mesh_tokens", hop.prompt_tokens, {"agent": hop.agent, "kind": "prompt"})
        meters.count("mesh_tokens", hop.generated_tokens, {"agent": hop.agent, "kind": "generated"})
    meters.observe("mesh_hops", len(reply.path), {"alpha": alpha})
    meters.observe("mesh_query_full_cost", reply.full_cost, {"alpha": alpha})
    meters.observe("mesh_query_seconds", reply.seconds, {"alpha": alpha})
    if reply.first_token_s is not None:
        meters.observe("mesh_first_token_seconds", reply.first_token_s, {"alpha": alpha})


def band(alpha: float) -> str:
    """An alpha to a tenth."""
    return f"{alpha:.1f}"
