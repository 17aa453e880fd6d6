"""Every agent in this process, on one asyncio loop: for small pools, for tests, and to see what Ray adds."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from agents.errors import AgentDied
from agents.host import Host
from agents.messages import Accepted, Batch, Card, Key, NodeEvent, Query, Rejected
from agents.names import agent_of
from agents.spec import AgentSpec, open_host, serve
from mesh.directory import NOBODY, Directory
from mesh.replicas import Replicated

log = logging.getLogger(__name__)


class LocalRuntime(Replicated):
    """A runtime without processes; ``kill`` makes an agent fall silent as a dead process does."""

    def __init__(self) -> None:
        super().__init__()
        self._hosts: dict[str, Host] = {}
        self._leaving: set[str] = set()

    async def launch(
        self, address: str, spec: AgentSpec, directory: Directory | None, waits: Callable[[str], None] | None = None
    ) -> Card:
        host = await open_host(spec, directory or NOBODY, self)
        self._hosts[address] = host
        return host.node.card

    async def kill(self, agent: str) -> None:
        for address in self.addresses(agent):
            self._leaving.discard(address)
            try:
                await self._hosts.pop(address).close()
            except Exception as error:  # it must not keep others from being ended, nor its successor from starting
                log.warning("the engine of %s did not close: %r", address, error)

    async def leave(self, address: str) -> int:
        self._leaving.add(address)
        return len(self._host(address).node.turns)

    async def missed(self, address: str | None = None) -> set[str]:
        return self.take_missed()  # all share it

    async def tell(self, agent: str, event: NodeEvent) -> None:
        for address in self.balance.replicas(agent):
            self._host(address).step(event)

    async def send(self, address: str, query: Query) -> tuple[int, Accepted | Rejected]:
        host, name = self._host(address), agent_of(address)
        result = Rejected(query.key, name, "leaving") if address in self._leaving else await host.route(query)
        return len(host.node.running) + len(host.node.queue), result

    async def pull(self, address: str, key: Key, cursor: int, wait_s: float) -> Batch | Rejected:
        return await self._host(address).pull(key, cursor, wait_s)

    async def ask_whether(self, address: str, key: Key) -> bool:
        return await self._host(address).probe(key)

    async def give_up(self, address: str, key: Key) -> None:
        await self._host(address).cancel(key)

    async def watch(self, address: str) -> None:
        if address in self._hosts:
            await self._hosts[address].dead.wait()

    async def healthy(self, address: str) -> bool:
        return await self._host(address).healthy()

    async def status(self, address: str) -> dict[str, Any]:
        return {"pid": os.getpid(), "gpus": [], **self._host(address).status()}

    async def serve(self, address: str, spec: AgentSpec) -> None:
        await serve(self._host(address), spec)

    async def close(self) -> None:
        for address in list(self._hosts):
            await self.kill(address)

    def addresses(self, agent: str) -> list[str]:
        """What runs of an agent, or at an address."""
        return [each for each in self._hosts if agent in (each, agent_of(each))]

    def _host(self, address: str) -> Host:
        if address not in self._hosts:
            raise AgentDied(address)
        return self._hosts[address]
