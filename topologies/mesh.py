"""Graphs with cycles. All prefer dearer agents, by rising cost, to cheaper ones, by falling cost."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from topologies.errors import TopologyError
from topologies.graph import Option, Topology

COMPLETE_UP_TO = 256


class Nearest(Topology):
    """The ``k`` agents nearest in the cost order; of two equally near ones the dearer.

    From k = 2 on these include the next dearer and the next cheaper: on that line everybody reaches everybody.
    """

    takes: tuple[Option, ...] = (Option("k", 3, least=2),)
    cyclic = True

    def _successors(self, name: str) -> list[str]:
        own = self.rank[name]
        ordered = sorted({*self._ranks(own)} - {own}, key=lambda rank: (rank < own, abs(rank - own)))
        return [self.names[rank] for rank in ordered]

    def _ranks(self, own: int) -> Iterable[int]:
        k = self.options["k"]
        window = range(max(0, own - k), min(len(self.names), own + k + 1))
        return sorted(window, key=lambda rank: (abs(rank - own), rank < own))[: k + 1]


class Mesh(Nearest):
    """Complete: everybody may forward to everybody."""

    takes = ()

    def check(self, whole: bool = False) -> None:
        if len(self.names) > COMPLETE_UP_TO:
            raise TopologyError(f"{len(self.names)} agents, mesh takes {COMPLETE_UP_TO}: use nearest or small_world")
        super().check(whole)

    def _ranks(self, own: int) -> Iterable[int]:
        return range(len(self.names))


class SmallWorld(Nearest):
    """A ring over the cost order with long edges (Watts and Strogatz 1998, here directed).

    Each agent starts with the ``k`` nearest on the ring; with probability ``p`` an edge moves to a random agent,
    and is lost if one leads there already. Edges to the next agent stay: on that ring everybody reaches everybody.
    """

    takes = (Option("k", 4, least=1), Option("p", 0.1, least=0, most=1), Option("seed", 0))

    def _ranks(self, own: int) -> Iterable[int]:
        size, (k, p, seed) = len(self.names), self.options.values()
        rng, k = Random(f"{seed}:{self.names[own]}"), min(k, size)
        ring = [rank for rank in range(own - k // 2, own + (k + 1) // 2 + 1) if rank not in (own, own + 1)]
        return {(own + 1) % size, *(rng.randrange(size) if rng.random() < p else rank % size for rank in ring)}
