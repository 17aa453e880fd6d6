"""One replica of an agent as a Ray actor, and how it and callers reach the replicas of others."""

from __future__ import annotations

import functools
import uuid

from agents.actor import AgentActor, RayTransport, call
from agents.errors import AgentError
from agents.messages import Accepted, Batch, Card, Key, NodeEvent, Query, Rejected, Rewired
from agents.node import Links
from agents.spec import AgentSpec
from agents.wire import pack, read_pulled, read_query, read_routed
from mesh.directory import Directory
from mesh.replicas import Replicated
from mesh.runtimes.polling import Poller, Polls

_LOAD = 4  # bytes before each answer, that say how many queries a replica has in hand


class ReplicaTransport(Replicated, RayTransport):
    """Reaches the replicas of the agents of one mesh.

    Args:
        address: of the replica whose transport this is; "" for a caller who is none.
    """

    def __init__(self, mesh: str, stall_s: float = 30.0, address: str = "") -> None:
        Replicated.__init__(self, stall_s / 2)
        RayTransport.__init__(self, mesh, stall_s)
        self.address = address
        self._pollers: dict[str, Poller] = {}

    async def pull(self, agent: str, key: Key, cursor: int, wait_s: float) -> Batch | Rejected:
        """The pieces of an answer after the first ``cursor``; waits up to ``wait_s`` for one to come."""
        poller = self._pollers.get(agent)
        if poller is None:
            poller = self._pollers[agent] = Poller(functools.partial(self._poll, agent, uuid.uuid4().hex))
        return read_pulled(await self.reach(agent, poller.pull(key, cursor, wait_s), wait_s + self.probe_s))

    async def _poll(self, agent: str, caller: str, poll: bytes) -> bytes:
        try:
            return await self.reach(agent, call(self.handle(agent), "poll", caller, poll))
        except AgentError:
            self._pollers.pop(agent, None)
            raise

    async def send(self, address: str, query: Query) -> tuple[int, Accepted | Rejected]:
        said = await self.reach(address, call(self.handle(address), "route", pack(query), self.address))
        return int.from_bytes(said[:_LOAD], "big"), read_routed(said[_LOAD:])

    async def ask_whether(self, address: str, key: Key) -> bool:
        return await RayTransport.probe(self, address, key)

    async def give_up(self, address: str, key: Key) -> None:
        await RayTransport.cancel(self, address, key)


class ReplicaActor(AgentActor):
    """One replica: an agent that counts what it has in hand, says so, and can be told to leave."""

    def __init__(self, spec: AgentSpec, mesh: str, address: str) -> None:
        super().__init__(spec, mesh)
        self._transport: ReplicaTransport = ReplicaTransport(mesh, spec.settings.stall_s, address)
        self._leaving = False
        self._polls = Polls(self._pull)

    async def start(self, links: Links) -> Card:
        self._know(links)
        return await super().start(links)

    async def route(self, query: bytes, sender: str = "") -> bytes:
        """Route a query, unless this replica leaves, or one that was replaced meanwhile has sent it."""
        reason = "leaving" if self._leaving else "replaced" if self._transport.balance.replaced(sender) else ""
        if reason:
            answer = pack(Rejected(read_query(query).key, self._spec.name, reason, f"from {sender}" if sender else ""))
        else:
            answer = await super().route(query)
        load: bytes = self.load.to_bytes(_LOAD, "big")
        return load + answer

    async def poll(self, caller: str, poll: bytes) -> bytes:
        """See ``Polls``."""
        return await self._polls.poll(caller, poll)

    async def _pull(self, key: Key, cursor: int, wait_s: float) -> bytes:
        return pack(await self.host.pull(key, cursor, wait_s))

    async def tell(self, event: NodeEvent) -> None:
        if isinstance(event, Rewired):
            self._know(event.links)
        await super().tell(event)

    async def leave(self) -> int:
        """Take nothing new from now on; returns how many queries it has not ended yet."""
        self._leaving = True
        return len(self.host.node.turns)

    async def missed(self) -> set[str]:
        """Which agents it found without any replica since it was asked last."""
        return self._transport.take_missed()

    @property
    def load(self) -> int:
        """How many queries are its own to work on: drafting, or waiting for that."""
        return len(self.host.node.running) + len(self.host.node.queue)

    def _know(self, links: Links) -> None:
        assert isinstance(links, Directory)
        self._transport.know(links)
