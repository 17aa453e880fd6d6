"""What every shape shares: agents in cost order, lazy neighbours, join, leave and the checks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Container, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cached_property
from math import inf
from reprlib import repr as short
from types import MappingProxyType
from typing import Any, NamedTuple

import networkx as nx

from topologies.errors import TopologyError

WALKED_UP_TO = 1_000


class Option(NamedTuple):
    """What a shape can be told besides its agents; a value has the default's type and, if a number, these bounds."""

    name: str
    default: Any
    least: float = -inf
    most: float = inf

    def check(self, value: Any) -> None:
        """Raise TopologyError for a wrong ``value``; an int may stand for a float, a bool for no number."""
        kind = type(self.default)
        fits = type(value) is kind or (kind is float and type(value) is int)
        if not fits or (kind in (int, float) and not self.least <= value <= self.most):
            bounds = f" in [{self.least}, {self.most}]" if kind in (int, float) else ""
            raise TopologyError(f"{self.name} must be of type {kind.__name__}{bounds}, not {value!r}")


class Topology(ABC):
    """Who may forward to whom. Immutable, equal where built alike, pickled as its arguments.

    ``agents`` maps names to costs and is kept by cost, then by name. Queries start at ``entry``; None means the
    cheapest agent, whoever that is after a join or leave. A shape says what options it ``takes`` and defines
    ``_successors``. Raises TopologyError, see ``check``.
    """

    takes: tuple[Option, ...] = ()
    cyclic: bool = False

    def __init__(self, agents: Mapping[str, float], entry: str | None = None, **options: Any) -> None:
        for name, cost in agents.items():
            if not isinstance(name, str) or not name.strip():
                raise TopologyError(f"agent name {name!r} must be a string that is not empty")
            if isinstance(cost, bool) or not isinstance(cost, int | float) or not 0 < cost <= 1:
                raise TopologyError(f"agent {name!r}: cost must be a number in (0, 1], not {cost!r}")
        if not agents:
            raise TopologyError("no agents; a topology needs at least one")
        self.names = tuple(sorted(agents, key=lambda name: (agents[name], name)))
        self.agents = MappingProxyType({name: float(agents[name]) for name in self.names})
        self.rank = {name: rank for rank, name in enumerate(self.names)}
        self.entry, self._asked_entry = self.names[0] if entry is None else entry, entry
        self.options = MappingProxyType(deepcopy({option.name: option.default for option in self.takes} | options))
        self._edges: dict[str, tuple[str, ...]] = {}
        self.check()

    @abstractmethod
    def _successors(self, name: str) -> Sequence[str]:
        """Whom ``name`` may forward to, in order of preference; asked once an agent, when first needed."""

    def neighbours(self, name: str, down: frozenset[str] = frozenset()) -> tuple[str, ...]:
        """Whom ``name`` may forward to, in order of preference; last, breadth first, stand-ins for those ``down``."""
        if name not in self.agents:
            raise TopologyError(f"unknown agent {name!r}; known: {short(self.names)}")
        if name not in self._edges:
            edges = tuple(dict.fromkeys(self._successors(name)))
            for to in edges:
                if to == name or to not in self.agents:
                    raise TopologyError(f"edge from {name!r} to {to!r}: must lead to another of {short(self.names)}")
            self._edges[name] = edges
        if down.isdisjoint(self._edges[name]):
            return self._edges[name]
        return tuple(to for to in self._walk(name, down) if to not in down)

    def entries(self, down: frozenset[str] = frozenset()) -> tuple[str, ...]:
        """Where to try to enter: the entry, then breadth first, then any left by cost; without ``down``."""
        return tuple(name for name in self._from_entry if name not in down)

    def exits(self) -> tuple[str, ...]:
        """Who must answer: agents without successors or, where cycles let anybody come last, the dearest."""
        if self.cyclic:
            return tuple(name for name, cost in self.agents.items() if cost == self.agents[self.names[-1]])
        return tuple(name for name in self.names if not self.neighbours(name))

    def join(self, name: str, cost: float, **changes: Any) -> Topology:
        """A new topology with one agent more; ``changes`` are a new entry or options to go with it."""
        if name in self.agents:
            raise TopologyError(f"agent {name!r} is here already, at cost {self.agents[name]}; take another name")
        return type(self)({**self.agents, name: cost}, **{"entry": self._asked_entry, **self.options, **changes})

    def leave(self, name: str, **changes: Any) -> Topology:
        """A new topology with one agent less; where that was the entry, the cheapest left takes over."""
        self.neighbours(name)
        left = {other: cost for other, cost in self.agents.items() if other != name}
        if not left:
            raise TopologyError(f"agent {name!r} is the last one and cannot leave")
        entry = None if name == self.entry else self._asked_entry
        return type(self)(left, **{"entry": entry, **self.options, **changes})

    def graph(self) -> nx.DiGraph[str]:
        """The whole graph, ``cost`` on its nodes, edges in order of preference."""
        graph: nx.DiGraph[str] = nx.DiGraph()
        graph.add_nodes_from((name, {"cost": cost}) for name, cost in self.agents.items())
        graph.add_edges_from((name, to) for name in self.names for to in self.neighbours(name))
        return graph

    def check(self, whole: bool = False) -> None:
        """Raise TopologyError where options, entry or graph are wrong; the constructor calls it.

        Edges are checked when first used. Up to 1,000 agents, for ``Edges`` of any size and where ``whole`` asks
        for it, the entry must also reach everybody and, unless ``cyclic``, everybody an agent without successors.
        """
        for unknown in self.options.keys() - {option.name for option in self.takes}:
            raise TopologyError(f"{type(self).__name__} takes {[o.name for o in self.takes]}, no option {unknown!r}")
        for option in self.takes:
            option.check(self.options[option.name])
        if self.entry not in self.agents:
            raise TopologyError(f"entry {self.entry!r} is no agent; known: {short(self.names)}")
        if not whole and len(self.names) > WALKED_UP_TO:
            return
        if lost := self.agents.keys() - {self.entry, *self._walk(self.entry, self.agents)}:
            raise TopologyError(f"agent {min(lost)!r} cannot be reached from entry {self.entry!r}; add an edge to it")
        for trap in () if self.cyclic else nx.attracting_components(self.graph()):
            if len(trap) > 1:
                what = f"agent {min(trap)!r} is stuck in a cycle without exit, {short(sorted(trap))}"
                raise TopologyError(f"{what}: lead it to an agent without edges, or declare the graph cyclic")

    def _walk(self, start: str, through: Container[str]) -> Iterator[str]:
        """Everybody after ``start``, breadth first, each once; goes on only behind those in ``through``."""
        seen, queue = {start}, deque(self.neighbours(start))
        while queue:
            if (name := queue.popleft()) not in seen:
                seen.add(name)
                yield name
                queue.extend(self.neighbours(name) if name in through else ())

    @cached_property
    def _from_entry(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.entry, *self._walk(self.entry, self.agents), *self.names)))

    def __reduce__(self) -> tuple[Any, ...]:
        return _build, (type(self), dict(self.agents), self._asked_entry, dict(self.options))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Topology) and self.__reduce__() == other.__reduce__()


class Edges(Topology):
    """Edges told one by one: ``edges`` maps a name to a list of names; ``cyclic`` allows cycles without exit.

    A newcomer's edges are told, too: ``join(name, cost, edges=...)``. Those who forwarded to an agent that leaves
    forward to its successors, and so does whoever takes over as the entry.
    """

    takes = (Option("edges", {}), Option("cyclic", False))

    def check(self, whole: bool = True) -> None:
        self.cyclic = self.options["cyclic"]
        self.takes[0].check(self.options["edges"])
        for name, to in self.options["edges"].items():
            if name not in self.agents or not isinstance(to, list | tuple) or not all(isinstance(x, str) for x in to):
                raise TopologyError(f"edges of {name!r}: must be a list of names, for a known agent, not {to!r}")
        super().check(whole)

    def _successors(self, name: str) -> Sequence[str]:
        return tuple(self.options["edges"].get(name, ()))

    def leave(self, name: str, **changes: Any) -> Topology:
        edges = {other: self.neighbours(other, frozenset({name})) for other in self.names if other != name}
        if name == self.entry and edges:
            heir = next(iter(edges))
            edges[heir] += tuple(to for to in self.neighbours(name) if to != heir)
        return super().leave(name, **{"edges": edges, **changes})


def _build(kind: type[Topology], agents: dict[str, float], entry: str | None, options: dict[str, Any]) -> Topology:
    return kind(agents, entry, **options)
