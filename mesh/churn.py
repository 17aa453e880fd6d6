"""A mesh in virtual time to which everything happens that can happen, and what must hold all the same.

``Watched`` looks after every event whether it holds. ``Churn`` strikes, at times and places that follow from a seed.
"""

from __future__ import annotations

import random
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any

from agents.messages import Asked, Key, NodeEvent, Query, Reply
from mesh.crowd import Crowd
from mesh.directory import Directory
from mesh.restarts import Restart, Rules, decide
from mesh.runtimes.sim import Arrival, Asker
from mesh.runtimes.trouble import Troubled, TroubledHost
from mesh.runtimes.virtual import Caller, VirtualHost
from topologies import Topology

MACHINE = 8  # agents on one machine, on average
REPLACED_S = 10.0  # from a machine's end to its agents' return on others
TROUBLED_S = 10.0  # that an agent stands still, or is slow
CUT_S = (2.0, 40.0)
KEPT_S = 120.0  # traces of a query, which lives less long
FLOOD = 16  # queries more than an agent can take


class Violation(AssertionError):
    """Something that must hold does not."""


class WatchedHost(TroubledHost):
    """An agent that is looked at whenever it has heard something."""

    world: Watched

    def hear(self, event: NodeEvent) -> None:
        asked = event.query.key if isinstance(event, Asked) else None
        known = asked in self.node.turns
        super().hear(event)
        if asked is not None and not known and asked in self.node.turns:
            self.world.began(self, asked)
        node, limits = self.node, self.node.settings
        if len(node.turns) > limits.running + limits.waiting:
            raise Violation(f"{self.name} has {len(node.turns)} queries in hand")
        if len(node.running) > limits.running:
            raise Violation(f"{self.name} works on {len(node.running)} queries at once")
        if not node.running <= node.turns.keys():
            raise Violation(f"{self.name} keeps a place for a query that is over")
        if not self.drafts.keys() <= node.running:
            raise Violation(f"the engine of {self.name} works for nobody")


class Watched(Troubled):
    """A simulation that raises Violation as soon as one of these does not hold: each query ends once, and never beyond
    its deadline; no agent begins it twice in an attempt, but for one that has died and forgotten it; agents take no
    more than they may; whoever it goes to is one that the graph leads to at that time; and a reply tells of those who
    were asked, and adds up.
    """

    host = WatchedHost

    def __init__(self, *args: Any, **options: Any) -> None:
        self._due: deque[tuple[float, Asker]] = deque()
        self._begun: dict[Key, dict[str, WatchedHost]] = {}
        self._forget: deque[tuple[float, Key]] = deque()
        super().__init__(*args, **options)

    def step(self) -> None:
        super().step()
        due = self._due
        while due and due[0][1].done:
            due.popleft()
        if due and self.now > due[0][0] + 1e-9:
            raise Violation(f"query {due[0][1].owner.query.id} is not over by its deadline")

    def began(self, host: WatchedHost, key: Key) -> None:
        """An agent has a query in hand."""
        begun = self._begun.get(key)
        if begun is None:
            begun = self._begun[key] = {}
            self._forget.append((self.now, key))
        if begun.get(host.name) is host:
            raise Violation(f"{host.name} begins attempt {key[1]} of query {key[0]} a second time")
        begun[host.name] = host
        while self._forget[0][0] < self.now - KEPT_S:
            del self._begun[self._forget.popleft()[1]]

    def call(self, caller: Caller, agent: str, key: Key, method: Callable[..., None], *what: Any) -> None:
        if method is VirtualHost.route and isinstance(caller, WatchedHost):
            self._check_route(caller, agent, what[0])
        super().call(caller, agent, key, method, *what)

    def end(self, asker: Asker, result: Reply | Exception) -> None:
        if asker.done:
            raise Violation(f"query {asker.owner.query.id} ends twice")
        super().end(asker, result)
        if isinstance(result, Reply):
            self._check_reply(result)

    def _check_reply(self, reply: Reply) -> None:
        begun = [self._begun.get((reply.id, attempt), {}) for attempt in range(1, reply.attempts + 1)]
        for hop in reply.path:
            if hop.verdict != "failed" and not any(hop.agent in names for names in begun):
                raise Violation(f"the path of query {reply.id} tells of {hop.agent}, who was never asked")
        if reply.agent not in begun[-1]:
            raise Violation(f"query {reply.id} was answered by {reply.agent}, who had not begun it")
        if abs(sum(hop.full_cost for hop in reply.path) - reply.full_cost) > 1e-9:
            raise Violation(f"the full cost of query {reply.id} is not that of its path")

    def _ask(self, number: int, query: Query, entry: str | None) -> None:
        super()._ask(number, query, entry)
        self._due.append((self.now + query.remaining_s + self.tick_s, self.askers[query.id]))

    def _check_route(self, caller: WatchedHost, peer: str, query: Query) -> None:
        name, links = caller.name, caller.node.links
        assert isinstance(links, Directory)
        graph = links.topology
        passed = caller.node.down.union(query.excluded, [hop.agent for hop in query.path if hop.verdict == "failed"])
        wrong = ""
        if caller.heard == len(caller.news) and graph is not self.directory.topology:  # it knows all that there is
            wrong = "by a graph that is out of date"
        elif peer in passed:
            wrong = "who is known to be of no use"
        elif peer == name or peer in [hop.agent for hop in query.path]:
            wrong = "who had it before"
        elif not _leads(graph, name, peer, passed):
            wrong = "to whom no edge leads"
        if wrong:
            raise Violation(f"{name} forwards query {query.id} to {peer}, {wrong}")


def _leads(graph: Topology | None, name: str, peer: str, passed: frozenset[str]) -> bool:
    """Whether there is an edge, or a way over those who are of no use; looked for without ``Topology``'s own walk."""
    reached, ahead = {name}, [name]
    while graph and ahead and peer not in reached:
        around = [to for at in ahead for to in graph.neighbours(at) if to not in reached]
        reached.update(around)
        ahead = [to for to in around if to in passed]
    return peer in reached


class Churn:
    """Strikes at a mesh ``faults`` times within ``horizon_s``: every kind as often, at random times, at random agents.

    Args:
        counts: how often each kind has struck so far.
    """

    def __init__(self, world: Troubled, crowd: Crowd, faults: int, horizon_s: float, seed: int) -> None:
        self.world, self.crowd = world, crowd
        self.counts: Counter[str] = Counter()
        self._rng = random.Random(f"churn:{seed}")
        self._machines = max(1, len(world.agents) // MACHINE)
        self._deaths: dict[str, tuple[float, ...]] = {}
        self._flooded: list[str] = []
        kinds = [list(KINDS)[number % len(KINDS)] for number in range(faults)]
        self._rng.shuffle(kinds)
        for kind in kinds:
            world.at(self._rng.uniform(0, horizon_s), self._strike, kind)

    def arrivals(self, calm: Iterator[Arrival]) -> Iterator[Arrival]:
        """The same queries, begun at agents that are there; where a queue is to be filled, the next ones all there."""
        limits = self.crowd.settings
        for at, query, entry in calm:
            here, now = entry, at
            while self._flooded:
                flooded, now = self._flooded.pop(), self.world.now
                for _ in range(limits.running + limits.waiting + FLOOD):
                    yield now, query, flooded
                    at, query, entry = next(calm, (0.0, None, None))  # type: ignore[assignment]
                    if query is None:
                        return
                here = entry
            cards = self.world.directory.cards
            yield max(at, now), query, here if here is None or here in cards else self._somebody()

    def _strike(self, kind: str) -> None:
        self.counts[kind] += 1
        KINDS[kind](self, self._somebody())

    def _somebody(self) -> str:
        topology = self.world.directory.topology
        assert topology is not None
        return self._rng.choice(topology.names)

    def _beside(self, name: str) -> list[str]:
        """All on one machine."""
        machine = zlib.crc32(name.encode()) % self._machines
        return [one for one in self.world.agents if zlib.crc32(one.encode()) % self._machines == machine]

    def _kill(self, name: str) -> None:
        """Its process ends; the supervisor does what it always does."""
        now = self.world.now
        self._deaths[name] = (*self._deaths.get(name, ()), now)[-Rules().deaths :]
        verdict = decide(self._deaths[name], now, Rules())
        self.world.kill(name, now)
        if isinstance(verdict, Restart):
            self.world.revive(name, now + self.world.notice_s + verdict.delay_s)

    def _kill_machine(self, name: str) -> None:
        for one in self._beside(name):
            self.world.kill(one, self.world.now)
            self.world.revive(one, self.world.now + REPLACED_S)

    def _stall(self, name: str) -> None:
        self.world.stall(name, self.world.now, TROUBLED_S)

    def _slow(self, name: str) -> None:
        self.world.slow(name, self.world.now, TROUBLED_S)

    def _flood(self, name: str) -> None:
        self._flooded.append(name)

    def _remove(self, name: str) -> None:
        self.world.leave(name, self.world.now)

    def _add(self, name: str) -> None:
        self.world.join(self.crowd.another(f"newcomer-{self.counts['added']}"), self.world.now)

    def _upgrade(self, name: str) -> None:
        spec = self.crowd.spec(name, self.world.directory.cards[name].cost, self.crowd.another(name).engine[1]["kinds"])
        self.world.update(spec, self.world.now)

    def _cut(self, name: str) -> None:
        self.world.cut(self._beside(name), self.world.now, self._rng.uniform(*CUT_S))


KINDS: dict[str, Callable[[Churn, str], None]] = {
    "killed": Churn._kill,
    "machine killed": Churn._kill_machine,
    "stalled": Churn._stall,
    "slowed": Churn._slow,
    "queue filled": Churn._flood,
    "removed": Churn._remove,
    "added": Churn._add,
    "upgraded": Churn._upgrade,
    "cut off": Churn._cut,
}
