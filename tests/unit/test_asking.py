"""An owner's messages in real time: nobody goes on with a query that its caller has given up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agents import messages as msg
from mesh.asking import ask
from mesh.owner import Owner
from tests.unit.test_owner import CARDS, QUERY


class Slow:
    """Tells of an acceptance when it is let."""

    def __init__(self) -> None:
        self.accepted = asyncio.Event()
        self.stopped: list[str] = []

    async def route(self, agent: str, query: msg.Query) -> msg.Accepted:
        await self.accepted.wait()
        return msg.Accepted(query.key, "b", ())

    async def cancel(self, agent: str, key: msg.Key) -> None:
        self.stopped.append(agent)


async def test_who_accepts_while_the_caller_cancels_is_stopped_too() -> None:
    runtime: Any = Slow()
    partings: set[asyncio.Task[None]] = set()
    asking = asyncio.create_task(ask(Owner(QUERY, ["a"], CARDS), runtime, lambda _: None, partings))
    await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.sleep(0.01)
    assert runtime.stopped == ["a"]  # nobody else is known to have it
    runtime.accepted.set()
    await asyncio.wait(set(partings), timeout=5)
    assert runtime.stopped == ["a", "b"]
    assert not partings
