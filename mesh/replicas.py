"""An agent may run several times over, as replicas: which one gets a query, and which ones there are.

A replica's address is ``agent#start``: every start of every replica has a number of its own, its incarnation, which
no later one gets as long as the mesh is up. So what is sent to one that is gone cannot reach its successor, and what
one sends that was replaced meanwhile is told by its address.
"""

from __future__ import annotations

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

from msgspec.structs import replace

from agents.errors import AgentDied, AgentError
from agents.messages import Accepted, Key, Query, Rejected
from agents.names import agent_of
from mesh.directory import NOBODY, Directory

FRESH_S = 2.0  # how long a replica's own word on its load counts: one that nobody asks says nothing
ELSEWHERE = ("busy", "late", "leaving")  # why another replica of the agent may well take the query


class Balance:
    """Where a caller sends its next query: of two replicas drawn at random, to the one with less to do.

    What a replica has to do it says itself, with whatever it answers; to that is added what was sent to it since.
    Nothing else changes the count: not that it is asked whether it is well, nor news of who is there.

    Args:
        silent_s: who was sent something and has said nothing for so long comes after everybody else.
        seed: for those who want the same draws again.
    """

    def __init__(self, silent_s: float = 15.0, seed: int | None = None) -> None:
        self._silent_s, self._rng = silent_s, random.Random(seed)
        self.directory = NOBODY
        self._said: dict[str, tuple[int, float]] = {}
        self._since: dict[str, int] = {}
        self._unanswered: dict[str, float] = {}
        self._counts: tuple[dict[str, Any], ...] = (self._said, self._since, self._unanswered)
        self._gone: set[str] = set()
        self.missed: set[str] = set()  # agents that were asked while none of their replicas was there

    def know(self, directory: Directory) -> None:
        """Take over who is there now; what is known of the load of those who stay is kept."""
        self.directory = directory
        there = {address for addresses in directory.replicas.values() for address in addresses}
        for known in self._counts:
            for address in known.keys() - there:
                del known[address]
        self._gone.clear()  # a mesh that was taken down and is up again has the same addresses

    def replicas(self, agent: str) -> tuple[str, ...]:
        """The addresses of an agent's replicas that take queries, as far as is known here."""
        if agent != agent_of(agent):
            return (agent,)
        return tuple(each for each in self.directory.replicas.get(agent, ()) if each not in self._gone)

    def choose(self, agent: str, now: float, but: Collection[str] = ()) -> str | None:
        """The replica that gets the agent's next query, None where there is none but these."""
        there = [address for address in self.replicas(agent) if address not in but]
        there = [each for each in there if not self.silent(each, now)] or there
        if len(there) > 2:
            there = self._rng.sample(there, 2)
        return min(there, key=lambda address: (self.load(address, now), self._rng.random()), default=None)

    def load(self, address: str, now: float) -> int:
        """How many queries a replica is taken to have in hand."""
        said, at = self._said.get(address, (0, now))
        return (said if now - at <= FRESH_S else 0) + self._since.get(address, 0)

    def silent(self, address: str, now: float) -> bool:
        """Whether it has had something to say for long, and has not."""
        return now - self._unanswered.get(address, now) > self._silent_s

    def sent(self, address: str, now: float) -> None:
        """A query is on its way to it."""
        self._since[address] = self._since.get(address, 0) + 1
        self._unanswered.setdefault(address, now)

    def heard(self, address: str, load: int, now: float) -> None:
        """It has said how many it has in hand; what was sent before is among these."""
        self._said[address], self._since[address] = (load, now), 0
        self._unanswered.pop(address, None)

    def lost(self, address: str) -> None:
        """It is gone, whatever the directory says until the next one comes."""
        self._gone.add(address)
        for known in self._counts:
            known.pop(address, None)

    def replaced(self, address: str) -> bool:
        """Whether this replica was started before the newest known of its agent, and is no member any more."""
        agent, _, start = address.partition("#")
        there = (*self.directory.replicas.get(agent, ()), *self.directory.leaving)
        return bool(start) and int(start) <= self.directory.starts.get(agent, 0) and address not in there


class Replicated(ABC):
    """A transport that reaches agents through their replicas: by an agent's name whichever fits best, else by address.

    Who has accepted a query is told by address, so that its answer is pulled from the replica that gives it. Who learns
    of members by asking (and is not told, as agents are) sets ``renew``, which looks who is there now.
    """

    def __init__(self, silent_s: float = 15.0) -> None:
        self.balance = Balance(silent_s)
        self.renew: Callable[[], Awaitable[None]] | None = None
        self._under_way: dict[tuple[str, Key], str] = {}

    @abstractmethod
    async def send(self, address: str, query: Query) -> tuple[int, Accepted | Rejected]:
        """Have one replica route a query; what it has in hand, and what came of it. Raises AgentError."""

    @abstractmethod
    async def ask_whether(self, address: str, key: Key) -> bool:
        """Whether one replica still works on a query."""

    @abstractmethod
    async def give_up(self, address: str, key: Key) -> None:
        """Tell one replica to give up a query."""

    def know(self, directory: Directory) -> None:
        """Take over who is there now."""
        self.balance.know(directory)

    async def route(self, agent: str, query: Query) -> Accepted | Rejected:
        """Have an agent route a query: one of its replicas, another where that one is gone, full, or leaves.

        Raises:
            AgentDied: none of its replicas is there.
        """
        result = await self._route(agent, query)
        if result is None:
            self.balance.missed.add(agent)
        if self.renew is not None and (result is None or (isinstance(result, Rejected) and result.reason == "leaving")):
            await self.renew()
            result = await self._route(agent, query)
        if result is None:
            raise AgentDied(agent, "none of its replicas is there")
        return result

    async def _route(self, agent: str, query: Query) -> Accepted | Rejected | None:
        """As ``route``; None where nobody is there."""
        result: Accepted | Rejected | None = None
        tried: list[str] = []
        while (address := self._place(agent, query, tried)) is not None:
            tried.append(address)
            self.balance.sent(address, time.monotonic())
            self._under_way[agent, query.key] = address
            try:
                load, result = await self.send(address, query)
            except AgentDied:
                self.balance.lost(address)
                continue
            finally:
                self._under_way.pop((agent, query.key), None)
            self.balance.heard(address, load, time.monotonic())
            if isinstance(result, Accepted):
                return replace(result, agent=address) if result.agent == agent_of(agent) else result
            if result.agent != agent_of(agent) or result.reason not in ELSEWHERE:
                return result
        return result

    def _place(self, agent: str, query: Query, tried: Sequence[str]) -> str | None:
        """Which replica is to have a query: the one that has it already, where it is asked once more."""
        held = self._under_way.get((agent, query.key))
        if held not in tried and held in self.balance.replicas(agent):
            return held
        return self.balance.choose(agent, time.monotonic(), {*tried, *query.excluded})

    async def probe(self, agent: str, key: Key) -> bool:
        """Whether an agent still works on a query. Raises AgentError where it cannot be reached."""
        asked = [self.ask_whether(address, key) for address in self._holders(agent, key)]
        if not asked:
            raise AgentDied(agent, "none of its replicas is there")
        return any(await asyncio.gather(*asked))

    async def cancel(self, agent: str, key: Key) -> None:
        """Tell an agent to give up a query."""
        told = [self.give_up(address, key) for address in self._holders(agent, key)]
        for error in await asyncio.gather(*told, return_exceptions=True):
            if isinstance(error, BaseException) and not isinstance(error, AgentError):
                raise error

    def take_missed(self) -> set[str]:
        """Which agents were found without any replica since this was asked last."""
        missed = set(self.balance.missed)
        self.balance.missed.clear()
        return missed

    def blamed(self, address: str) -> str:
        """Whom a query that this replica has failed must avoid: it alone, or its agent where it has no other."""
        agent = agent_of(address)
        return address if any(each != address for each in self.balance.replicas(agent)) else agent

    def _holders(self, agent: str, key: Key) -> Sequence[str]:
        """The replica that a query is under way to; where that is not known, all of them."""
        held = self._under_way.get((agent, key))
        return self.balance.replicas(agent) if held is None else (held,)
