"""Who a client talks to about the mesh as a whole: its own supervisor, or that of a mesh already running."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from agents.spec import AgentSpec
from mesh.config import MeshConfig
from mesh.directory import Directory
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

    async def remove(self, name: str) -> Directory: ...

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

    async def directory(self) -> Directory:
        return self._supervisor.directory

    async def add(self, spec: AgentSpec) -> Directory:
        return await self._supervisor.add(spec)

    async def remove(self, name: str) -> Directory:
        return await self._supervisor.remove(name)

    async def update(self, name: str, version: Version | None) -> None:
        await self._supervisor.update(name, version)

    async def status(self) -> list[dict[str, Any]]:
        return await self._supervisor.status()

    async def close(self) -> None:
        await self._supervisor.close()


async def open_control(config: MeshConfig, specs: Mapping[str, AgentSpec], trace: Trace) -> Control:
    """Start a mesh of one's own, on the runtime that ``config`` names.

    Raises:
        PlacementError, ConfigError: an agent cannot start.
    """
    supervisor = Supervisor(
        specs, config.build_topology(), open_runtime(config), config.limits.heartbeat_s, trace=trace
    )
    await supervisor.start()
    return OwnControl(supervisor)


def open_runtime(config: MeshConfig) -> Runtime:
    """The runtime that ``config`` names, for a mesh that ends with this process."""
    if config.runtime == "local":
        from mesh.runtimes.local import LocalRuntime

        return LocalRuntime()
    from mesh.runtimes.ray import own_runtime

    return own_runtime(config)
