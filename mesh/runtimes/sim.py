"""Virtual time: one heap of events plays messages, deaths and the supervisor around real nodes and owners.

Nothing waits and nothing is random but by a seed, so ten thousand agents fit into one process, and a failure
happens again whenever it is asked for. What an event costs does not depend on how many agents there are: the
heap holds only what is under way, and agents with nothing in hand neither tick nor hear the news.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from heapq import heappop, heappush
from typing import Any

from agents.errors import MeshError, QueryError
from agents.messages import (
    Asked,
    Cancel,
    Cancelled,
    Done,
    Key,
    Outcome,
    OwnerEvent,
    PeerDown,
    PeerUp,
    Probe,
    Pull,
    Query,
    Rejected,
    Reply,
    Rewired,
    Route,
    Tick,
)
from agents.spec import AgentSpec
from mesh.directory import Directory
from mesh.owner import Owner
from mesh.runtimes.virtual import Caller, VirtualHost
from topologies import Topology


class _Asker:
    """The caller's side of one query, as ``mesh.asking`` plays it; ``number`` is the query's place among all."""

    def __init__(self, world: Simulation, number: int, owner: Owner) -> None:
        self.world, self.number, self.owner, self.done = world, number, owner, False

    def hear(self, event: OwnerEvent) -> None:
        world = self.world
        if self.done:  # nobody listens any more
            return
        for command in self.owner.step(event, world.now):
            match command:
                case Route(agent, query):
                    world.call(self, agent, query.key, VirtualHost.route, query)
                case Pull(agent, key, cursor):
                    world.call(self, agent, key, VirtualHost.pull, key, cursor)
                case Probe(agent, key):
                    world.call(self, agent, key, VirtualHost.probe, key)
                case Cancel(agent, key):
                    world.call(None, agent, key, VirtualHost.cancel, key)
                case Done(reply, error):
                    world.end(self, reply or error or MeshError(f"query {self.owner.query.id} was cancelled"))

    def tick(self) -> None:
        if not self.done:
            self.hear(Tick())
            self.world.at(self.world.now + self.world.tick_s, self.tick)


class Simulation:
    """A mesh of scripted agents in virtual time.

    Args:
        specs, topology: as for the supervisor; every engine must be ``scripted``.
        seed: of the jitter. All else that is random follows from the specs and the queries.
        latency_s, jitter_s: a message takes ``latency_s`` and up to ``jitter_s`` more.
        tick_s, stall_s, max_attempts: the owners'. Agents have their own, in their specs.
        notice_s: how long a death goes unnoticed by those who do not wait for the dead.

    Raises:
        ConfigError: an option is wrong, or an engine is not ``scripted``.
    """

    def __init__(
        self,
        specs: Mapping[str, AgentSpec],
        topology: Topology,
        *,
        seed: int = 0,
        latency_s: float = 0.001,
        jitter_s: float = 0.0,
        tick_s: float = 0.25,
        stall_s: float = 30.0,
        max_attempts: int = 4,
        notice_s: float = 0.05,
    ) -> None:
        self.latency_s, self.jitter_s, self.notice_s = latency_s, jitter_s, notice_s
        self.tick_s, self.stall_s, self.max_attempts = tick_s, stall_s, max_attempts
        self.now = 0.0
        self.events = self.messages = 0
        self.replies: list[Reply | MeshError | None] = []
        self._rng = random.Random(seed)
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._pushed = 0
        self._ids: set[str] = set()
        self._askers: dict[str, _Asker] = {}
        self._news: list[PeerDown | PeerUp] = []
        self._gone: dict[str, None] = {}
        self.agents = {name: VirtualHost(spec, self, self._news) for name, spec in specs.items()}
        self._specs = dict(specs)
        self.directory = Directory(topology, {name: agent.node.card for name, agent in self.agents.items()})
        for agent in self.agents.values():
            agent.hear(Rewired(self.directory))
        # No owner looks further: each of its attempts takes a query to 65 agents at most.
        self._entries = self.directory.entries()[: 65 * max_attempts + 1]

    # ------------------------------------------------------------------ what is to happen

    def ask(self, query: Query, at: float = 0.0, entry: str | None = None) -> None:
        """Ask at ``at`` virtual seconds. Raises QueryError where a query has that id already."""
        if query.id in self._ids:
            raise QueryError(f"id: there is a query {query.id!r} already; every query needs an id of its own")
        self._ids.add(query.id)
        self.replies.append(None)
        self.at(at, self._ask, len(self.replies) - 1, query, entry)

    def cancel(self, query_id: str, at: float) -> None:
        """Have the caller of a query give it up; it then ends with a ``MeshError``."""
        self.at(at, self._cancel, query_id)

    def kill(self, name: str, at: float) -> None:
        """End an agent as a process is ended; nothing happens to one that is dead."""
        self.at(at, self._kill, name)

    def revive(self, name: str, at: float) -> None:
        """Start an agent anew; nothing happens to one that lives."""
        self.at(at, self._revive, name)

    def run(self) -> list[Reply | MeshError]:
        """Play until nothing is left to happen; what became of the queries, in the order asked."""
        while self._heap:
            self.step()
        return [reply for reply in self.replies if reply is not None]

    def step(self) -> None:
        """Let the next event happen."""
        self.now, _, do, what = heappop(self._heap)
        self.events += 1
        do(*what)

    @property
    def lost(self) -> int:
        """How many queries have not ended; after ``run`` there must be none."""
        return sum(reply is None for reply in self.replies)

    # ------------------------------------------------------------------ what agents and owners need

    def at(self, when: float, do: Callable[..., None], *what: Any) -> None:
        self._pushed += 1
        heappush(self._heap, (when, self._pushed, do, what))

    def send(self, do: Callable[..., None], *what: Any) -> None:
        self.messages += 1
        jitter_s = self._rng.uniform(0.0, self.jitter_s) if self.jitter_s else 0.0
        self.at(self.now + self.latency_s + jitter_s, do, *what)

    def call(self, caller: Caller | None, agent: str, key: Key, method: Callable[..., None], *what: Any) -> None:
        self.send(self._arrive, caller, agent, key, method, what)

    def end(self, asker: _Asker, result: Any) -> None:
        """A query has ended; those on its path that learn hear of it."""
        assert self.replies[asker.number] is None, f"query {asker.owner.query.id} ended twice"
        asker.done, self.replies[asker.number] = True, result
        del self._askers[asker.owner.query.id]
        if isinstance(result, Reply):
            outcome = Outcome(result.id, result.alpha, result.path, result.cost, result.full_cost)
            for name in dict.fromkeys(hop.agent for hop in result.path):
                if self.directory.cards[name].learns:
                    self.call(None, name, asker.owner.query.key, VirtualHost.tell, outcome)

    def _ask(self, number: int, query: Query, entry: str | None) -> None:
        entries = self._entries if entry is None else (entry, *(name for name in self._entries if name != entry))
        owner = Owner(query, entries, self.directory.cards, self.max_attempts, self.stall_s)
        asker = self._askers[query.id] = _Asker(self, number, owner)
        self.at(self.now + self.tick_s, asker.tick)
        asker.hear(Asked(query))

    def _cancel(self, query_id: str) -> None:
        if query_id in self._askers:
            self._askers[query_id].hear(Cancelled((query_id, 1)))

    def _arrive(
        self, caller: Caller | None, name: str, key: Key, method: Callable[..., None], what: tuple[Any, ...]
    ) -> None:
        agent = self.agents.get(name)
        if agent is not None:
            method(agent, caller, *what)
        elif caller is not None:
            self.send(caller.hear, Rejected(key, name, "died"))

    # ------------------------------------------------------------------ life and death

    def _kill(self, name: str) -> None:
        agent = self.agents.pop(name, None)
        if agent is not None:
            agent.kill()
            self.at(self.now + self.notice_s, self._notice, name)

    def _notice(self, name: str) -> None:
        if name not in self.agents and name not in self._gone:
            self._gone[name] = None
            self._tell_all(PeerDown(name))

    def _revive(self, name: str) -> None:
        if name in self.agents:
            return
        agent = self.agents[name] = VirtualHost(self._specs[name], self, self._news)
        agent.hear(Rewired(self.directory))
        if name in self._gone:
            del self._gone[name]
            self._tell_all(PeerUp(name))
        for other in self._gone:
            agent.hear(PeerDown(other))

    def _tell_all(self, event: PeerDown | PeerUp) -> None:
        """Those with a query in hand hear it now, others before they do anything."""
        self._news.append(event)
        for agent in [agent for agent in self.agents.values() if agent.ticking]:
            self.messages += 1
            agent.catch_up()
