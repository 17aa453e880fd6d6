"""Scripted pools, asked on any runtime, and what must be the same on all of them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from agents.engines.base import Setup
from agents.engines.scripted import ScriptedEngine
from agents.errors import MeshError
from agents.messages import Message, Outcome, Query, Reply
from agents.offers import Offer
from agents.policies import Answer, Decision, Decline, Draft, Forward, Look, Policy, RefusalPolicy, View
from mesh import Mesh
from mesh.assemble import agent_specs
from mesh.config import MeshConfig, load
from mesh.runtimes.sim import Simulation

RULES: dict[str, dict[str, Any]] = {
    "refusal": {"policy": "refusal", "assessor": "refusal", "engine": {"refuse": 0.5}},
    "reliability": {
        "policy": "reliability",
        "assessor": "likelihood",
        "engine": {"refuse": 0.2, "confidence": "random"},
    },
    "first_token": {"policy": "reliability", "assessor": "first_token", "engine": {"confidence": "random"}},
    "staged": {
        "policy": "tests.pools:Restless",
        "assessor": "first_token",
        "engine": {"refuse": 0.2, "confidence": "random"},
    },
    "p_true": {"policy": "reliability", "assessor": "p_true", "engine": {"refuse": 0.2, "confidence": "random"}},
    "speculative": {"policy": "speculative", "assessor": "first_token", "engine": {"confidence": "random"}},
    "committee": {
        "policy": "committee",
        "assessor": "first_token",
        "engine": {"confidence": "random", "answer": "{agent}"},
    },
    "shortest_path": {
        "policy": "shortest_path",
        "assessor": "first_token",
        "engine": {"refuse": 0.2, "confidence": "random"},
    },
}
SHAPES = ("cascade", "tree", "mesh")


def pool(
    rule: str = "refusal",
    topology: str = "cascade",
    agents: int = 5,
    seed: int = 0,
    engine: Mapping[str, Any] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """A pool of scripted agents that answer in four pieces; ``engine`` and ``settings`` are added as they are."""
    plugins = RULES[rule]
    scripted = {"kind": "scripted", "pieces": 4, **plugins["engine"], **(engine or {})}
    members = [{"name": f"a{rank}", "cost": round(0.1 + 0.8 * rank / max(agents - 1, 1), 3)} for rank in range(agents)]
    return {
        "name": "scripted",
        "runtime": "local",
        "topology": topology,
        "seed": seed,
        "defaults": {**plugins, "engine": scripted, "mean_work": 50.0, "num_gpus": 0},
        "agents": members,
        **settings,
    }


def questions(count: int) -> list[str]:
    """So many different questions."""
    return [f"what is {number} plus {number}?" for number in range(count)]


def simulation(source: Mapping[str, Any] | MeshConfig, **options: Any) -> Simulation:
    """A pool in virtual time."""
    config, known = load(source), {"stall_s", "tick_s"}
    limits = {key: value for key, value in config.limits.model_dump().items() if key in known}
    settings = {"seed": config.seed, "max_attempts": config.max_attempts, **limits, **options}
    return Simulation(agent_specs(config), config.build_topology(), **settings)


def query(config: MeshConfig, text: str, alpha: float, query_id: str, **fields: Any) -> Query:
    """The query that ``Mesh.ask`` makes of a text."""
    common: dict[str, Any] = {"remaining_s": config.deadline_s, "max_tokens": config.max_tokens, **fields}
    return Query(query_id, (Message("user", text),), alpha, seed=zlib.crc32(text.encode()), **common)


def simulated(source: Mapping[str, Any], texts: Sequence[str], alpha: float, **fields: Any) -> list[Reply | MeshError]:
    """What becomes of the texts in virtual time, asked one every 10 ms."""
    config, world = load(source), simulation(source)
    for number, text in enumerate(texts):
        world.ask(query(config, text, alpha, str(number), **fields), number / 100)
    return world.run()


def asked(source: Mapping[str, Any], texts: Sequence[str], alpha: float, **options: Any) -> list[Reply | MeshError]:
    """What becomes of the texts on the runtime that the pool names."""
    with Mesh.from_yaml(source) as mesh:
        return mesh.ask_many(texts, alpha, **options)


def trail(result: Reply | MeshError) -> tuple[Any, ...]:
    """All of a result that does not depend on time: who did what, said what, and what it cost."""
    if not isinstance(result, Reply):
        return (type(result).__name__,)
    path = tuple((hop.agent, hop.verdict, hop.confidence, hop.full_cost, hop.reason) for hop in result.path)
    return (path, result.text, result.agent, result.cost, result.full_cost, result.finish, result.attempts)


class Learner(RefusalPolicy):
    """Forwards what its agent refuses, and remembers every outcome that it hears of."""

    learns = True

    def __init__(self) -> None:
        self.heard: list[Outcome] = []

    def learn(self, outcome: Outcome) -> None:
        self.heard.append(outcome)


class Restless(Policy):
    """Looks, drafts, forwards with an offer, hands back or answers, as the query's seed will have it."""

    staged = True

    def decide(self, view: View) -> Decision:
        told = f"{view.seed}:{view.looked}:{view.draft}:{len(view.offers)}:{len(view.neighbours)}"
        at = zlib.crc32(told.encode()) % 6
        steps: list[Decision] = [Answer(), Decline(view.offers)]
        if view.draft is None:
            steps.append(Draft())
            if not view.looked:
                steps.append(Look())
        mine = (*view.offers, Offer(view.agent.name, 0.1 * at))
        steps += [Forward(card.name, offers) for card in view.neighbours[:2] for offers in ((), mine)]
        return steps[at % len(steps)]


class Split(ScriptedEngine):
    """Says that it splits a model over so many GPUs."""

    def __init__(self, setup: Setup, *, tensor_parallel_size: int = 1, **options: Any) -> None:
        super().__init__(setup, **options)
