"""How many replicas an agent is to have: by its load, slowly, and never to and fro."""

from __future__ import annotations

import asyncio
import random
import time
from types import SimpleNamespace
from typing import Any

import pytest

import mesh
from agents.errors import ConfigError
from mesh.autoscale import Autoscale, Pressure, _wanted, wanted
from mesh.config import load
from tests.pools import pool

RULES = Autoscale(least=1, most=4, busy=0.8, up_after_s=3.0, down_after_s=60.0)


def after(seconds: float, replicas: int, in_hand: int, places: int = 10) -> int:
    """What is wanted once it has been so for that long."""
    pressure = Pressure()
    wanted(RULES, replicas, in_hand, places, pressure, 100.0)
    return wanted(RULES, replicas, in_hand, places, pressure, 100.0 + seconds)


@pytest.mark.parametrize(
    ("seconds", "replicas", "in_hand", "number"),
    [
        (2.9, 1, 30, 1),  # it may pass
        (3.0, 1, 9, 2),
        (3.0, 1, 30, 4),  # at once as many as it takes
        (3.0, 2, 500, 4),  # but no more than allowed
        (3.0, 2, 16, 2),  # .8 of the places: that is meant
        (59.0, 3, 0, 3),
        (60.0, 3, 0, 2),  # one at a time
        (60.0, 3, 8, 3),  # with one less it would be at .4: half of what is meant
        (60.0, 3, 7, 2),
        (60.0, 1, 0, 1),
    ],
)
def test_what_is_wanted(seconds: float, replicas: int, in_hand: int, number: int) -> None:
    assert after(seconds, replicas, in_hand) == number


def test_it_goes_down_one_at_a_time() -> None:
    pressure, replicas, seen = Pressure(), 4, []
    for second in range(200):
        replicas = wanted(RULES, replicas, 0, 10, pressure, float(second))
        seen.append(replicas)
    assert [seen.count(number) for number in (4, 3, 2, 1)] == [60, 60, 60, 20]


def test_a_load_that_stays_settles() -> None:
    """Whatever it is: no number leads to another one, and back."""
    for in_hand in range(60):
        pressure, replicas, changes = Pressure(), random.Random(in_hand).randint(1, 4), 0
        for second in range(600):
            number = wanted(RULES, replicas, in_hand, 10, pressure, float(second))
            changes += number != replicas and second > 300
            replicas = number
        assert changes == 0


def test_settings_that_are_wrong_are_told() -> None:
    with pytest.raises(ConfigError, match=r"autoscale.*most"):
        load(pool(defaults={"engine": "scripted", "autoscale": {"least": 1}}))


@pytest.fixture
def crowded() -> dict[str, Any]:
    settings = pool(agents=2, engine={"refuse": 0.0, "delay_s": 0.5})
    settings["limits"] = {"running": 2, "waiting": 50, "heartbeat_s": 0.05}
    settings["agents"][0]["autoscale"] = {"most": 3, "up_after_s": 0.1, "down_after_s": 0.1}
    return settings


async def test_an_agent_grows_with_its_queue_and_shrinks_again(crowded: dict[str, Any]) -> None:
    with mesh.Mesh.from_yaml(crowded) as asked:

        def replicas() -> int:
            return sum(row["agent"] == "a0" and row["state"] == "up" for row in asked.status())

        waiting = [asked.submit(f"question {number}") for number in range(40)]
        seen = {await asyncio.to_thread(replicas)}
        while not all(each.done() for each in waiting):
            seen.add(await asyncio.to_thread(replicas))
            await asyncio.sleep(0.02)
        assert max(seen) == 3
        assert {each.result().agent for each in waiting} == {"a0"}
        async with asyncio.timeout(20):
            while await asyncio.to_thread(replicas) > 1:  # noqa: ASYNC110  # nothing tells
                await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("states", "number"),
    [
        (["up"], 3),
        (["up", "given up"], 4),  # one that is kept out neither helps nor stands in the way
        (["up", "starting"], 2),  # see first what that one does
        (["given up"], 1),
    ],
)
async def test_a_replica_that_is_kept_out_is_none(states: list[str], number: int) -> None:
    seats = [SimpleNamespace(state=state, address=f"a#{place}") for place, state in enumerate(states)]
    up = [seat.address for seat in seats if seat.state == "up"]
    spec = SimpleNamespace(autoscale=RULES, settings=SimpleNamespace(running=10))
    record = SimpleNamespace(seats=seats, up=up, spec=spec)

    async def status(address: str) -> dict[str, int]:
        return {"drafting": 10, "queued": 10}

    supervisor: Any = SimpleNamespace(
        roll=SimpleNamespace(records={"a": record}), runtime=SimpleNamespace(status=status)
    )
    assert await _wanted(supervisor, "a", (), Pressure(high=time.monotonic() - 10)) == number


async def test_an_agent_that_may_sleep_is_woken_by_being_asked() -> None:
    """Whoever asks meanwhile is answered by others."""
    settings = pool(agents=2, engine={"refuse": 1.0}, limits={"heartbeat_s": 0.05, "tick_s": 0.02})
    settings["agents"][1]["autoscale"] = {"least": 0, "most": 2, "down_after_s": 0.1}
    settings["agents"][1]["engine"] = {"refuse": 0.0, "answer": "from a1"}
    with mesh.Mesh.from_yaml(settings) as asked:

        def state() -> str:
            return next(row["state"] for row in asked.status() if row["agent"] == "a1")

        async def is_(wanted: str) -> None:
            async with asyncio.timeout(20):
                while await asyncio.to_thread(state) != wanted:  # noqa: ASYNC110  # nothing tells
                    await asyncio.sleep(0.02)

        await is_("asleep")
        assert (await asked.aask("who?")).agent == "a0"
        async with asyncio.timeout(20):
            while (await asked.aask("who?")).text != "from a1":
                pass
        await is_("up")
        await is_("asleep")
