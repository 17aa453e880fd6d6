"""Keeps the agents of one mesh alive and tells them of each other; the only one who restarts.

What to do about a death is ``mesh.restarts``, pure; around it is one small task per replica that watches it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from agents.errors import AgentDied, AgentError, ConfigError, MeshError, PlacementError
from agents.messages import PeerDown, PeerUp, Rewired
from agents.spec import AgentSpec
from mesh.directory import Directory
from mesh.members import Record, Roll, Saved, Seat
from mesh.news import News
from mesh.restarts import GiveUp, Rules, decide
from mesh.runtimes.base import Runtime
from mesh.versions import Version
from topologies import Topology

log = logging.getLogger(__name__)

Trace: TypeAlias = Callable[..., None]
_LOOK_S = 0.1  # how often one that leaves is asked whether it is done
_LAST_PULL_S = 1.0  # and how long its last answers are then there to be pulled


class Supervisor:
    """The agents of one mesh, from launch to close; everything runs in one event loop.

    Args:
        specs, topology: what to launch, and who may forward to whom.
        runtime: where they run.
        heartbeat_s: how often a replica is asked whether it is well; three silences in a row end it.
        trace: called with an event's name and fields.
        save: called whenever it has changed who is wanted, with what a successor needs.
    """

    def __init__(
        self,
        specs: Mapping[str, AgentSpec],
        topology: Topology,
        runtime: Runtime,
        heartbeat_s: float = 1.0,
        rules: Rules | None = None,
        trace: Trace | None = None,
        save: Callable[[Saved], None] | None = None,
    ) -> None:
        self.runtime, self.heartbeat_s = runtime, heartbeat_s
        self.rules, self.trace = rules or Rules(), trace or (lambda event, **fields: None)
        self.roll = Roll(topology)
        for name, spec in specs.items():
            self.roll.records[name] = Record(spec, seats=[Seat(name) for _ in range(spec.replicas)])
        self.directory = Directory(topology, {})
        self.news = News(runtime, self.roll)
        self._save = save or (lambda saved: None)
        self._changing = asyncio.Lock()  # one joins, leaves or changes at a time
        self._partings: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------------ the whole

    async def start(self) -> Directory:
        """Launch everybody, introduce them to each other, and watch over them.

        Raises:
            PlacementError, ConfigError: one agent cannot start; the others are ended again.
        """
        try:
            await self._launch_all(self.roll.seats())
        except BaseException:
            await self.close()
            raise
        await self._introduce()
        for seat in self.roll.seats():
            self._keep(seat)
        return self.directory

    async def resume(self, saved: Saved) -> None:
        """Take over a mesh whose supervisor has died: keep who is well, start again who is not."""
        self.roll.restore(saved)
        seats = self.roll.seats()
        up = [seat for seat in seats if seat.state == "up"]
        for seat, well in zip(up, await asyncio.gather(*(self._sound(seat, saved) for seat in up)), strict=True):
            if not well:
                seat.state = "down"
                await self.runtime.kill(seat.address)
        self._know()
        await asyncio.gather(*(self.news.teach(seat.address, self.directory) for seat in seats if seat.state == "up"))
        for seat in seats:
            if seat.state != "given up":
                self._keep(seat)
        self.trace("supervisor_resumed", agents=len(self.roll.records))

    async def _sound(self, seat: Seat, saved: Saved) -> bool:
        """Whether a replica is well and, where some of its agent may serve another version, serves what is wanted."""
        if seat.agent == saved.updating:
            try:
                await self.runtime.serve(seat.address, self.roll.records[seat.agent].spec)
            except MeshError:
                return False
        return await self._well(seat.address)

    async def status(self) -> list[dict[str, Any]]:
        """One row a replica; what one that answers says of itself included."""
        rows = await asyncio.gather(*(self._status(seat) for seat in self.roll.everybody()))
        return [*rows, *self.roll.asleep()]

    async def close(self) -> None:
        """End every agent; idempotent."""
        keepers = [seat.keeper for seat in self.roll.everybody()]
        await asyncio.gather(*(_stop(task) for task in (*keepers, *self._partings)))
        await self.runtime.close()

    # ------------------------------------------------------------------ changes

    async def add(self, spec: AgentSpec) -> Directory:
        """Launch one more agent and let it join the topology. Raises ConfigError for a name that is taken."""
        async with self._changing:
            if spec.name in self.roll.records:
                raise ConfigError(f"name: there is an agent {spec.name!r} already; choose another name")
            topology = self.roll.topology.join(spec.name, spec.card.cost)
            record = Record(spec, seats=[Seat(spec.name) for _ in range(spec.replicas)])
            await self._seat(record)
            self.roll.topology = topology
            await self._installed(record)
        return self.directory

    async def remove(self, name: str, drain_s: float = 0.0) -> Directory:
        """Let an agent leave the topology, give it ``drain_s`` to end what it has, then end it; whoever it could not
        answer by then is answered by another.

        Raises:
            ConfigError: an unknown name. TopologyError: it is the last one.
        """
        async with self._changing:
            record = self.roll.named(name)
            self.roll.topology = self.roll.topology.leave(name)
            del self.roll.records[name]
            self.roll.leaving.extend(record.seats)
            await self._introduce()
            self.trace("agent_removed", agent=name)
        await self._part(record.seats, drain_s)
        return self.directory

    async def scale(self, name: str, replicas: int, drain_s: float = 0.0) -> Directory:
        """Have so many replicas of an agent; returns when new ones are up, or wait for a place, and those too many have
        ended what they had. Raises ConfigError for an unknown name.
        """
        async with self._changing:
            record = self.roll.named(name)
            record.seats.sort(key=lambda seat: seat.state != "up")
            gone, new = record.seats[replicas:], [Seat(name) for _ in range(replicas - len(record.seats))]
            record.seats = [*record.seats[:replicas], *new]
            self.roll.leaving.extend(gone)
            await self._introduce()
            if not record.seats:  # it sleeps: whoever thinks it dead would not wake it
                await self.news.tell_all(PeerUp(name))
            for seat in new:
                self._keep(seat)
            self.trace("agent_scaled", agent=name, replicas=replicas)
        await asyncio.gather(self._part(gone, drain_s), *(seat.settled.wait() for seat in new))
        return self.directory

    async def upgrade(self, spec: AgentSpec, drain_s: float = 0.0) -> Directory:
        """Put new replicas, of another model, policy or whatever ``spec`` says, in an agent's place: once all of them
        are well, they take what comes, and the old ones end what they have.

        Raises:
            ConfigError, PlacementError: one of them cannot start; nothing has changed.
        """
        async with self._changing:
            old = self.roll.named(spec.name)
            record = Record(spec, (*old.earlier, old.spec), [Seat(spec.name) for _ in old.seats])
            topology = self.roll.priced(spec.name, spec.card.cost)
            await self._seat(record)
            self.roll.topology = topology
            self.roll.leaving.extend(old.seats)
            await self._installed(record)
            self.trace("agent_upgraded", agent=spec.name)
        await self._part(old.seats, drain_s)
        return self.directory

    async def update(self, name: str, version: Version | None) -> None:
        """Have an agent serve another version, None: the one before; queries in flight finish on the old one, and
        whoever of it is started again comes back with the new one.

        Raises:
            AdapterError: it does not fit; nothing has changed. ConfigError: there is none before.
        """
        async with self._changing:
            record = self.roll.named(name)
            if version is not None:
                spec, earlier = version.of(record.spec), (*record.earlier, record.spec)
            elif record.earlier:
                spec, earlier = record.earlier[-1], record.earlier[:-1]
            else:
                raise ConfigError(f"agent {name!r} has no earlier version to go back to")
            self.roll.updating = name
            self._save(self.roll.save())  # a successor must know that some may serve another version than is wanted
            try:
                await self._serve(record, spec)
                record.spec, record.earlier = spec, earlier
            finally:
                self.roll.updating = ""
                self._save(self.roll.save())
            self.trace("agent_updated", agent=name, adapter=str(spec.setup.adapter or ""))

    async def _serve(self, record: Record, spec: AgentSpec) -> None:
        """Have all its replicas serve this, also those that come up meanwhile; where it does not fit one, none does."""
        served: list[str] = []
        try:
            while late := [address for address in record.up if address not in served]:
                for address in late:
                    served.append(address)
                    with contextlib.suppress(AgentDied):  # its successor will come with what is wanted then
                        await self.runtime.serve(address, spec)
        except MeshError:
            for address in served:
                try:
                    await self.runtime.serve(address, record.spec)
                except MeshError:  # nobody knows what it serves now
                    await self.runtime.kill(address)
            raise

    async def _seat(self, record: Record) -> None:
        """Launch all replicas of an agent that is to be a member; again where one dies, as it may with its machine."""
        self.roll.arriving.extend(record.seats)
        try:
            with contextlib.suppress(AgentDied):
                return await self._launch_all(record.seats, record)
            await self._launch_all(record.seats, record)
        finally:
            self.roll.arriving = [seat for seat in self.roll.arriving if seat not in record.seats]

    async def _installed(self, record: Record) -> None:
        """Those who were launched are members from now on."""
        self.roll.install(record)
        for seat in record.seats:
            self._keep(seat)
        await self._join(record.spec.name)

    async def _part(self, seats: Sequence[Seat], drain_s: float) -> None:
        """Have these, of whom all have heard that they leave, end what they have; then end them. Nobody need wait."""
        ends = [asyncio.ensure_future(self._end(seat, drain_s)) for seat in seats]
        self._partings.update(ends)
        for end in ends:
            end.add_done_callback(self._partings.discard)
        await asyncio.gather(*map(asyncio.shield, ends))

    async def _end(self, seat: Seat, drain_s: float) -> None:
        was_up, seat.state = seat.state == "up", "leaving"
        await _stop(seat.keeper)
        until, in_hand = time.monotonic() + drain_s, was_up
        with contextlib.suppress(AgentError):  # it has died: nothing is left to end
            while in_hand and time.monotonic() < until:
                in_hand = bool(await self.runtime.leave(seat.address))
                await asyncio.sleep(_LOOK_S if in_hand else _LAST_PULL_S)
        await self.runtime.kill(seat.address)
        seat.settled.set()
        self.roll.leaving.remove(seat)
        await self._introduce()  # what it may have sent last is refused from now on

    # ------------------------------------------------------------------ one replica's life

    async def _launch_all(self, seats: Sequence[Seat], record: Record | None = None) -> None:
        """All of them; where one cannot start, the others are not waited for, and none of them stays."""
        launches = [asyncio.ensure_future(self._launch(seat, record)) for seat in seats]
        try:
            await asyncio.gather(*launches)
        except BaseException:
            for launch in launches:
                launch.cancel()
            await asyncio.gather(*launches, return_exceptions=True)
            await asyncio.gather(*(self.runtime.kill(seat.address) for seat in seats))
            raise

    async def _launch(self, seat: Seat, record: Record | None = None) -> None:
        """Start a replica; ``record``: of an agent that is no member yet."""
        wanted = record or self.roll.records[seat.agent]
        spec, seat.start = wanted.spec, self.roll.next_start(seat.agent)
        self._save(self.roll.save())
        known = self.directory if seat.agent in self.directory.cards else None
        card = await self.runtime.launch(seat.address, spec, known, seat.waits)
        try:
            while wanted.spec is not spec:  # it was given another version meanwhile
                spec = wanted.spec
                await self.runtime.serve(seat.address, spec)
        except BaseException:
            await self.runtime.kill(seat.address)
            raise
        seat.state, seat.why = "up", ""
        wanted.card = card
        if record is None:  # else it is not published before all of them are up
            self.roll.cards[card.name] = card
        self._know()
        self.trace("agent_up", agent=card.name, incarnation=seat.start)

    def _keep(self, seat: Seat) -> None:
        seat.keeper = asyncio.create_task(self._life(seat), name=f"keeper of {seat.agent}")

    async def _life(self, seat: Seat) -> None:
        while True:
            if seat.state == "up":
                seat.settled.set()
                self._down(seat, await self._until_dead(seat.address))
                await self.news.tell_all(Rewired(self.directory))
                if seat in self.roll.leaving:
                    return
                if not self.roll.records[seat.agent].up:
                    await self.news.tell_all(PeerDown(seat.agent))
            if not await self._revive(seat):
                seat.settled.set()
                return
            await self._join(seat.agent)

    def _down(self, seat: Seat, why: str) -> None:
        seat.state, seat.why, seat.deaths = "down", why, (*seat.deaths, time.monotonic())
        self._know()
        log.warning("agent %s is down (death %d): %s", seat.address, len(seat.deaths), why)
        self.trace("agent_down", agent=seat.agent, incarnation=seat.start, why=why)

    async def _until_dead(self, address: str) -> str:
        """Watch a replica; end it where it does not answer three heartbeats in a row. Returns what happened to it."""
        watch, silent = asyncio.ensure_future(self.runtime.watch(address)), 0
        try:
            while silent < 3 and not watch.done():
                await asyncio.wait({watch}, timeout=self.heartbeat_s)
                silent = 0 if watch.done() or await self._well(address) else silent + 1
                if address in self.news.missed and not silent:
                    await self.news.teach(address, self.directory)
            await self.runtime.kill(address)
            return "it was not well three times in a row" if silent else "it is gone"
        finally:
            watch.cancel()
            self.news.missed.discard(address)

    async def _well(self, address: str) -> bool:
        try:
            return await self.runtime.healthy(address)
        except Exception as error:  # whatever it is, this replica is not well
            log.debug("%s is not well: %r", address, error)
            return False

    async def _revive(self, seat: Seat) -> bool:
        """Start a replica, again and again until it is up; False where it is given up."""
        while True:
            if seat.deaths:
                verdict = decide(seat.deaths, time.monotonic(), self.rules)
                if isinstance(verdict, GiveUp):
                    seat.state, seat.why = "given up", verdict.why
                    self._know()
                    log.error("agent %s is left out: %s", seat.address, verdict.why)
                    self.trace("agent_given_up", agent=seat.agent, why=verdict.why)
                    return False
                await asyncio.sleep(verdict.delay_s)
            seat.state = "starting"
            try:
                await self._launch(seat)
                return True
            except PlacementError as error:  # nothing is wrong with it: it goes on waiting
                seat.waits(str(error))
                self._know()
                await asyncio.sleep(self.heartbeat_s)
            except Exception as error:  # nobody else would start it
                self._down(seat, str(error) or repr(error))

    # ------------------------------------------------------------------ telling others

    async def _join(self, name: str) -> None:
        """A newcomer learns all that it has missed, then the others that it is there: they may have thought it dead."""
        await self._introduce()
        await asyncio.gather(*(self.news.teach(address, self.directory) for address in self.roll.records[name].up))
        await self.news.tell_all(PeerUp(name))

    def _know(self) -> None:
        self.directory = self.roll.directory()
        self.runtime.know(self.directory)
        self._save(self.roll.save())

    async def _introduce(self) -> None:
        self._know()
        await self.news.tell_all(Rewired(self.directory))

    async def _status(self, seat: Seat) -> dict[str, Any]:
        row = self.roll.row(seat)
        try:
            return row | (await self.runtime.status(seat.address) if seat.state in ("up", "leaving") else {})
        except AgentError as error:
            return row | {"why": str(error)}


async def _stop(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
