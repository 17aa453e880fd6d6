"""Members of a mesh come, go and change, in one process: what is told to whom, and what a successor takes over."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.errors import AdapterError, AgentDied, ConfigError, PlacementError
from agents.spec import AgentSpec
from mesh import Mesh, Reply
from mesh.assemble import agent_specs
from mesh.config import load
from mesh.members import Saved, Seat, by_agent
from mesh.restarts import Rules
from mesh.runtimes.local import LocalRuntime
from mesh.supervisor import Supervisor
from mesh.versions import Version
from tests.pools import pool

SLOW = {"refuse": 0.0, "pieces": 8, "piece_s": 0.05}


class Crowded(LocalRuntime):
    """A runtime with so many places."""

    places = 3

    async def launch(self, address: str, spec: AgentSpec, directory: Any, waits: Any = None) -> Any:
        if len(self._hosts) >= self.places:
            raise PlacementError(f"agent {spec.name!r} waits for 1 place")
        return await super().launch(address, spec, directory, waits)


class Doomed(LocalRuntime):
    """A runtime that loses replicas while they start, as many as told."""

    lost = 0

    async def launch(self, address: str, spec: AgentSpec, directory: Any, waits: Any = None) -> Any:
        card = await super().launch(address, spec, directory, waits)
        if self.lost:
            self.lost -= 1
            await self.kill(address)
            raise AgentDied(address, "with its machine")
        return card


def supervisor(agents: int = 2, runtime: LocalRuntime | None = None, **options: Any) -> Supervisor:
    config = load(pool(agents=agents, engine={"refuse": 0.0}))
    quick = {"heartbeat_s": 0.05, "rules": Rules(first_s=0.02, deaths=3)}
    return Supervisor(agent_specs(config), config.build_topology(), runtime or LocalRuntime(), **quick | options)


async def until(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.01)


@pytest.fixture
def slow_mesh() -> Iterator[Mesh]:
    with Mesh.from_yaml(pool(agents=2, engine=SLOW, limits={"tick_s": 0.02})) as mesh:
        yield mesh


# ---------------------------------------------------------------------------------- changes


@pytest.mark.parametrize(
    "change",
    [
        lambda mesh: mesh.remove_agent("a0", 20.0),
        lambda mesh: mesh.remove_agent("a0"),
        lambda mesh: mesh.upgrade_agent({"name": "a0", "cost": 0.1, "engine": "scripted"}, 20.0),
        lambda mesh: mesh.scale_agent("a0", 1),
    ],
    ids=["drain", "remove", "upgrade", "scale"],
)
def test_no_query_fails_because_of_a_change(slow_mesh: Mesh, change: Callable[[Mesh], None]) -> None:
    slow_mesh.scale_agent("a0", 2)
    asked = [slow_mesh.submit(f"before {number}") for number in range(8)]
    changing = threading.Thread(target=change, args=(slow_mesh,))
    changing.start()
    asked += [slow_mesh.submit(f"meanwhile {number}") for number in range(8)]
    replies = [each.result(20) for each in asked]
    changing.join(20)
    assert all(isinstance(reply, Reply) for reply in replies)
    for reply in replies:
        answers = reply.text.split(" answers: ")
        assert len(answers) == 2  # one answer: nothing of it twice


async def test_a_drained_agent_ends_its_queries_itself() -> None:
    def drained() -> list[Reply]:
        with Mesh.from_yaml(pool(agents=2, engine=SLOW, limits={"tick_s": 0.02})) as mesh:
            asked = [mesh.submit(f"before {number}") for number in range(4)]
            while mesh.status()[0]["drafting"] < 4:
                pass
            mesh.remove_agent("a0", 20.0)
            assert [row["agent"] for row in mesh.status()] == ["a1"]
            return [each.result(0.5) for each in asked]

    for reply in await asyncio.to_thread(drained):
        assert (reply.agent, reply.attempts) == ("a0", 1)


async def test_addresses_are_never_given_twice() -> None:
    world = supervisor()
    await world.start()
    await world.scale("a0", 3)
    await world.scale("a0", 1)
    spec = world.roll.records["a0"].spec
    await world.remove("a0")
    await world.add(replace(spec, replicas=2))
    assert world.directory.replicas["a0"] == ("a0#4", "a0#5")
    await world.upgrade(spec)
    assert world.directory.replicas["a0"] == ("a0#6", "a0#7")
    assert world.directory.leaving == frozenset()
    assert world.runtime.addresses("a0") == ["a0#6", "a0#7"]  # type: ignore[attr-defined]
    await world.close()


async def test_an_upgrade_may_change_the_price_and_the_topology_follows() -> None:
    world = supervisor(agents=3)
    await world.start()
    assert world.directory.entries() == ("a0", "a1", "a2")
    config = load(pool(agents=3))
    dearer = agent_specs(load({**pool(agents=3), "agents": [{"name": "a0", "cost": 1.0}]}))["a0"]
    await world.upgrade(dearer)
    assert world.directory.entries() == ("a1", "a2", "a0")
    assert world.directory.cards["a0"].cost == 1.0
    with pytest.raises(ConfigError, match="unknown agent 'x'"):
        await world.upgrade(agent_specs(load({**pool(), "agents": [{"name": "x", "cost": 1.0}]}))["x"])
    assert {agent.name for agent in config.agents} == world.roll.records.keys()
    await world.close()


async def test_an_upgrade_that_fails_publishes_no_price() -> None:
    world = supervisor(runtime=Crowded())  # of 3 places 2 are taken, and both replicas need one
    await world.start()
    await world.scale("a0", 1)
    world.roll.records["a0"].seats.append(Seat("a0", state="given up"))
    config = {**pool(agents=2), "agents": [{"name": "a0", "cost": 1.0}]}
    with pytest.raises(PlacementError):
        await world.upgrade(agent_specs(load(config))["a0"])
    world._know()
    assert world.directory.cards["a0"].cost == 0.1
    await world.close()


# ---------------------------------------------------------------------------------- places


async def test_who_finds_no_place_waits_and_is_no_crash_loop() -> None:
    world = supervisor(runtime=Crowded())
    await world.start()
    await world.scale("a0", 4)
    rows = [row for row in await world.status() if row["agent"] == "a0"]
    assert [row["state"] for row in rows].count("waiting") == 2
    assert {row["why"] for row in rows if row["state"] == "waiting"} == {"agent 'a0' waits for 1 place"}
    await asyncio.sleep(0.3)
    assert all(row["deaths"] == 0 for row in await world.status())
    world.runtime.places = 5  # type: ignore[attr-defined]
    await until(lambda: len(world.directory.replicas["a0"]) == 4)
    await world.close()


async def test_a_mesh_that_finds_no_place_for_all_does_not_start() -> None:
    world = supervisor(agents=4, runtime=Crowded())
    with pytest.raises(PlacementError):
        await world.start()
    assert world.runtime.addresses("a0") == []  # type: ignore[attr-defined]


# ---------------------------------------------------------------------------------- several things at once


class Picky(LocalRuntime):
    """A runtime whose replicas may take no new version, or die of it; and lose what they are told."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses: set[str] = set()
        self.dies: set[str] = set()
        self.deaf: set[str] = set()
        self.loading, self.serving = asyncio.Event(), asyncio.Event()
        self.loading.set()
        self.serving.set()

    async def launch(self, address: str, spec: AgentSpec, directory: Any, waits: Any = None) -> Any:
        card = await super().launch(address, spec, directory, waits)
        await self.loading.wait()
        return card

    async def serve(self, address: str, spec: AgentSpec) -> None:
        if spec.setup.adapter:
            if address in self.refuses:
                raise AdapterError("it does not fit")
            if address in self.dies:
                await self.kill(address)
        await self.serving.wait()
        await super().serve(address, spec)

    async def tell(self, agent: str, event: Any) -> None:
        if agent in self.deaf:
            raise AgentDied(agent)
        await super().tell(agent, event)

    def served(self) -> dict[str, Any]:
        """The adapter of everybody."""
        return {address: host.status()["adapter"] for address, host in sorted(self._hosts.items())}


NEW = Version(Path("/new"))


@pytest.mark.parametrize("lost", [1, 2])
async def test_a_change_outlives_the_machine_on_which_it_began(lost: int) -> None:
    """One, that is; with the second it is refused, and nothing has changed."""
    world = supervisor(runtime=Doomed())
    await world.start()
    before, spec = world.directory, world.roll.records["a0"].spec
    world.runtime.lost = lost  # type: ignore[attr-defined]
    try:
        if lost == 1:
            assert (await world.upgrade(spec)).replicas["a0"] != before.replicas["a0"]
        else:
            with pytest.raises(AgentDied, match="with its machine"):
                await world.upgrade(spec)
            assert world.directory == before
        assert {row["state"] for row in await world.status()} == {"up"}
        assert len(world.runtime._hosts) == 2  # type: ignore[attr-defined]
    finally:
        await world.close()


async def test_who_is_scaled_away_before_it_is_up_is_waited_for_no_more() -> None:
    world = supervisor(runtime=Picky())
    await world.start()
    world.runtime.loading.clear()  # type: ignore[attr-defined]
    more = asyncio.create_task(world.scale("a0", 2))
    await until(lambda: len(world.roll.records["a0"].seats) == 2)
    await world.scale("a0", 1)
    await asyncio.wait_for(more, 5)
    assert world.directory.replicas["a0"] == ("a0#1",)
    await world.close()


async def test_a_replica_that_dies_of_an_update_comes_back_with_it() -> None:
    world = supervisor(runtime=(runtime := Picky()))
    await world.start()
    await world.scale("a0", 3)
    runtime.dies = {"a0#2"}
    await world.update("a0", NEW)
    await until(lambda: "a0#4" in world.directory.replicas["a0"])
    assert runtime.served() == {"a0#1": "/new", "a0#3": "/new", "a0#4": "/new", "a1#1": ""}
    await world.close()


async def test_an_update_that_does_not_fit_one_replica_changes_none() -> None:
    world = supervisor(runtime=(runtime := Picky()))
    await world.start()
    await world.scale("a0", 2)
    runtime.refuses = {"a0#2"}
    with pytest.raises(AdapterError):
        await world.update("a0", NEW)
    assert set(runtime.served().values()) == {""}
    await world.close()


async def test_who_comes_up_during_an_update_serves_the_new_version_too() -> None:
    world = supervisor(runtime=(runtime := Picky()))
    await world.start()
    runtime.loading.clear()
    more = asyncio.create_task(world.scale("a0", 2))
    await until(lambda: "a0#2" in runtime.addresses("a0"))
    runtime.serving.clear()
    update = asyncio.create_task(world.update("a0", NEW))
    await asyncio.sleep(0)  # it has begun with a0#1
    runtime.loading.set()
    await more
    runtime.serving.set()
    await update
    assert runtime.served() == {"a0#1": "/new", "a0#2": "/new", "a1#1": ""}
    await world.close()


async def test_one_that_cannot_serve_what_is_wanted_by_then_does_not_stay() -> None:
    world = supervisor(runtime=(runtime := Picky()))
    await world.start()
    runtime.loading.clear()
    runtime.refuses = {"a0#2"}
    more = asyncio.create_task(world.scale("a0", 2))
    await until(lambda: "a0#2" in runtime.addresses("a0"))
    await world.update("a0", NEW)
    runtime.loading.set()
    await more
    await until(lambda: world.directory.replicas["a0"] == ("a0#1", "a0#3"))
    assert runtime.addresses("a0") == ["a0#1", "a0#3"]
    await world.close()


async def test_news_that_did_not_reach_somebody_are_told_again() -> None:
    world = supervisor(runtime=(runtime := Picky()))
    await world.start()
    runtime.deaf = {"a1#1"}
    await world.remove("a0")
    assert "a0" in runtime._host("a1#1").node.links.cards
    runtime.deaf.clear()
    await until(lambda: "a0" not in runtime._host("a1#1").node.links.cards)
    await world.close()


async def test_once_it_has_ended_what_one_sent_last_is_refused() -> None:
    world = supervisor(runtime=(runtime := Picky()))
    await world.start()
    await world.upgrade(world.roll.records["a0"].spec)
    links = runtime._host("a1#1").node.links
    assert (links.replicas["a0"], links.leaving) == (("a0#2",), frozenset())  # type: ignore[attr-defined]
    await world.close()


async def test_nobody_takes_one_that_sleeps_for_dead() -> None:
    world = supervisor(agents=3, runtime=(runtime := Picky()))
    await world.start()
    runtime.loading.clear()
    await runtime.kill("a0")
    await until(lambda: "a0" in runtime._host("a1#1").node.down)
    await world.scale("a0", 0)  # while it is down
    runtime.loading.set()
    assert "a0" not in runtime._host("a1#1").node.down
    await runtime.kill("a2")
    await until(lambda: world.directory.replicas["a2"] == ("a2#2",))
    assert runtime._host("a2#2").node.down == frozenset()  # nor does who comes later
    await world.close()


# ---------------------------------------------------------------------------------- a supervisor's successor


async def test_a_successor_takes_over_what_is_there_and_starts_what_is_not() -> None:
    runtime, kept = LocalRuntime(), list[Saved]()
    first = supervisor(agents=3, runtime=runtime, save=kept.append)
    await first.start()
    await first.scale("a1", 2)
    await first.remove("a2")
    for seat in first.roll.seats():  # it dies: nobody looks after them any more
        assert seat.keeper is not None
        seat.keeper.cancel()
    await runtime.kill("a1#1")

    second = supervisor(agents=3, runtime=runtime)
    await second.resume(kept[-1])
    assert second.directory.replicas["a0"] == ("a0#1",)
    await until(lambda: second.directory.replicas["a1"] == ("a1#3", "a1#2") or len(second.roll.records["a1"].up) == 2)
    assert set(second.directory.replicas["a1"]) == {"a1#2", "a1#3"}
    assert second.directory.entries() == ("a0", "a1")
    await second.close()


async def test_a_successor_tells_of_those_whom_it_found_dead() -> None:
    runtime, kept = Picky(), list[Saved]()
    first = supervisor(runtime=runtime, save=kept.append)
    await first.start()
    for seat in first.roll.seats():
        assert seat.keeper is not None
        seat.keeper.cancel()
    await runtime.kill("a0#1")
    runtime.loading.clear()
    second = supervisor(runtime=runtime)
    await second.resume(kept[-1])
    assert runtime._host("a1#1").node.down == {"a0"}
    runtime.loading.set()
    await until(lambda: not runtime._host("a1#1").node.down)
    await second.close()


async def test_a_successor_ends_an_update_that_half_of_the_replicas_took() -> None:
    runtime, kept = Picky(), list[Saved]()
    first = supervisor(runtime=runtime, save=kept.append)
    await first.start()
    await first.scale("a0", 2)
    await first.update("a0", NEW)
    died = next(saved for saved in kept if saved.updating)  # what was kept while it went on
    await super(Picky, runtime).serve("a0#2", died.agents["a0"][0])  # as it was when the first died
    assert runtime.served() == {"a0#1": "/new", "a0#2": "", "a1#1": ""}
    second = supervisor(runtime=runtime)
    await second.resume(died)
    assert runtime.served() == {"a0#1": "", "a0#2": "", "a1#1": ""}
    await first.close()
    await second.close()


def test_what_is_told_of_an_agent_as_a_whole() -> None:
    rows: list[dict[str, Any]] = [
        {"agent": "a", "state": "down", "cost": 0.1, "deaths": 2},
        {"agent": "a", "state": "up", "cost": 0.1, "deaths": 1, "in_hand": 3, "drafting": 2},
        {"agent": "a", "state": "up", "cost": 0.1, "deaths": 0, "in_hand": 4, "drafting": 4},
        {"agent": "b", "state": "asleep", "cost": 0.2},
    ]
    assert by_agent(rows) == [
        {"agent": "a", "state": "up", "cost": 0.1, "deaths": 3, "in_hand": 7, "drafting": 6, "replicas": 2},
        {"agent": "b", "state": "asleep", "cost": 0.2, "replicas": 0},
    ]
