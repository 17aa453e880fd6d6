"""Whatever befalls a mesh's members, in whatever order, its supervisor brings about who is wanted: in virtual time."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from agents.errors import AdapterError, AgentDied, AgentStalled, EngineError, MeshError, PlacementError
from agents.messages import Card, NodeEvent, PeerDown, PeerUp, Rewired
from agents.names import agent_of
from agents.spec import AgentSpec
from mesh.assemble import agent_specs
from mesh.config import load
from mesh.directory import Directory
from mesh.members import Saved, Seat
from mesh.replicas import Balance
from mesh.restarts import Rules
from mesh.supervisor import Supervisor
from mesh.versions import Version
from tests.pools import pool
from tests.virtualtime import VirtualLoop
from topologies import TopologyError

RULES = Rules(first_s=0.2, most_s=5.0, deaths=4, window_s=60.0)
PROBE_S, HEARTBEAT_S, PLACE_S = 5.0, 1.0, 6.0
NAMES = ("a0", "a1", "a2", "new")
explored = settings(
    max_examples=1_000, stateful_step_count=15, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


class Replica:
    """A process that hears news, and may be loading, silent, or dead."""

    def __init__(self, spec: AgentSpec, loop: VirtualLoop) -> None:
        self.spec, self.loop = spec, loop
        self.loaded = False
        self.silent_until = self.deaf_until = 0.0
        self.unheard: list[NodeEvent] = []
        self.in_hand = 0
        self.dead = asyncio.Event()
        self.down: set[str] = set()
        self.balance = Balance()

    def tell(self, event: NodeEvent) -> None:
        """It hears what it is told, in that order, once it moves again."""
        self.unheard.append(event)
        self.loop.call_at(self.silent_until, self.catch_up)

    def catch_up(self) -> None:
        while self.unheard and self.silent_until <= self.loop.now:
            self._hear(self.unheard.pop(0))
        if self.unheard:
            self.loop.call_at(self.silent_until, self.catch_up)

    def _hear(self, event: NodeEvent) -> None:
        match event:
            case Rewired(links):
                self.balance.know(links)
            case PeerDown(agent):
                self.down.add(agent)
            case PeerUp(agent):
                self.down.discard(agent)


class Cluster:
    """What outlives a supervisor: processes. ``sick`` are agents whose replicas die while they load, ``stubborn`` those
    that take no adapter.
    """

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.running: dict[str, Replica] = {}
        self.ending: set[str] = set()
        self.given: set[str] = set()
        self.loaded: set[str] = set()
        self.sick: set[str] = set()
        self.stubborn: set[str] = set()
        self.places = 12
        self.launch_s = 0.5

    def die(self, address: str) -> None:
        self.ending.discard(address)
        if (replica := self.running.pop(address, None)) is not None:
            replica.dead.set()


class Hold:
    """One supervisor's hold on the cluster; once ``cut`` it does nothing any more, as a process that was killed."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.cut = cluster, False
        self.directory: Directory | None = None
        self.watched: Callable[[str], None] = lambda address: None

    async def launch(self, address: str, spec: AgentSpec, directory: Any, waits: Any = None) -> Card:
        await self._works()
        cluster = self.cluster
        assert address not in cluster.given, f"{address} was given before"
        cluster.given.add(address)
        self.watched(address)
        replica = cluster.running[address] = Replica(spec, cluster.loop)
        try:
            until = cluster.loop.now + PLACE_S
            while len(cluster.running) > cluster.places:
                waits("waits for 1 place")
                if cluster.loop.now >= until:
                    raise PlacementError(f"agent {spec.name!r} waits for 1 place")
                await asyncio.sleep(2.0)
            await asyncio.sleep(cluster.launch_s)
            await self._works()
            if spec.name in cluster.sick:
                raise EngineError(spec.name, "it does not load")
            if replica.dead.is_set():
                raise AgentDied(spec.name)
        except BaseException:
            await self.kill(address)
            raise
        replica.loaded = True
        cluster.loaded.add(address)
        if directory is not None:
            replica.tell(Rewired(directory))
        return spec.card

    async def kill(self, agent: str) -> None:
        if self.cut:
            return
        if agent in self.cluster.running:
            self.cluster.ending.add(agent)
            try:
                await asyncio.sleep(0.1)
            finally:
                self.cluster.die(agent)

    async def leave(self, address: str) -> int:
        replica = await self._reach(address)
        replica.in_hand = max(0, replica.in_hand - 1)
        return replica.in_hand

    async def tell(self, agent: str, event: NodeEvent) -> None:
        await self._works()
        if (replica := self.cluster.running.get(agent)) is not None:
            if replica.deaf_until > self.cluster.loop.now:
                raise AgentDied(agent, "what was sent is lost")
            replica.tell(event)
        await self._reach(agent)

    async def watch(self, address: str) -> None:
        if address in self.cluster.running:
            await self.cluster.running[address].dead.wait()

    async def healthy(self, address: str) -> bool:
        await self._reach(address)
        return True

    async def status(self, address: str) -> dict[str, Any]:
        await self._reach(address)
        return {}

    async def serve(self, address: str, spec: AgentSpec) -> None:
        replica = await self._reach(address)
        await asyncio.sleep(0.3)
        replica = await self._reach(address)
        if spec.name in self.cluster.stubborn and spec.setup.adapter:
            raise AdapterError("it does not fit")
        replica.spec = spec

    def know(self, directory: Directory) -> None:
        if not self.cut:
            self.directory = directory

    async def close(self) -> None:
        for address in list(self.cluster.running):
            await self.kill(address)

    async def _reach(self, address: str) -> Replica:
        await self._works()
        replica = self.cluster.running.get(address)
        if replica is None or not replica.loaded:
            raise AgentDied(address)
        if replica.silent_until > self.cluster.loop.now:
            await asyncio.wait({asyncio.ensure_future(replica.dead.wait())}, timeout=PROBE_S)
            raise AgentDied(address) if replica.dead.is_set() else AgentStalled(address)
        return replica

    async def _works(self) -> None:
        if self.cut:
            await asyncio.Event().wait()


class Supervised(RuleBasedStateMachine):
    """Members die, fall silent, fail to load, find no place, come, go, change; so does the supervisor itself."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        asyncio.set_event_loop(self.loop)
        self._clock = patch("mesh.supervisor.time", SimpleNamespace(monotonic=self.loop.time))
        self._clock.start()
        self.cluster = Cluster(self.loop)
        self.kept: list[Saved] = []
        self.changes: list[tuple[asyncio.Task[Any], Callable[[], None]]] = []
        self.wanted: dict[str, list[Any]] = {}  # replicas, version
        self.adapters = 0
        self.last_starts: dict[str, int] = {}

    # ------------------------------------------------------------------ the beginning

    @initialize(agents=st.integers(1, 3), replicas=st.integers(1, 2), shape=st.sampled_from(("cascade", "mesh")))
    def begin(self, agents: int, replicas: int, shape: str) -> None:
        config = load(pool(agents=agents, topology=shape, engine={"refuse": 0.0}))
        specs = {name: dataclasses.replace(spec, replicas=replicas) for name, spec in agent_specs(config).items()}
        self.made = agent_specs(load(pool(agents=1)))["a0"]
        self.supervisor = self._supervisor(specs, config.build_topology())
        self.loop.run_until_complete(self.supervisor.start())
        self.wanted = {name: [replicas, None, spec.card.cost] for name, spec in specs.items()}

    def _supervisor(self, specs: Any, topology: Any) -> Supervisor:
        hold = self.hold = Hold(self.cluster)
        hold.watched = self._launched

        def save(saved: Saved) -> None:
            if not hold.cut:  # else the process is gone, of which only the tasks are being cleared away
                self.kept.append(saved)

        return Supervisor(specs, topology, hold, HEARTBEAT_S, RULES, save=save)  # type: ignore[arg-type]

    def _seats(self) -> dict[str, Seat]:
        return {seat.address: seat for seat in self.supervisor.roll.everybody()}

    def _launched(self, address: str) -> None:
        """A start must have waited for what its deaths ask, and be no crash loop."""
        seat, now = self._seats()[address], self.loop.now
        assert seat.state != "given up"
        assert seat.deaths[:1] <= seat.deaths[-1:]
        if seat.deaths:
            recent = [at for at in seat.deaths if seat.deaths[-1] - at <= RULES.window_s]
            assert len(recent) < RULES.deaths, "it should have been left out"
            least = min(RULES.most_s, RULES.first_s * 2 ** (len(recent) - 1))
            assert now - seat.deaths[-1] >= least - 1e-6, f"it was started {now - seat.deaths[-1]} s after it died"

    # ------------------------------------------------------------------ what befalls members

    @rule(place=st.integers(0, 20))
    def one_dies(self, place: int) -> None:
        if self.cluster.running:
            self.cluster.die(sorted(self.cluster.running)[place % len(self.cluster.running)])

    @rule(place=st.integers(0, 20), seconds=st.sampled_from((0.5, 4.0, 12.0, 40.0)))
    def one_falls_silent(self, place: int, seconds: float) -> None:
        if self.cluster.running:
            address = sorted(self.cluster.running)[place % len(self.cluster.running)]
            self.cluster.running[address].silent_until = self.loop.now + seconds

    @rule(place=st.integers(0, 20), seconds=st.sampled_from((0.5, 4.0, 12.0)))
    def one_hears_no_news(self, place: int, seconds: float) -> None:
        if self.cluster.running:
            address = sorted(self.cluster.running)[place % len(self.cluster.running)]
            self.cluster.running[address].deaf_until = self.loop.now + seconds

    @rule(place=st.integers(0, 20), queries=st.integers(1, 30))
    def one_has_work(self, place: int, queries: int) -> None:
        if self.cluster.running:
            address = sorted(self.cluster.running)[place % len(self.cluster.running)]
            self.cluster.running[address].in_hand = queries

    @rule(name=st.sampled_from(NAMES), sick=st.booleans())
    def one_does_not_load(self, name: str, sick: bool) -> None:
        (self.cluster.sick.add if sick else self.cluster.sick.discard)(name)

    @rule(name=st.sampled_from(NAMES), stubborn=st.booleans())
    def one_takes_no_adapter(self, name: str, stubborn: bool) -> None:
        (self.cluster.stubborn.add if stubborn else self.cluster.stubborn.discard)(name)

    @rule(places=st.sampled_from((2, 4, 12)), launch_s=st.sampled_from((0.0, 0.5, 4.0)))
    def the_cluster_changes(self, places: int, launch_s: float) -> None:
        self.cluster.places, self.cluster.launch_s = places, launch_s

    @rule(seconds=st.sampled_from((0.0, 0.05, 0.35, 1.1, 7.0, 30.0, 70.0)))
    def time_passes(self, seconds: float) -> None:
        self.loop.advance(seconds)

    # ------------------------------------------------------------------ what is wanted

    def _change(self, work: Coroutine[Any, Any, Any], wanted: Callable[[], None]) -> None:
        task = self.loop.create_task(work)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # it is looked at in the end
        self.changes.append((task, wanted))
        self.loop.advance(0.0)

    def _spec(self, name: str, cost: float) -> AgentSpec:
        setup = dataclasses.replace(self.made.setup, agent=name)
        return dataclasses.replace(self.made, card=replace(self.made.card, name=name, cost=cost), setup=setup)

    @rule(name=st.sampled_from(NAMES), replicas=st.integers(1, 2))
    def add(self, name: str, replicas: int) -> None:
        spec = dataclasses.replace(self._spec(name, 0.35), replicas=replicas)
        self._change(self.supervisor.add(spec), lambda: self.wanted.update({name: [replicas, None, 0.35]}))

    @rule(name=st.sampled_from(NAMES), drain_s=st.sampled_from((0.0, 2.0)))
    def remove(self, name: str, drain_s: float) -> None:
        self._change(self.supervisor.remove(name, drain_s), lambda: self.wanted.__delitem__(name))

    @rule(name=st.sampled_from(NAMES), replicas=st.integers(0, 3), drain_s=st.sampled_from((0.0, 2.0)))
    def scale(self, name: str, replicas: int, drain_s: float) -> None:
        self._change(self.supervisor.scale(name, replicas, drain_s), lambda: self.wanted[name].__setitem__(0, replicas))

    @rule(name=st.sampled_from(NAMES), cost=st.sampled_from((0.2, 0.6)), drain_s=st.sampled_from((0.0, 2.0)))
    def upgrade(self, name: str, cost: float, drain_s: float) -> None:
        def wanted() -> None:
            self.wanted[name][1:] = [None, cost]

        self._change(self.supervisor.upgrade(self._spec(name, cost), drain_s), wanted)

    @rule(name=st.sampled_from(NAMES))
    def update(self, name: str) -> None:
        self.adapters += 1
        path = Path(f"/adapters/{self.adapters}")
        self._change(
            self.supervisor.update(name, Version(path, None, None)), lambda: self.wanted[name].__setitem__(1, path)
        )

    # ------------------------------------------------------------------ the supervisor itself

    @precondition(lambda self: self.kept)
    @rule(away_s=st.sampled_from((0.0, 1.0, 20.0)))
    def the_supervisor_dies(self, away_s: float) -> None:
        self.hold.cut = True
        mine = [task for task in asyncio.all_tasks(self.loop) if not task.done()]
        for task in mine:
            task.cancel()
        self.loop.advance(0.0)
        self.changes.clear()
        saved = self.kept[-1]
        self.loop.advance(away_s)
        for address in [address for address in self.cluster.running if address not in saved.up]:
            self.cluster.die(address)  # as ``mesh.running`` does
        self.supervisor = self._supervisor({}, saved.topology)
        self.loop.run_until_complete(self.supervisor.resume(saved))
        records = self.supervisor.roll.records
        self.wanted = {
            name: [len(record.seats), record.spec.setup.adapter, record.spec.card.cost]
            for name, record in records.items()
        }

    # ------------------------------------------------------------------ what must hold

    @invariant()
    def nobody_runs_beside_the_seats(self) -> None:
        if hasattr(self, "supervisor"):
            seats = [seat.address for seat in self.supervisor.roll.everybody()]
            assert len(seats) == len(set(seats)) or all(address.endswith("#0") for address in _twice(seats))
            assert self.cluster.running.keys() - self.cluster.ending <= set(seats)

    @invariant()
    def no_number_goes_back(self) -> None:
        if hasattr(self, "supervisor"):
            starts = self.supervisor.roll.starts
            assert all(starts.get(name, 0) >= start for name, start in self.last_starts.items())
            self.last_starts = dict(starts)

    def teardown(self) -> None:
        try:
            if hasattr(self, "supervisor"):
                self._quiet()
                self._converged()
                self.loop.run_until_complete(self.supervisor.close())
                assert not self.cluster.running
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.advance(0.0)
            self.loop.close()
            asyncio.set_event_loop(None)
            self._clock.stop()

    def _quiet(self) -> None:
        """Nothing happens any more, and nothing is in the way."""
        self.cluster.sick.clear()
        self.cluster.stubborn.clear()
        self.cluster.places, self.cluster.launch_s = 99, 0.5
        for _ in range(60):
            self.loop.advance(5.0)
            if self._settled():
                break
        self.loop.advance(PROBE_S + 2 * HEARTBEAT_S)  # whoever missed some news hears it with the next heartbeat
        for task, wanted in self.changes:
            assert task.done(), "a change never ends"
            error = task.exception()
            if error is None:
                wanted()
            elif not isinstance(error, MeshError | TopologyError):
                raise error

    def _settled(self) -> bool:
        roll, now = self.supervisor.roll, self.loop.now
        moving = any(max(each.silent_until, each.deaf_until) > now for each in self.cluster.running.values())
        there = all(seat.state in ("up", "given up") for seat in roll.everybody())
        return there and not moving and all(task.done() for task, _ in self.changes)

    def _converged(self) -> None:
        roll, running = self.supervisor.roll, self.cluster.running
        assert not roll.arriving
        assert not roll.leaving
        assert roll.records.keys() == self.wanted.keys()
        up = {seat.address: seat for seat in roll.seats() if seat.state == "up"}
        assert {seat.state for seat in roll.seats()} <= {"up", "given up"}
        assert running.keys() == up.keys()
        for name, (replicas, adapter, cost) in self.wanted.items():
            spec = roll.records[name].spec
            assert (len(roll.records[name].seats), spec.setup.adapter, spec.card.cost) == (replicas, adapter, cost)
        directory = self.supervisor.directory
        assert self.hold.directory is directory
        assert self.kept[-1] == roll.save()
        gone = {name for name, record in roll.records.items() if record.seats and not record.up}
        given, there = self.cluster.loaded - up.keys(), set(map(agent_of, up))
        for address, replica in running.items():
            name = agent_of(address)
            assert replica.spec is roll.records[name].spec, f"{address} serves another version"
            assert shown(replica.balance.directory) == shown(directory)
            assert (replica.down & roll.records.keys()) - {name} == gone - {name}
            assert not any(replica.balance.replaced(each) for each in up)
            for old in given:  # what one sends that was replaced is refused
                assert agent_of(old) not in there or replica.balance.replaced(old)


def shown(directory: Directory) -> tuple[Any, ...]:
    """What agents need of it: who is there, who may forward to whom, and who goes."""
    return directory.topology, directory.cards, directory.replicas, directory.leaving


def _twice(names: list[str]) -> set[str]:
    return {name for name in names if names.count(name) > 1}


def test_whatever_happens_who_is_wanted_is_there_in_the_end() -> None:
    run_state_machine_as_test(Supervised, settings=explored)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_whatever_happens_many_times_over() -> None:
    run_state_machine_as_test(Supervised, settings=settings(explored, max_examples=50_000))
