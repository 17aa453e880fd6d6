"""A replica's mesh asks in its caller's event loop; here the agents live there too."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agents.errors import NoAgentLeft, QueryError
from agents.messages import Reply
from mesh.assemble import agent_specs
from mesh.config import load
from mesh.control import Control, open_control
from mesh.ingress.served import ReplicaMesh
from tests.serving import WORDS, pool


class Held:
    """A client's hold on a mesh that somebody else ends."""

    def __init__(self, control: Control) -> None:
        self.runtime, self.directory, self.status = control.runtime, control.directory, control.status

    async def close(self) -> None:
        """Nothing."""


@contextlib.asynccontextmanager
async def opened(**engine: Any) -> AsyncIterator[ReplicaMesh]:
    config = load(pool({"only": {"answer": WORDS, **engine}}, max_attempts=1))
    control = await open_control(config, agent_specs(config), lambda event, *about, **fields: None)
    held: Any = Held(control)

    async def hold() -> Control:
        return held  # type: ignore[no-any-return]

    mesh = ReplicaMesh(config, control=hold)
    try:
        yield mesh
        await mesh.leave()
    finally:
        await control.close()


async def runs(mesh: ReplicaMesh, drafts: int) -> bool:
    """Whether the engine comes to work on so many."""
    for _ in range(500):
        (row,) = await mesh._running.status()
        if row["engine_running"] == drafts:
            return True
        await asyncio.sleep(0.01)
    return False


async def test_pieces_then_the_reply() -> None:
    async with opened(pieces=10) as mesh:
        *pieces, reply = [piece async for piece in mesh.astream("count")]
        assert isinstance(reply, Reply)
        assert ("".join(map(str, pieces)), reply.text) == (WORDS, WORDS)
        assert (await mesh.aask("count", 0.3)).text == WORDS
        assert list((await mesh.members()).cards) == ["only"]


async def test_no_thread_stands_between() -> None:
    async with opened(pieces=2) as mesh:
        seen = set[int]()
        remember = mesh._remember

        def remembered(reply: Reply) -> None:
            seen.add(threading.get_ident())
            remember(reply)

        mesh._remember = remembered  # type: ignore[method-assign]
        await mesh.aask("count")
        assert seen == {threading.get_ident()}


async def test_who_goes_away_stops_the_generation() -> None:
    async with opened(pieces=10, piece_s=30.0) as mesh:
        stream = mesh.astream("count")
        assert await anext(stream) == "one t"
        assert await runs(mesh, 1)
        await stream.aclose()
        assert await runs(mesh, 0)
        asked = asyncio.create_task(mesh.aask("count"))
        assert await runs(mesh, 1)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert await runs(mesh, 0)


async def test_what_goes_wrong_is_raised_after_what_came() -> None:
    async with opened(pieces=4, fail=1.0) as mesh:
        seen = []
        with pytest.raises(NoAgentLeft):  # noqa: PT012
            async for piece in mesh.astream("count"):
                seen.append(piece)
        assert "".join(seen) in WORDS
        with pytest.raises(NoAgentLeft):
            await mesh.aask("count")
        with pytest.raises(QueryError, match="unknown agent"):
            await anext(mesh.astream("count", entry="nobody"))
