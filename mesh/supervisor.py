"""Keeps the agents of one mesh alive and tells them of each other; the only one who restarts.

What to do about a death is ``decide``, pure; around it is one small task per agent that watches it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from agents.errors import AgentError, ConfigError
from agents.messages import Card, NodeEvent, PeerDown, PeerUp, Rewired
from agents.spec import AgentSpec
from mesh.directory import Directory
from mesh.runtimes.base import Runtime
from mesh.versions import Version
from topologies import Topology

log = logging.getLogger(__name__)

State: TypeAlias = Literal["starting", "up", "down", "given up"]
Trace: TypeAlias = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Restart:
    """Start the agent again after ``delay_s``."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Leave the agent out: it dies as often as it is started."""

    why: str


@dataclass(frozen=True, slots=True)
class Rules:
    """Back-off doubles from ``first_s`` to ``most_s``; ``deaths`` within ``window_s`` are a crash loop."""

    first_s: float = 0.2
    most_s: float = 30.0
    deaths: int = 6
    window_s: float = 120.0


def decide(deaths: tuple[float, ...], now: float, rules: Rules) -> Restart | GiveUp:
    """What to do about an agent that has died at these times, the last one just now."""
    recent = sum(now - at <= rules.window_s for at in deaths)
    if recent >= rules.deaths:
        return GiveUp(f"died {recent} times within {rules.window_s:g} s")
    return Restart(min(rules.most_s, rules.first_s * 2.0 ** (recent - 1)))


@dataclass(slots=True)
class Record:
    """What the supervisor knows of one agent; ``incarnation`` counts its starts, ``earlier`` are versions before."""

    spec: AgentSpec
    earlier: tuple[AgentSpec, ...] = ()
    state: State = "starting"
    incarnation: int = 0
    deaths: tuple[float, ...] = ()
    why: str = ""
    keeper: asyncio.Task[None] | None = field(default=None, repr=False)


class Supervisor:
    """The agents of one mesh, from launch to close; everything runs in one event loop.

    Args:
        specs: what to launch.
        topology: over the same names.
        runtime: where they run.
        heartbeat_s: how often an agent is asked whether it is well; three silences in a row end it.
        trace: called with an event's name and fields.
    """

    def __init__(
        self,
        specs: Mapping[str, AgentSpec],
        topology: Topology,
        runtime: Runtime,
        heartbeat_s: float = 1.0,
        rules: Rules | None = None,
        trace: Trace | None = None,
    ) -> None:
        self.topology, self.runtime, self.heartbeat_s = topology, runtime, heartbeat_s
        self.rules, self.trace = rules or Rules(), trace or (lambda event, **fields: None)
        self.records = {name: Record(spec) for name, spec in specs.items()}
        self.directory = Directory(topology, {})
        self._changing = asyncio.Lock()  # one joins, leaves or changes at a time

    async def start(self) -> Directory:
        """Launch everybody, introduce them to each other, and watch over them.

        Raises:
            PlacementError, ConfigError: one agent cannot start; the others are ended again.
        """
        launches = [asyncio.ensure_future(self._launch(record)) for record in self.records.values()]
        try:
            await asyncio.gather(*launches)
        except BaseException:
            for launch in launches:
                launch.cancel()
            await asyncio.gather(*launches, return_exceptions=True)
            await self.close()
            raise
        await self._introduce()
        for record in self.records.values():
            self._keep(record)
        return self.directory

    async def add(self, spec: AgentSpec) -> Directory:
        """Launch one more agent and let it join the topology. Raises ConfigError for a name that is taken."""
        async with self._changing:
            if spec.name in self.records:
                raise ConfigError(f"name: there is an agent {spec.name!r} already; choose another name")
            topology = self.topology.join(spec.name, spec.card.cost)
            record = self.records[spec.name] = Record(spec)
            try:
                await self._launch(record)
            except BaseException:
                del self.records[spec.name]
                raise
            self.topology = topology
            self._keep(record)
            await self._join(spec.name)
            return self.directory

    async def remove(self, name: str) -> Directory:
        """Let an agent leave the topology, then end it. Raises ConfigError for an unknown name."""
        async with self._changing:
            record = self._record(name)
            self.topology = self.topology.leave(name)
            del self.records[name]
            await self._introduce()
            await _stop(record.keeper)
            await self.runtime.kill(name)
            self.trace("agent_removed", agent=name)
            return self.directory

    async def update(self, name: str, version: Version | None) -> None:
        """Have an agent serve another version, None: the one before; queries in flight finish on the old one, and an
        agent that is started again comes back with the new one.

        Raises:
            AdapterError: it does not fit; nothing has changed. ConfigError: there is none before.
        """
        async with self._changing:
            record = self._record(name)
            if version is not None:
                spec, earlier = version.of(record.spec), (*record.earlier, record.spec)
            elif record.earlier:
                spec, earlier = record.earlier[-1], record.earlier[:-1]
            else:
                raise ConfigError(f"agent {name!r} has no earlier version to go back to")
            await self.runtime.serve(spec)
            record.spec, record.earlier = spec, earlier
            self.trace("agent_updated", agent=name, adapter=str(spec.setup.adapter or ""))

    async def status(self) -> list[dict[str, Any]]:
        """One row an agent; what an agent that answers says of itself included."""
        return list(await asyncio.gather(*(self._status(record) for record in self.records.values())))

    async def close(self) -> None:
        """End every agent; idempotent."""
        await asyncio.gather(*(_stop(record.keeper) for record in self.records.values()))
        await self.runtime.close()

    # ------------------------------------------------------------------ one agent's life

    async def _launch(self, record: Record) -> None:
        known = self.directory if record.spec.name in self.directory.cards else None
        card = await self.runtime.launch(record.spec, known)
        record.state, record.why = "up", ""
        record.incarnation += 1
        self._know({**self.directory.cards, card.name: card})
        self.trace("agent_up", agent=card.name, incarnation=record.incarnation)

    def _keep(self, record: Record) -> None:
        record.keeper = asyncio.create_task(self._life(record), name=f"keeper of {record.spec.name}")

    async def _life(self, record: Record) -> None:
        name = record.spec.name
        while True:
            self._down(record, await self._until_dead(name))
            await self._tell_all(PeerDown(name))
            if not await self._revive(record):
                return
            await self._join(name)

    def _down(self, record: Record, why: str) -> None:
        record.state, record.why, record.deaths = "down", why, (*record.deaths, time.monotonic())
        self._know(self.directory.cards)
        log.warning("agent %s is down (death %d): %s", record.spec.name, len(record.deaths), why)
        self.trace("agent_down", agent=record.spec.name, incarnation=record.incarnation, why=why)

    async def _until_dead(self, name: str) -> str:
        """Watch an agent; end it where it does not answer three heartbeats in a row. Returns what happened to it."""
        watch = asyncio.ensure_future(self.runtime.watch(name))
        silent = 0
        try:
            while silent < 3 and not watch.done():
                await asyncio.wait({watch}, timeout=self.heartbeat_s)
                silent = 0 if watch.done() or await self._well(name) else silent + 1
            await self.runtime.kill(name)
            return "it was not well three times in a row" if silent else "it is gone"
        finally:
            watch.cancel()

    async def _well(self, name: str) -> bool:
        try:
            return await self.runtime.healthy(name)
        except Exception as error:  # whatever it is, this agent is not well
            log.debug("%s is not well: %r", name, error)
            return False

    async def _revive(self, record: Record) -> bool:
        while True:
            verdict = decide(record.deaths, time.monotonic(), self.rules)
            if isinstance(verdict, GiveUp):
                record.state, record.why = "given up", verdict.why
                log.error("agent %s is left out: %s", record.spec.name, verdict.why)
                self.trace("agent_given_up", agent=record.spec.name, why=verdict.why)
                return False
            await asyncio.sleep(verdict.delay_s)
            record.state = "starting"
            try:
                await self._launch(record)
                return True
            except Exception as error:  # nobody else would start it
                self._down(record, str(error) or repr(error))

    # ------------------------------------------------------------------ telling others

    async def _join(self, name: str) -> None:
        """A newcomer learns all that it has missed, then the others that it is there: they may have thought it dead."""
        await self._introduce()
        for other in [r.spec.name for r in self.records.values() if r.state != "up"]:
            await self._tell(name, PeerDown(other))
        await self._tell_all(PeerUp(name))

    def _know(self, cards: Mapping[str, Card]) -> None:
        down = frozenset(name for name, record in self.records.items() if record.state not in ("up", "starting"))
        self.directory = Directory(self.topology, cards, down)

    async def _introduce(self) -> None:
        cards = {name: card for name, card in self.directory.cards.items() if name in self.records}
        self._know(cards)
        await self._tell_all(Rewired(self.directory))

    async def _tell_all(self, event: NodeEvent) -> None:
        await asyncio.gather(*(self._tell(r.spec.name, event) for r in self.records.values() if r.state == "up"))

    async def _tell(self, name: str, event: NodeEvent) -> None:
        try:
            await self.runtime.tell(name, event)
        except AgentError as error:
            log.debug("%s was not told %s: %s", name, type(event).__name__, error)

    async def _status(self, record: Record) -> dict[str, Any]:
        row: dict[str, Any] = {"agent": record.spec.name, "state": record.state, "cost": record.spec.card.cost}
        row |= {"incarnation": record.incarnation, "deaths": len(record.deaths), "why": record.why}
        try:
            return row | (await self.runtime.status(record.spec.name) if record.state == "up" else {})
        except AgentError as error:
            return row | {"why": str(error)}

    def _record(self, name: str) -> Record:
        if name not in self.records:
            raise ConfigError(f"unknown agent {name!r}: there are {', '.join(self.records)}")
        return self.records[name]


async def _stop(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
