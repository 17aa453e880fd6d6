"""The Ray actor around a host, and how actors reach each other: by name, so that a restarted one is found again.

Queries and what comes back travel as MessagePack: Ray's own pickler took twenty times as long over them.

Nothing is retried or restarted by Ray (``max_task_retries=0``, ``max_restarts=0``): only we know what a query has
emitted already, and only the supervisor restarts.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Awaitable
from contextvars import Context
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from agents.errors import AgentDied, AgentStalled, EngineError, MeshError
from agents.host import Host
from agents.messages import Accepted, Card, Key, NodeEvent, Query, Rejected
from agents.node import Links
from agents.spec import AgentSpec, open_host, serve
from agents.wire import pack, read_query, read_routed

T = TypeVar("T")
NAMESPACE = "mesh"
PROBE_S = 5.0  # how long a simple question to an actor may take, at least: then it has stalled
CALLS = 20_000  # at once; the node's own queue is the bound that callers notice


def actor_name(mesh: str, agent: str) -> str:
    """The Ray name of an agent's actor."""
    return f"{mesh}/{agent}"


def call(actor: Any, method: str, *args: Any) -> Any:
    """``actor.method.remote(*args)``, but nobody's child: with a task of its own Ray cancels that task's children, also
    those that tell somebody of it, or on which others wait.
    """
    return Context().run(getattr(actor, method).remote, *args)


class RayTransport:
    """Reaches the agents of one mesh."""

    def __init__(self, mesh: str, stall_s: float = 30.0) -> None:
        self.mesh = mesh
        self.probe_s = max(PROBE_S, stall_s / 3)  # where engines are given long, the machine is likely to be slow
        self.handles: dict[str, Any] = {}

    async def route(self, agent: str, query: Query) -> Accepted | Rejected:
        """Have an agent route a query."""
        return read_routed(await self.reach(agent, call(self.handle(agent), "route", pack(query))))

    async def probe(self, agent: str, key: Key) -> bool:
        return await self.reach(agent, call(self.handle(agent), "probe", key), self.probe_s)

    async def cancel(self, agent: str, key: Key) -> None:
        await self.reach(agent, call(self.handle(agent), "cancel", key), self.probe_s)

    def handle(self, agent: str) -> Any:
        """The agent's actor. Raises AgentDied where there is none."""
        handle = self.handles.get(agent)
        if handle is None:
            try:
                handle = self.handles[agent] = ray.get_actor(actor_name(self.mesh, agent), namespace=NAMESPACE)
            except ValueError:
                raise AgentDied(agent, "there is no such actor") from None
        return handle

    async def reach(self, agent: str, call: Awaitable[T], within_s: float | None = None) -> T:
        """Await a call of an actor's method.

        Raises:
            AgentDied: its process is gone. AgentStalled: no answer within ``within_s``.
            MeshError: what the method itself raised; EngineError for what is none of ours.
        """
        try:
            if within_s is None:
                return await call
            async with asyncio.timeout(within_s):
                return await call
        except RayTaskError as error:  # first: it is also an instance of what it stands for
            if isinstance(error.cause, MeshError):
                raise error.cause from None
            raise EngineError(agent, repr(error.cause)) from error
        except RayError as error:
            self.handles.pop(agent, None)
            raise AgentDied(agent, type(error).__name__) from None
        except TimeoutError:
            raise AgentStalled(agent, f"no answer within {within_s} s") from None


class AgentActor:
    """One agent in a process of its own; made a Ray actor by the runtime. ``start`` must come first."""

    def __init__(self, spec: AgentSpec, mesh: str) -> None:
        self._spec, self._transport = spec, RayTransport(mesh, spec.settings.stall_s)
        self._host: Host | None = None

    async def start(self, links: Links) -> Card:
        """Load the engine. Raises ConfigError where it cannot start as configured."""
        self._host = await open_host(self._spec, links, self._transport)
        gc.collect()
        gc.freeze()  # what is loaded by now stays: no later collection needs to look at it
        return self._host.node.card

    async def route(self, query: bytes) -> bytes:
        return pack(await self.host.route(read_query(query)))

    async def probe(self, key: Key) -> bool:
        return await self.host.probe(key)

    async def cancel(self, key: Key) -> None:
        await self.host.cancel(key)

    async def tell(self, event: NodeEvent) -> None:
        self.host.step(event)

    async def healthy(self) -> bool:
        return await self.host.healthy()

    async def status(self) -> dict[str, Any]:
        place = ray.get_runtime_context()
        where = {"node": place.get_node_id(), "host": ray.util.get_node_ip_address()}
        where["gpus"] = place.get_accelerator_ids().get("GPU", [])
        return {"pid": os.getpid(), **where, **self.host.status()}

    async def serve(self, spec: AgentSpec) -> None:
        await serve(self.host, spec)

    async def close(self) -> None:
        """End the engine in good order; the actor itself is killed afterwards."""
        if self._host is not None:
            await self._host.close()

    async def lifetime(self) -> None:
        """Never returns: whoever awaits it learns at once that the actor has died."""
        await asyncio.Event().wait()

    @property
    def host(self) -> Host:
        """The host, once started."""
        if self._host is None:
            raise AgentDied(self._spec.name, "it has not started yet")
        return self._host
