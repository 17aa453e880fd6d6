"""A mesh of any size in virtual time, asked at random: what ``mesh sim`` shows."""

from __future__ import annotations

import random
import time
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from agents.engines.base import Setup
from agents.errors import ConfigError, MeshError
from agents.messages import Card, Message, Query, Reply
from agents.plugins import build
from agents.spec import AgentSpec
from mesh.assemble import agent_specs
from mesh.config import load
from mesh.runtimes.sim import Simulation
from topologies import TOPOLOGIES, Topology, TopologyError

RATE = 5.0  # queries a second at every agent that is an entry: well below what 32 drafts at once can bear
SHOWN = 16  # agents whose shares are told one by one


def simulate(
    pool: str | None = None,
    agents: int = 100,
    queries: int = 1000,
    alpha: float = 0.5,
    seed: int = 0,
    topology: str | None = None,
) -> dict[str, Any]:
    """Ask ``queries`` questions at random times and tell what became of them.

    Queries begin at the entry agent, or, in a topology with cycles, each at an agent drawn at random.

    Args:
        pool: its agents, with scripted engines where it has others; None: ``agents`` made-up ones.
        topology: who may forward to whom; default: the pool's own, or a cascade.

    Returns:
        Counts, ``hops_mean`` (agents that a query met), ``share`` of the answers by agent in percent (small pools
        only), virtual seconds a query took, and what the simulation itself took.

    Raises:
        ConfigError: a wrong pool or topology.
    """
    start = time.perf_counter()
    specs, graph = _pool(pool, topology, seed) if pool else _made_up(agents, topology or "cascade", seed)
    rng = random.Random(seed)
    simulation = Simulation(specs, graph, seed=seed)
    at, entries = 0.0, graph.names if graph.cyclic else (graph.entry,)
    for number in range(queries):
        at += rng.expovariate(RATE * len(entries))
        simulation.ask(question(number, alpha, seed), at, rng.choice(entries) if len(entries) > 1 else None)
    ready = time.perf_counter()
    results = simulation.run()
    wall_s = time.perf_counter() - ready
    took = {"virtual_seconds": round(simulation.now, 3), "events": simulation.events, "messages": simulation.messages}
    took |= {"setup_seconds": round(ready - start, 3), "wall_seconds": round(wall_s, 3)}
    took |= {"us_per_event": round(1e6 * wall_s / simulation.events, 2)}
    return {"agents": len(specs), "queries": queries, "alpha": alpha, "seed": seed, **_summary(results, specs), **took}


def question(number: int, alpha: float, seed: int = 0) -> Query:
    """Made-up query number ``number``; all that is random about it follows from ``seed``."""
    text = f"question {number}"
    return Query(str(number), (Message("user", text),), alpha, seed=zlib.crc32(f"{seed}:{text}".encode()))


def _pool(pool: str, topology: str | None, seed: int) -> tuple[dict[str, AgentSpec], Topology]:
    config = load(pool)
    if any(agent.engine.kind != "scripted" for agent in config.agents):
        config = config.with_engine("scripted", refuse=0.5)
    config = load(
        {**config.model_dump(exclude_unset=True), "seed": seed, **({"topology": topology} if topology else {})}
    )
    return agent_specs(config), config.build_topology()


def _made_up(agents: int, topology: str, seed: int) -> tuple[dict[str, AgentSpec], Topology]:
    """Agents of rising cost: the dearer, the slower, the surer, and the less often it refuses."""
    specs = {}
    for rank in range(agents):
        name, level = f"agent-{rank:0{len(str(agents - 1))}}", rank / max(agents - 1, 1)
        engine: dict[str, Any] = {"refuse": 0.6 * (1 - level), "confidence": "random", "pieces": 4}
        engine |= {"delay_s": 0.05 + 0.2 * level, "piece_s": 0.01 + 0.04 * level}
        card = Card(name, round(0.1 + 0.8 * level, 6), mean_work=50.0)
        specs[name] = AgentSpec(
            card, Setup(name, seed=seed), ("scripted", engine), ("reliability", {}), ("likelihood", {})
        )
    try:
        costs = {name: spec.card.cost for name, spec in specs.items()}
        return specs, build(TOPOLOGIES, topology, "topology", costs)
    except TopologyError as error:
        raise ConfigError(f"topology {topology!r}: {error}") from error


def _summary(results: Sequence[Reply | MeshError], specs: Mapping[str, AgentSpec]) -> dict[str, Any]:
    replies = [result for result in results if isinstance(result, Reply)]
    count = max(len(replies), 1)
    seconds = sorted(reply.seconds for reply in replies) or [0.0]
    summary: dict[str, Any] = {
        "answered": len(replies),
        "failed": len(results) - len(replies),
        "hops_mean": round(sum(len(reply.path) for reply in replies) / count, 3),
        "cost_mean": round(sum(reply.cost for reply in replies) / count, 4),
        "full_cost_mean": round(sum(reply.full_cost for reply in replies) / count, 4),
        "seconds_p50": round(seconds[len(seconds) // 2], 4),
        "seconds_p99": round(seconds[int(0.99 * (len(seconds) - 1))], 4),
    }
    if len(specs) <= SHOWN:
        answers = Counter(reply.agent for reply in replies)
        summary["share"] = {name: round(100 * answers[name] / count, 1) for name in specs}
    return summary
