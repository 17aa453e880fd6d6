"""A mesh of any size in virtual time, asked at random: what ``mesh sim`` shows."""

from __future__ import annotations

import gc
import random
import time
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from typing import Any

from agents.engines.measured import RIGHT
from agents.errors import ConfigError, MeshError
from agents.messages import Message, Query, Reply
from agents.plugins import build
from agents.spec import AgentSpec
from mesh.assemble import agent_specs
from mesh.churn import Churn, Watched
from mesh.config import load
from mesh.crowd import Crowd, Figures
from mesh.runtimes.sim import Arrival, Simulation
from topologies import TOPOLOGIES, Topology, TopologyError

RATE = 0.5  # queries a second at every agent that is an entry: well below what an agent can bear
SHOWN = 16  # agents whose shares are told one by one
STEP = 1_000  # queries from one sign of progress to the next
DEADLINE_S = 20.0

Progress = Callable[[int, int], None]  # done, all


def simulate(
    pool: str | None = None,
    agents: int = 100,
    queries: int = 1000,
    alpha: float = 0.5,
    seed: int = 0,
    topology: str | None = None,
    policy: str = "reliability",
    figures: str = "lab",
    rate: float = RATE,
    fail: float = 0.0,
    feedback: float = 0.0,
    faults: int = 0,
    progress: Progress | None = None,
    kind: Callable[..., Simulation] = Simulation,
) -> dict[str, Any]:
    """Ask ``queries`` questions at random times and tell what became of them.

    Queries begin at the entry agent, or, in a topology with cycles, each at an agent drawn at random.

    Args:
        pool: its agents, with scripted engines where it has others; None: ``agents`` that do as measured ones did.
        topology: who may forward to whom; default: the pool's own, or a tree.
        policy, figures, fail: as in ``Crowd``, for ``agents``.
        rate: queries a second at every entry, at random times (a Poisson process).
        feedback: share of the replies of which agents that learn hear whether they were right.
        faults: how often something happens to some agent, see ``mesh.churn``; after every event it is then checked
            whether all holds that must.
        progress: called now and then with how many queries have ended, and with all.
        kind: what makes the simulation, where there are no faults.

    Returns:
        Counts, ``digest`` (of all that became of all queries), ``hops_mean`` (agents that a query met), shares in
        percent, means of what replies cost, virtual seconds a query took, and what the simulation itself took
        (microseconds are those of the processor: the machine may do other things besides).

    Raises:
        ConfigError: a wrong pool, topology, policy or figures, or faults in a pool.
        MeshError: something went wrong in an event; it tells the command that shows it again.
    """
    start = time.perf_counter()
    if pool and faults:
        raise ConfigError(f"faults: {faults} with pool {pool!r}: newcomers are measured agents; leave the pool out")
    crowd = Crowd(Figures.load(figures), (policy, {}), fail, seed)
    specs, graph, ask = _pool(pool, topology, seed) if pool else _crowd(agents, topology or "tree", seed, crowd)
    tally = Tally(queries, progress)
    graded = None if pool else lambda query, reply: _feedback(query, reply, feedback)
    make = Watched if faults else kind
    world = make(specs, graph, seed=seed, tick_s=1.0, stall_s=5.0, judge=graded, told=tally.add)
    coming = arrivals(queries, graph, rate, seed, lambda number: ask(number, alpha, seed))
    lasts_s = queries / rate / _entries(graph)
    churn = Churn(world, crowd, faults, lasts_s, seed) if isinstance(world, Watched) else None
    world.feed(churn.arrivals(coming) if churn else coming)
    where = {"agents": agents, "queries": queries, "alpha": alpha, "seed": seed, "topology": _name(graph)}
    who = {"pool": pool} if pool else {"policy": policy, "figures": figures, "fail": fail}
    again = _command({**where, **who, "rate": rate, "feedback": feedback, "faults": faults})
    took = {"setup_seconds": round(time.perf_counter() - start, 3), **_run(world, queries, again)}
    struck = dict(sorted(churn.counts.items())) if churn else {}
    ended = tally.summary(specs, bool(pool)) | {"lost": world.lost, "faults": struck}
    return where | {"agents": len(specs)} | ended | took


def _command(options: Mapping[str, Any]) -> str:
    return " ".join(["mesh sim", *(f"--{name} {value}" for name, value in options.items())])


def _run(world: Simulation, queries: int, again: str) -> dict[str, Any]:
    """Play to the end; what that took. Raises MeshError, with the command that fails the same way ``again``."""
    begin, busy = time.perf_counter(), time.process_time()
    gc.disable()  # what a query leaves is in no cycle; looking for some takes a fifth of the time
    try:
        world.run()
    except Exception as error:
        raise MeshError(f"event {world.events}, at {world.now:.3f} s: {error!r}; again: {again}") from error
    finally:
        gc.enable()
    wall_s, cpu_s = time.perf_counter() - begin, time.process_time() - busy
    return {
        "virtual_seconds": round(world.now, 3),
        "events": world.events,
        "messages": world.messages,
        "wall_seconds": round(wall_s, 3),
        "cpu_seconds": round(cpu_s, 3),
        "us_per_event": round(1e6 * cpu_s / world.events, 2),
        "us_per_query": round(1e6 * cpu_s / queries, 1),
    }


def arrivals(queries: int, graph: Topology, rate: float, seed: int, ask: Callable[[int], Query]) -> Iterator[Arrival]:
    """Queries at random times: those of a Poisson process, ``rate`` a second and entry."""
    rng, at, entries = random.Random(seed), 0.0, _entries(graph)
    for number in range(queries):
        at += rng.expovariate(rate * entries)
        yield at, ask(number), graph.names[int(rng.random() * entries)] if entries > 1 else None


def _entries(graph: Topology) -> int:
    """How many agents queries begin at."""
    return len(graph.names) if graph.cyclic else 1


def question(number: int, alpha: float, seed: int = 0) -> Query:
    """Made-up query number ``number``; all that is random about it follows from ``seed``."""
    return _query(number, f"question {number}", alpha, seed)


class Tally:
    """What became of queries, added up as they end; nothing else is kept of them."""

    def __init__(self, queries: int, progress: Progress | None = None) -> None:
        self.queries, self.progress = queries, progress
        self.seconds = array("d")
        self.answers: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.hops = self.right = self.attempts = 0
        self.cost = self.full_cost = 0.0
        self.digest = blake2b(digest_size=8)

    def add(self, query: Query, result: Reply | Exception) -> None:
        """One has ended."""
        if isinstance(result, Reply):
            self.seconds.append(result.seconds)
            self.answers[result.agent] += 1
            self.hops += len(result.path)
            self.attempts += result.attempts
            self.right += result.text == RIGHT
            self.cost += result.cost
            self.full_cost += result.full_cost
            mark = f"{result.id} {result.agent} {result.text} {result.seconds} {result.full_cost} {len(result.path)}\n"
        else:
            self.failures[type(result).__name__] += 1
            mark = f"{query.id} {result}\n"
        self.digest.update(mark.encode())
        over = len(self.seconds) + self.failures.total()
        if self.progress and (over % STEP == 0 or over == self.queries):
            self.progress(over, self.queries)

    def summary(self, specs: Mapping[str, AgentSpec], scripted: bool) -> dict[str, Any]:
        """In words that ``mesh sim`` shows; nobody knows whether ``scripted`` answers are right."""
        count, seconds = max(len(self.seconds), 1), sorted(self.seconds) or [0.0]
        summary: dict[str, Any] = {
            "answered": len(self.seconds),
            "failed": self.failures.total(),
            "failures": dict(self.failures),
            "digest": self.digest.hexdigest(),
            "right": None if scripted else round(self.right / count, 4),
            "cost_mean": round(self.cost / count, 4),
            "full_cost_mean": round(self.full_cost / count, 4),
            "hops_mean": round(self.hops / count, 3),
            "attempts_mean": round(self.attempts / count, 4),
            "seconds_p50": round(seconds[len(seconds) // 2], 4),
            "seconds_p99": round(seconds[int(0.99 * (len(seconds) - 1))], 4),
        }
        if len(specs) <= SHOWN:
            summary["share"] = {name: round(100 * self.answers[name] / count, 1) for name in specs}
        return summary


Ask = Callable[[int, float, int], Query]


def _pool(pool: str, topology: str | None, seed: int) -> tuple[dict[str, AgentSpec], Topology, Ask]:
    config = load(pool)
    if any(agent.engine.kind != "scripted" for agent in config.agents):
        config = config.with_engine("scripted", refuse=0.5)
    config = load(
        {**config.model_dump(exclude_unset=True), "seed": seed, **({"topology": topology} if topology else {})}
    )
    return agent_specs(config), config.build_topology(), question


def _crowd(agents: int, topology: str, seed: int, crowd: Crowd) -> tuple[dict[str, AgentSpec], Topology, Ask]:
    specs, kinds = crowd.draw(agents), crowd.figures.kinds
    costs = {name: spec.card.cost for name, spec in specs.items()}

    def ask(number: int, alpha: float, seed: int) -> Query:
        return _query(number, f"{kinds[number % len(kinds)]} {seed} {number}", alpha, seed)

    try:
        return specs, build(TOPOLOGIES, topology.replace("-", "_"), "topology", costs), ask
    except TopologyError as error:
        raise ConfigError(f"topology {topology!r}: {error}") from error


def _query(number: int, text: str, alpha: float, seed: int) -> Query:
    drawn = zlib.crc32(f"{seed}:{text}".encode())
    return Query(str(number), (Message("user", text),), alpha, remaining_s=DEADLINE_S, seed=drawn)


def _feedback(query: Query, reply: Reply, share: float) -> bool | None:
    """Whether it was right, if anybody says so; who does follows from the query's seed."""
    return reply.text == RIGHT if query.seed % 1000 < 1000 * share else None


def _name(graph: Topology) -> str:
    return next((name for name, shape in TOPOLOGIES.items() if type(graph) is shape), type(graph).__name__)
