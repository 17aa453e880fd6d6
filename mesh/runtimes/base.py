"""What a mesh needs of the place it runs in."""

from __future__ import annotations

from typing import Any, Protocol

from agents.host import Transport
from agents.messages import Batch, Card, Key, NodeEvent, Rejected
from agents.spec import AgentSpec
from mesh.directory import Directory


class Runtime(Transport, Protocol):
    """Launches agents and reaches them. Reaching one that is gone raises AgentDied."""

    async def launch(self, spec: AgentSpec, directory: Directory | None) -> Card:
        """Start an agent and wait until it can answer; it takes the place of an earlier one of its name.

        Raises:
            PlacementError: the cluster has no room for it.
            ConfigError: its engine cannot start as configured.
        """
        ...

    async def kill(self, agent: str) -> None:
        """End an agent at once; unknown ones are ignored."""
        ...

    async def tell(self, agent: str, event: NodeEvent) -> None:
        """Give an agent's node an event."""
        ...

    async def pull(self, agent: str, key: Key, cursor: int, wait_s: float) -> Batch | Rejected:
        """The next pieces of an answer; AgentStalled where not even an empty batch comes."""
        ...

    async def watch(self, agent: str) -> None:
        """Return when the agent is gone."""
        ...

    async def healthy(self, agent: str) -> bool:
        """Whether the agent answers at all, and its engine can still generate."""
        ...

    async def status(self, agent: str) -> dict[str, Any]:
        """Facts about an agent."""
        ...

    async def serve(self, spec: AgentSpec) -> None:
        """Have the agent serve this adapter, assessor and prompt from its next draft on."""
        ...

    async def close(self) -> None:
        """End every agent that this runtime launched."""
        ...
