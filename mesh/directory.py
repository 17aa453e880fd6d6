"""Who is in a mesh and who may forward to whom: a topology and everyone's card, as one immutable value."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from agents.messages import Card
from topologies import Topology

ENTRIES = 300  # more than four attempts can use up, each of which takes a query to 65 agents at most


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
        """Where a caller may begin, in order: ``first`` or the topology's entry, then whom to try without it: those
        around it, breadth first, so that not everybody's second choice is the same. Whoever is down comes last, and
        there are no more than ``ENTRIES``. ``alone``: nobody instead of ``first``.
        """
        if self.topology is None or (first is not None and alone):
            return () if first is None else (first,)
        names = list(islice(self._around(first or self.topology.entry), ENTRIES))
        given = [] if first is None else [names.pop(0)]
        return (*given, *sorted(names, key=self.down.__contains__))

    def _around(self, start: str) -> Iterator[str]:
        assert self.topology is not None
        seen, queue = {start: None}, deque([start])
        while queue:
            name = queue.popleft()
            yield name
            new = [to for to in self.neighbours(name) if to not in seen]
            seen.update(dict.fromkeys(new))
            queue.extend(new)
        yield from (name for name in self.topology.names if name not in seen)


NOBODY = Directory(None, {})
