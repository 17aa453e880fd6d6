"""Tells the replicas of a mesh what has changed, and again whom it did not reach."""

from __future__ import annotations

import asyncio
import logging

from agents.errors import AgentError
from agents.messages import NodeEvent, PeerDown, PeerUp, Rewired
from mesh.directory import Directory
from mesh.members import Roll
from mesh.runtimes.base import Runtime

log = logging.getLogger(__name__)


class News:
    """``missed`` are the addresses of those who were told something that did not reach them."""

    def __init__(self, runtime: Runtime, roll: Roll) -> None:
        self._runtime, self._roll = runtime, roll
        self.missed: set[str] = set()

    async def tell_all(self, event: NodeEvent) -> None:
        """Everybody who is up."""
        await asyncio.gather(*(self.tell(seat.address, event) for seat in self._roll.seats() if seat.state == "up"))

    async def teach(self, address: str, directory: Directory) -> None:
        """Tell a replica how things are now. One that sleeps is not down: else nobody would wake it."""
        self.missed.discard(address)
        records = self._roll.records
        gone = {name for name, record in records.items() if record.seats and not record.up}
        peers = [PeerDown(name) if name in gone else PeerUp(name) for name in records]
        await asyncio.gather(*(self.tell(address, event) for event in (Rewired(directory), *peers)))

    async def tell(self, address: str, event: NodeEvent) -> None:
        """One of them."""
        try:
            await self._runtime.tell(address, event)
        except AgentError as error:
            self.missed.add(address)
            log.debug("%s was not told %s: %s", address, type(event).__name__, error)
