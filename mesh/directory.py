"""Who is in a mesh and who may forward to whom: a topology and everyone's card, as one immutable value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agents.messages import Card
from topologies import Topology


@dataclass(frozen=True, slots=True)
class Directory:
    """What agents know of each other (``agents.node.Links``) and callers of where to begin.

    ``replicas`` are the addresses of those that take queries, by agent; ``leaving`` only end what they have. ``starts``
    tells how often replicas of an agent were started until now (see ``mesh.replicas``).
    """

    topology: Topology | None
    cards: Mapping[str, Card]
    down: frozenset[str] = frozenset()
    replicas: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    leaving: frozenset[str] = frozenset()
    starts: Mapping[str, int] = field(default_factory=dict)

    def neighbours(self, name: str, down: frozenset[str] = frozenset()) -> Sequence[str]:
        """To whom ``name`` may forward; those behind a neighbour that is down stand in for it."""
        return self.topology.neighbours(name, down) if self.topology and name in self.cards else ()

    def entries(self, first: str | None = None, alone: bool = False) -> tuple[str, ...]:
        """Where a caller may begin, in order: ``first`` or the topology's entry, then whom to try without it; whoever
        is down comes last. ``alone``: nobody instead of ``first``.
        """
        if first is not None and alone:
            return (first,)
        names = self.topology.entries() if self.topology else ()
        names = tuple(sorted(names, key=self.down.__contains__))
        return names if first is None else (first, *(name for name in names if name != first))


NOBODY = Directory(None, {})
