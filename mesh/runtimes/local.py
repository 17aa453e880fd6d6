"""Every agent in this process, on one asyncio loop: for small pools, for tests, and to see what Ray adds."""

from __future__ import annotations

import logging
import os
from typing import Any

from agents.errors import AgentDied
from agents.host import Host
from agents.messages import Accepted, Batch, Card, Key, NodeEvent, Query, Rejected
from agents.spec import AgentSpec, open_host, serve
from mesh.directory import NOBODY, Directory

log = logging.getLogger(__name__)


class LocalRuntime:
    """A runtime without processes; ``kill`` makes an agent fall silent as a dead process does."""

    def __init__(self) -> None:
        self._hosts: dict[str, Host] = {}

    async def launch(self, spec: AgentSpec, directory: Directory | None) -> Card:
        host = await open_host(spec, directory or NOBODY, self)
        self._hosts[spec.name] = host
        return host.node.card

    async def kill(self, agent: str) -> None:
        host = self._hosts.pop(agent, None)
        if host is not None:
            try:
                await host.close()
            except Exception as error:  # it must not keep others from being ended, nor its successor from starting
                log.warning("the engine of %s did not close: %r", agent, error)

    async def tell(self, agent: str, event: NodeEvent) -> None:
        self._host(agent).step(event)

    async def route(self, agent: str, query: Query) -> Accepted | Rejected:
        return await self._host(agent).route(query)

    async def pull(self, agent: str, key: Key, cursor: int, wait_s: float) -> Batch | Rejected:
        return await self._host(agent).pull(key, cursor, wait_s)

    async def probe(self, agent: str, key: Key) -> bool:
        return await self._host(agent).probe(key)

    async def cancel(self, agent: str, key: Key) -> None:
        await self._host(agent).cancel(key)

    async def watch(self, agent: str) -> None:
        if agent in self._hosts:
            await self._hosts[agent].dead.wait()

    async def healthy(self, agent: str) -> bool:
        return await self._host(agent).healthy()

    async def status(self, agent: str) -> dict[str, Any]:
        return {"pid": os.getpid(), "gpus": [], **self._host(agent).status()}

    async def serve(self, spec: AgentSpec) -> None:
        await serve(self._host(spec.name), spec)

    async def close(self) -> None:
        for agent in list(self._hosts):
            await self.kill(agent)

    def _host(self, agent: str) -> Host:
        if agent not in self._hosts:
            raise AgentDied(agent)
        return self._hosts[agent]
