"""Who a client talks to about the mesh as a whole: its own supervisor, or that of a mesh already running."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from agents.spec import AgentSpec
from mesh.autoscale import autoscale
from mesh.config import MeshConfig
from mesh.directory import Directory
from mesh.members import Saved
from mesh.runtimes.base import Runtime
from mesh.supervisor import Supervisor, Trace
from mesh.versions import Version


class Control(Protocol):
    """A running mesh, seen by a client."""

    @property
    def runtime(self) -> Runtime: ...

    async def directory(self) -> Directory:
        """Who is in the mesh now."""
        ...

    async def add(self, spec: AgentSpec) -> Directory: ...

    async def remove(self, name: str, drain_s: float = 0.0) -> Directory: ...

    async def scale(self, name: str, replicas: int, drain_s: float = 0.0) -> Directory: ...

    async def upgrade(self, spec: AgentSpec, drain_s: float = 0.0) -> Directory: ...

    async def update(self, name: str, version: Version | None) -> None: ...

    async def status(self) -> list[dict[str, Any]]: ...

    async def close(self) -> None:
        """End what this client started."""
        ...


class OwnControl:
    """A mesh whose supervisor runs in this process, and which ends with it."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.runtime = supervisor.runtime
        self._supervisor = supervisor
        self._scaling: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Once it has started: scale the agents that want it."""
        self._scaling = asyncio.create_task(autoscale(self._supervisor))

    async def directory(self) -> Directory:
        return self._supervisor.directory

    async def add(self, spec: AgentSpec) -> Directory:
        return await self._supervisor.add(spec)

    async def remove(self, name: str, drain_s: float = 0.0) -> Directory:
        return await self._supervisor.remove(name, drain_s)

    async def scale(self, name: str, replicas: int, drain_s: float = 0.0) -> Directory:
        return await self._supervisor.scale(name, replicas, drain_s)

    async def upgrade(self, spec: AgentSpec, drain_s: float = 0.0) -> Directory:
        return await self._supervisor.upgrade(spec, drain_s)

    async def update(self, name: str, version: Version | None) -> None:
        await self._supervisor.update(name, version)

    async def status(self) -> list[dict[str, Any]]:
        return await self._supervisor.status()

    async def close(self) -> None:
        if self._scaling is not None:
            self._scaling.cancel()
        await self._supervisor.close()


async def open_control(config: MeshConfig, specs: Mapping[str, AgentSpec], trace: Trace) -> Control:
    """Start a mesh of one's own, on the runtime that ``config`` names.

    Raises:
        PlacementError, ConfigError: an agent cannot start.
    """
    supervisor = supervise(config, specs, open_runtime(config), trace)
    await supervisor.start()
    control = OwnControl(supervisor)
    control.watch()
    return control


def supervise(
    config: MeshConfig,
    specs: Mapping[str, AgentSpec],
    runtime: Runtime,
    trace: Trace,
    save: Callable[[Saved], None] | None = None,
) -> Supervisor:
    """A supervisor of what ``config`` wants, which it has not started yet."""
    topology, heartbeat_s = config.build_topology(), config.limits.heartbeat_s
    return Supervisor(specs, topology, runtime, heartbeat_s, trace=trace, save=save)


def open_runtime(config: MeshConfig) -> Runtime:
    """The runtime that ``config`` names, for a mesh that ends with this process."""
    if config.runtime == "local":
        from mesh.runtimes.local import LocalRuntime

        return LocalRuntime()
    from mesh.runtimes.ray import own_runtime

    return own_runtime(config)
