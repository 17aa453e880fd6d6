"""The mesh as a server needs it: who is in it, and telling a path what became of a reply that another replica gave."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from msgspec import structs

from agents.messages import Query, Reply
from mesh.client import Mesh
from mesh.directory import Directory
from mesh.ingress.errors import Refused
from mesh.members import by_agent
from mesh.query import Asked
from mesh.spans import Spans
from mesh.tracing import Trace

_GOODBYE_S = 1.0  # how long a replica that ends waits until agents have heard that their work is not wanted
_FRESH_S = 0.5  # how old a status may be: every agent is asked for it


class ServedMesh(Mesh):
    """A ``Mesh`` with what only servers ask for."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._rows: list[dict[str, Any]] = []
        self._seen, self._looking = float("-inf"), asyncio.Lock()

    def export(self, spans: Spans) -> None:
        """Have ``spans`` made of what it is asked from now on."""
        self._trace = Trace(None, spans)

    async def members(self) -> Directory:
        """Who is in it, and who may forward to whom. Raises MeshClosed where it is down."""
        await self._up()
        return await asyncio.wrap_future(self._submit(self._running.directory))

    async def join(self, settings: Mapping[str, Any]) -> None:
        """``add_agent``, which goes on where its caller does not. Raises ConfigError, PlacementError, TopologyError."""
        spec = await asyncio.to_thread(self._spec, settings)
        await asyncio.shield(asyncio.wrap_future(self._submit(self._running.add, spec)))

    async def part(self, name: str) -> None:
        """``remove_agent``, likewise. Raises ConfigError for an unknown one, TopologyError for the last one."""
        await asyncio.shield(asyncio.wrap_future(self._submit(self._running.remove, name)))

    def _query(self, query: Asked, alpha: float | None, **options: Any) -> tuple[Query, str | None]:
        """What comes from another mesh tells through which it has come, and what the caller has seen of the answer."""
        meshes, continued = options.pop("meshes", ()), options.pop("continued", "")
        if self.config.name in meshes:
            told = "each is asked once, and meshes that name each other need different names (`mesh serve --name`)"
            raise Refused(400, "been_here", f"meshes: it has been through {self.config.name!r}: {told}", "meshes")
        checked, entry = super()._query(query, alpha, **options)
        return structs.replace(checked, meshes=meshes, emitted=continued), entry

    async def rows(self) -> list[dict[str, Any]]:
        """``status``, one row an agent, at most half a second old."""
        async with self._looking:
            if time.monotonic() - self._seen > _FRESH_S:
                self._rows = by_agent(await asyncio.wrap_future(self._submit(self._running.status)))
                self._seen = time.monotonic()
            return self._rows

    async def judge(self, reply: Reply, right: bool) -> None:
        """Tell those on a reply's path that learn whether it was right."""
        running = self._running
        self._trace("feedback", id=reply.id, right=right)
        await asyncio.wrap_future(self._submit(self._tell_path, running, reply, right))

    def _remember(self, reply: Reply) -> None:
        """Only into the trace: feedback finds replies in the ledger, where no text is."""
        self._trace("answered", reply)


class ReplicaMesh(ServedMesh):
    """One on Ray that asks in its caller's own event loop: with a thread between them, each piece of each answer would
    wait until the interpreter changes over. All calls come from one loop.
    """

    async def aask(self, query: Asked, alpha: float | None = None, **options: Any) -> Reply:
        """As ``Mesh.aask``."""
        return await self._ask(*await self._begun(query, alpha, **options))

    async def astream(self, query: Asked, alpha: float | None = None, **options: Any) -> AsyncGenerator[str | Reply]:
        """The text as it comes, then the reply; closing it stops the generation."""
        checked = await self._begun(query, alpha, **options)
        pieces: asyncio.Queue[str | Reply | None] = asyncio.Queue()

        async def pump() -> None:
            try:
                pieces.put_nowait(await self._ask(*checked, pieces.put_nowait))
            finally:
                pieces.put_nowait(None)

        ended = asyncio.create_task(pump())
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            await ended
        finally:
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)

    async def members(self) -> Directory:
        await self._up()
        return await self._running.directory()

    async def leave(self) -> None:
        """``close``, once those who were left have heard so."""
        if self._partings:
            await asyncio.wait(self._partings, timeout=_GOODBYE_S)
        self._partings.clear()
        await asyncio.to_thread(self.close)
