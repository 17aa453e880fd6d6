"""Virtual time: one heap of events plays messages, deaths and the supervisor around real nodes and owners.

Nothing waits and nothing is random but by a seed, so ten thousand agents fit into one process, and a failure
happens again whenever it is asked for. What an event costs does not depend on how many agents there are: the
heap holds only what is under way, and agents with nothing in hand neither tick nor hear the news.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from heapq import heappop, heappush
from typing import Any, TypeAlias

from agents.errors import MeshError, QueryError
from agents.messages import (
    Accepted,
    Alive,
    Asked,
    Cancel,
    Cancelled,
    Card,
    Done,
    Key,
    NodeEvent,
    Outcome,
    OwnerEvent,
    PeerDown,
    PeerUp,
    Probe,
    Pull,
    Pulled,
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

Arrival: TypeAlias = tuple[float, Query, str | None]  # when, what, and where it enters (None: at the entry agent)
ONE_WAY = (VirtualHost.cancel, VirtualHost.tell)  # calls that nobody waits for


class Asker:
    """The caller's side of one query, as ``mesh.asking`` plays it; ``number`` is the query's place among all."""

    name = ""

    def __init__(self, world: Simulation, number: int, owner: Owner) -> None:
        self.world, self.number, self.owner, self.done = world, number, owner, False

    def hear(self, event: OwnerEvent) -> None:
        """Give the owner an event and perform what it commands."""
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
                    world.call(self, agent, key, VirtualHost.cancel, key)
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
        judge: says of a reply whether it is right, or None where nobody will know; agents that learn hear it.
        told: called with each query and what became of it; else ``replies`` keeps that.

    Raises:
        ConfigError: an option is wrong, or an engine is not ``scripted``.
    """

    host: type[VirtualHost] = VirtualHost

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
        judge: Callable[[Query, Reply], bool | None] | None = None,
        told: Callable[[Query, Reply | Exception], None] | None = None,
    ) -> None:
        self.latency_s, self.jitter_s, self.notice_s = latency_s, jitter_s, notice_s
        self.tick_s, self.stall_s, self.max_attempts = tick_s, stall_s, max_attempts
        self.now = 0.0
        self.events = self.messages = self.asked = self.over = 0
        self.replies: dict[int, Reply | Exception] = {}
        self._judge, self._told = judge, told
        self._rng = random.Random(seed)
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._pushed = 0
        self._ids: set[str] = set()
        self.askers: dict[str, Asker] = {}
        self._news: list[NodeEvent] = []
        self._gone: dict[str, None] = {}
        self.agents = {name: self.host(spec, self, self._news) for name, spec in specs.items()}
        self._specs = dict(specs)
        self.directory = Directory(topology, {name: agent.node.card for name, agent in self.agents.items()})
        self._entries: dict[str | None, tuple[str, ...]] = {}
        for agent in self.agents.values():
            agent.hear(Rewired(self.directory))

    # ------------------------------------------------------------------ what is to happen

    def ask(self, query: Query, at: float = 0.0, entry: str | None = None) -> None:
        """Ask at ``at`` virtual seconds. Raises QueryError where a query has that id already."""
        if query.id in self._ids:
            raise QueryError(f"id: there is a query {query.id!r} already; every query needs an id of its own")
        self._ids.add(query.id)
        self.asked += 1
        self.at(at, self._ask, self.asked - 1, query, entry)

    def feed(self, arrivals: Iterable[Arrival]) -> None:
        """Ask all these, in the order of their times; the next one is looked at when the one before is asked."""
        self._feed(iter(arrivals))

    def _feed(self, arrivals: Iterator[Arrival]) -> None:
        following = next(arrivals, None)
        if following is not None:
            self.asked += 1
            self.at(following[0], self._fed, self.asked - 1, following, arrivals)

    def _fed(self, number: int, arrival: Arrival, arrivals: Iterator[Arrival]) -> None:
        self._ask(number, *arrival[1:])
        self._feed(arrivals)

    def cancel(self, query_id: str, at: float) -> None:
        """Have the caller of a query give it up; it then ends with a ``MeshError``."""
        self.at(at, self._cancel, query_id)

    def kill(self, name: str, at: float) -> None:
        """End an agent as a process is ended; nothing happens to one that is dead."""
        self.at(at, self._kill, name)

    def revive(self, name: str, at: float) -> None:
        """Start an agent anew; nothing happens to one that lives."""
        self.at(at, self._revive, name)

    def run(self) -> list[Reply | Exception]:
        """Play until nothing is left to happen; what became of the queries, in the order asked."""
        while self._heap:
            self.step()
        return [self.replies[number] for number in sorted(self.replies)]

    def step(self) -> None:
        """Let the next event happen."""
        self.now, _, do, what = heappop(self._heap)
        self.events += 1
        do(*what)

    @property
    def lost(self) -> int:
        """How many queries have not ended; after ``run`` there must be none."""
        return self.asked - self.over

    # ------------------------------------------------------------------ what agents and owners need

    def at(self, when: float, do: Callable[..., None], *what: Any) -> None:
        self._pushed += 1
        heappush(self._heap, (when, self._pushed, do, what))

    def send(self, do: Callable[..., None], *what: Any) -> None:
        self.messages += 1
        jitter_s = self._rng.uniform(0.0, self.jitter_s) if self.jitter_s else 0.0
        self.at(self.now + self.latency_s + jitter_s, do, *what)

    def call(self, caller: Caller, agent: str, key: Key, method: Callable[..., None], *what: Any) -> None:
        self.send(self._arrive, caller, agent, key, method, what)

    def answer(self, agent: str, caller: Caller, event: Accepted | Rejected | Pulled | Alive) -> None:
        self.send(caller.hear, event)

    def end(self, asker: Asker, result: Reply | Exception) -> None:
        """A query has ended; those on its path that learn hear of it."""
        query = asker.owner.query
        assert not asker.done, f"query {query.id} ended twice"
        asker.done = True
        self.over += 1
        del self.askers[query.id]
        if self._told is None:
            self.replies[asker.number] = result
        else:
            self._told(query, result)
        if isinstance(result, Reply):
            self._tell_path(asker, query, result)

    def _tell_path(self, asker: Asker, query: Query, reply: Reply) -> None:
        cards = self.directory.cards
        names = [hop.agent for hop in reply.path if hop.agent in cards and cards[hop.agent].learns]
        right = self._judge(query, reply) if names and self._judge else None
        for known in (None, right)[: 1 if right is None else 2]:  # as ``Mesh`` does: at once, and when somebody knows
            outcome = Outcome(reply.id, reply.alpha, reply.path, reply.cost, reply.full_cost, known)
            for name in dict.fromkeys(names):
                self.call(asker, name, query.key, VirtualHost.tell, outcome)

    def _ask(self, number: int, query: Query, entry: str | None) -> None:
        owner = Owner(query, self._entries_from(entry), self.directory.cards, self.max_attempts, self.stall_s)
        asker = self.askers[query.id] = Asker(self, number, owner)
        self.at(self.now + self.tick_s, asker.tick)
        asker.hear(Asked(query))

    def _entries_from(self, entry: str | None) -> tuple[str, ...]:
        """Where a query may enter, as long as nobody comes or goes."""
        if entry not in self._entries:
            self._entries[entry] = self.directory.entries(entry)
        return self._entries[entry]

    def _cancel(self, query_id: str) -> None:
        if query_id in self.askers:
            self.askers[query_id].hear(Cancelled((query_id, 1)))

    def _arrive(self, caller: Caller, name: str, key: Key, method: Callable[..., None], what: tuple[Any, ...]) -> None:
        agent = self.agents.get(name)
        if agent is not None:
            method(agent, caller, *what)
        elif method not in ONE_WAY:
            self.send(caller.hear, Rejected(key, name, "died"))

    # ------------------------------------------------------------------ life and death

    def _kill(self, name: str) -> None:
        agent = self.agents.pop(name, None)
        if agent is not None:
            agent.kill()
            self.at(self.now + self.notice_s, self._notice, name)

    def _notice(self, name: str) -> None:
        if name not in self.agents:
            self.give_up(name)

    def give_up(self, name: str) -> None:
        """Have everybody know that an agent is gone."""
        if name not in self._gone and name in self._specs:
            self._gone[name] = None
            self._know(self.directory.topology, self.directory.cards)
            self._tell_all(PeerDown(name))

    def _revive(self, name: str) -> None:
        if name in self.agents or name not in self._specs:
            return
        self._launch(name)
        if name in self._gone:
            del self._gone[name]
            self._know(self.directory.topology, self.directory.cards)
            self._tell_all(PeerUp(name))

    def _launch(self, name: str) -> None:
        """Start an agent, which learns all that it has missed."""
        agent = self.agents[name] = self.host(self._specs[name], self, self._news)
        agent.hear(Rewired(self.directory))
        for other in self._gone:
            if other != name:
                agent.hear(PeerDown(other))

    def _know(self, topology: Topology | None, cards: Mapping[str, Card]) -> None:
        """What callers see from now on, and agents once they are told."""
        self.directory = Directory(topology, cards, frozenset(self._gone))
        self._entries.clear()

    def _tell_all(self, event: NodeEvent) -> None:
        """Those with a query in hand hear it now, others before they do anything."""
        self._news.append(event)
        for agent in [agent for agent in self.agents.values() if agent.ticking]:
            self.messages += 1
            agent.catch_up()
