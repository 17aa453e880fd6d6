"""Who belongs to a mesh: every agent as it is wanted, and a seat for each of its replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from agents.errors import ConfigError
from agents.messages import Card
from agents.names import address_of
from agents.spec import AgentSpec
from mesh.directory import Directory
from topologies import Topology

State: TypeAlias = Literal["up", "starting", "waiting", "down", "given up", "leaving", "asleep"]
STATES: tuple[State, ...] = get_args(State)  # best first
SUMMED = ("in_hand", "drafting", "queued", "engine_running", "deaths")


@dataclass(slots=True, eq=False)
class Seat:
    """Where a replica sits, one after another: ``start`` is the number of the one that sits there now.

    ``why`` says what it waits for, or why the last one is down.
    """

    agent: str
    start: int = 0
    state: State = "starting"
    deaths: tuple[float, ...] = ()
    why: str = ""
    keeper: asyncio.Task[None] | None = field(default=None, repr=False)
    settled: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    @property
    def address(self) -> str:
        return address_of(self.agent, self.start)

    def waits(self, told: str) -> None:
        """There is no place for it yet."""
        self.state, self.why = "waiting", told
        self.settled.set()


@dataclass(slots=True)
class Record:
    """One agent as it is wanted; ``earlier`` are the versions before, the last one last. ``card`` is what its replicas
    told when they started.
    """

    spec: AgentSpec
    earlier: tuple[AgentSpec, ...] = ()
    seats: list[Seat] = field(default_factory=list)
    card: Card | None = None

    @property
    def up(self) -> tuple[str, ...]:
        """The addresses of its replicas that can be asked."""
        return tuple(seat.address for seat in self.seats if seat.state == "up")

    @property
    def down(self) -> bool:
        """Whether none of it is there, nor on its way for the first time."""
        return all(seat.state in ("down", "given up", "waiting") for seat in self.seats)


def by_agent(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row an agent of the rows that ``status`` has for its replicas: what they have in hand together, and the state
    of the one that is best off.
    """
    agents: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        agents.setdefault(row["agent"], []).append(row)
    merged = []
    for each in agents.values():
        best = min(each, key=lambda row: STATES.index(row["state"]))
        sums = {key: sum(row.get(key, 0) for row in each) for key in SUMMED if any(key in row for row in each)}
        merged.append({**best, **sums, "replicas": sum(row["state"] == "up" for row in each)})
    return merged


@dataclass(frozen=True, slots=True)
class Saved:
    """What a supervisor needs of the one before it: who is wanted, how, who was there, and of which agent some replicas
    may serve another version already.
    """

    topology: Topology
    cards: Mapping[str, Card]
    starts: Mapping[str, int]
    agents: Mapping[str, tuple[AgentSpec, tuple[AgentSpec, ...], tuple[tuple[int, State, str], ...]]]
    updating: str = ""

    @property
    def up(self) -> frozenset[str]:
        """The addresses of those who could be asked."""
        return frozenset(
            address_of(name, start)
            for name, (_, _, seats) in self.agents.items()
            for start, state, _ in seats
            if state == "up"
        )


class Roll:
    """All members, and what of it everybody may know."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.records: dict[str, Record] = {}
        self.arriving: list[Seat] = []
        self.leaving: list[Seat] = []
        self.starts: dict[str, int] = {}
        self.cards: dict[str, Card] = {}
        self.updating = ""

    def directory(self) -> Directory:
        """What agents and callers are told."""
        return Directory(
            self.topology,
            {name: card for name, card in self.cards.items() if name in self.records},
            frozenset(name for name, record in self.records.items() if record.down),
            {name: record.up for name, record in self.records.items()},
            frozenset(seat.address for seat in self.leaving),
            dict(self.starts),
        )

    def seats(self) -> list[Seat]:
        """Of everybody who stays."""
        return [seat for record in self.records.values() for seat in record.seats]

    def everybody(self) -> list[Seat]:
        """Those who stay, who come and who go."""
        return [*self.seats(), *self.arriving, *self.leaving]

    def row(self, seat: Seat) -> dict[str, Any]:
        """What is known here of a replica, for ``status``."""
        record = self.records.get(seat.agent)
        card = record.spec.card if record else self.cards.get(seat.agent)
        row = {"agent": seat.agent, "state": seat.state, "cost": card.cost if card else None}
        return row | {"replica": seat.address, "incarnation": seat.start, "deaths": len(seat.deaths), "why": seat.why}

    def asleep(self) -> list[dict[str, Any]]:
        """A row of status for each agent that has no replica."""
        return [
            {"agent": name, "state": "asleep", "cost": record.spec.card.cost, "deaths": 0}
            for name, record in self.records.items()
            if not record.seats
        ]

    def named(self, name: str) -> Record:
        """One agent. Raises ConfigError for an unknown one."""
        if name not in self.records:
            raise ConfigError(f"unknown agent {name!r}: there are {', '.join(self.records)}")
        return self.records[name]

    def install(self, record: Record) -> None:
        """It is a member from now on, or takes the place of the one of its name."""
        self.records[record.spec.name] = record
        if record.card is not None:
            self.cards[record.card.name] = record.card

    def next_start(self, name: str) -> int:
        """A number that no replica of this agent has had, also of an agent that left and came back."""
        self.starts[name] = self.starts.get(name, 0) + 1
        return self.starts[name]

    def priced(self, name: str, cost: float) -> Topology:
        """The topology where this agent has another price."""
        build, (kind, agents, *rest) = self.topology.__reduce__()
        topology: Topology = build(kind, {**agents, name: cost}, *rest)
        return topology

    def save(self) -> Saved:
        """What a successor needs."""
        agents = {
            name: (record.spec, record.earlier, tuple((seat.start, seat.state, seat.why) for seat in record.seats))
            for name, record in self.records.items()
        }
        return Saved(self.topology, dict(self.cards), dict(self.starts), agents, self.updating)

    def restore(self, saved: Saved) -> None:
        """Take over from a predecessor."""
        self.topology, self.cards, self.starts = saved.topology, dict(saved.cards), dict(saved.starts)
        for name, (spec, earlier, seats) in saved.agents.items():
            there = [Seat(name, start, state, why=why) for start, state, why in seats]
            self.records[name] = Record(spec, earlier, there)
