"""What a mesh needs of the place it runs in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from agents.host import Transport
from agents.messages import Batch, Card, Key, NodeEvent, Rejected
from agents.spec import AgentSpec
from mesh.directory import Directory


class Runtime(Transport, Protocol):
    """Launches replicas of agents and reaches them by address (see ``mesh.replicas``), agents by name through one of
    their replicas. Reaching what is gone raises AgentDied.
    """

    async def launch(
        self, address: str, spec: AgentSpec, directory: Directory | None, waits: Callable[[str], None] | None = None
    ) -> Card:
        """Start a replica and wait until it can answer; ``waits`` is told what for while there is no place for it.

        Raises:
            PlacementError: the cluster has no room for it.
            ConfigError: its engine cannot start as configured.
        """
        ...

    async def kill(self, agent: str) -> None:
        """End a replica, or all of an agent, at once; unknown ones are ignored."""
        ...

    async def leave(self, address: str) -> int:
        """Have a replica take nothing new; how many queries it has not ended yet. Callers ask another."""
        ...

    async def missed(self, address: str | None = None) -> set[str]:
        """Agents that this replica, or whoever asks through this runtime, has found without any replica since it was
        asked last.
        """
        ...

    def know(self, directory: Directory) -> None:
        """Take over who is there now."""
        ...

    def blamed(self, address: str) -> str:
        """Whom a query that this replica has failed must avoid: it alone, or its agent where it has no other."""
        ...

    async def tell(self, agent: str, event: NodeEvent) -> None:
        """Give a replica's node an event, or those of all replicas of an agent."""
        ...

    async def pull(self, agent: str, key: Key, cursor: int, wait_s: float) -> Batch | Rejected:
        """The next pieces of an answer; AgentStalled where not even an empty batch comes."""
        ...

    async def watch(self, address: str) -> None:
        """Return when the replica is gone."""
        ...

    async def healthy(self, address: str) -> bool:
        """Whether the replica answers at all, and its engine can still generate."""
        ...

    async def status(self, address: str) -> dict[str, Any]:
        """Facts about a replica."""
        ...

    async def serve(self, address: str, spec: AgentSpec) -> None:
        """Have the replica serve this adapter, assessor and prompt from its next draft on."""
        ...

    async def close(self) -> None:
        """End everything that this runtime launched."""
        ...
