"""``mesh bench speculation``: how much sooner forwarded queries end where the next agent begins before this one has
decided, and what is done in vain for that.

In virtual time, with the production node, owner and policies, each query by itself: an agent says, takes and spends for
each question what it did when it was recorded. Where it looks, it takes its median time for that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from msgspec.structs import replace as replaced

from agents.engines.base import Setup
from agents.engines.scripted import ScriptedEngine, Step
from agents.errors import QueryError
from agents.messages import Card, Message, Piece, Query, Reply, Request, ScoreRequest, Scores
from agents.node import Settings
from agents.spec import AgentSpec
from benchmarks.outcomes import Outcomes
from benchmarks.shapes import published
from mesh.assemble import agent_specs
from mesh.config import MeshConfig
from mesh.runtimes.sim import Simulation
from topologies import Cascade, Topology

APART_S = 60.0  # between two queries: nobody waits for a place
DEADLINE_S = 1e6
SURE = 1e-9  # nobody is surer of being right, or wrong
FLOORS = (0.0, 0.2, 1.0)  # of ``hopeless``: always draft, draft where there is a chance, only where the look will do
DOUBTS = (0.6, 1.0, 1.2)
EARLY = (0.0, 0.5, 0.8, 1.0, 1.2)
MOST = 1.10  # times the full cost without
TRIED = 500  # validation questions that bounds are chosen by


@dataclass(frozen=True, slots=True)
class Cell:
    """What an agent did with a question: how sure it was, and its draft; ``looked`` are the tokens of its look."""

    p: float
    looked: int
    prompt: int
    tokens: int
    likelihood: float
    seconds: float
    text: str


class Recorded(ScriptedEngine):
    """Does what was recorded; ``cells`` are by the question's text."""

    def __init__(self, setup: Setup, *, cells: Mapping[str, Cell], score_s: float) -> None:
        super().__init__(setup, score_s=score_s)
        self.cells = cells

    def plan(self, request: Request) -> list[Step]:
        cell = self.cells[request.messages[-1].content]
        steps = [Step(0.0, Piece("", 0, 0.0, cell.prompt))]  # paid for as soon as it is begun
        count = max(cell.tokens, 1)
        for number in range(count):
            last = number == count - 1
            piece = Piece(cell.text if last else "", 1, cell.likelihood, 0, "stop" if last else None)
            steps.append(Step(cell.seconds / count, piece))
        return steps

    def scores(self, request: ScoreRequest) -> Scores:
        cell = self.cells[request.messages[-1].content]
        return Scores((math.log1p(-min(cell.p, 1 - SURE)),), cell.looked)


def seconds(folder: Path, agents: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """By agent and kind of reply (drafts, looks) the last hop of each reply by its question, as it was recorded.

    Raises:
        QueryError: there are no drafts of an agent.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name in agents:
        for kind in ("drafts", "looks"):
            path = folder / f"{name}.{kind}.jsonl"
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            rows = [row for row in map(json.loads, lines) if row.get("path")]
            found.setdefault(name, {})[kind] = {row["question"]: row["path"][-1] for row in rows}
        if not found[name]["drafts"]:
            raise QueryError(f"work: {folder} has no drafts of {name!r}; give what `mesh record` left there")
    return found


@dataclass(frozen=True, slots=True)
class Pool:
    """Agents as they were recorded on some questions."""

    outcomes: Outcomes
    took: Mapping[str, Mapping[str, Mapping[str, Any]]]
    cards: Mapping[str, Card]
    topology: Topology

    def play(self, policy: str, options: Mapping[str, Any], alpha: float) -> list[Reply]:
        """What becomes of the questions, one after the other, with everybody going by a policy."""
        world = Simulation(self._specs(policy, options, alpha), self.topology)
        for number, question in enumerate(self.outcomes.questions):
            asked = Query(str(number), (Message("user", question.text),), alpha, remaining_s=DEADLINE_S, seed=number)
            world.ask(asked, number * APART_S)
        replies = world.run()
        assert all(isinstance(reply, Reply) for reply in replies)
        return replies  # type: ignore[return-value]

    def _specs(self, policy: str, options: Mapping[str, Any], alpha: float) -> dict[str, AgentSpec]:
        specs, outcomes, settings = {}, self.outcomes, Settings(prompt="plain")
        for at, name in enumerate(outcomes.agents):
            drafts, looks = self.took[name]["drafts"], self.took[name]["looks"]
            beliefs = np.nan_to_num(outcomes.beliefs[alpha][at])
            cells = {}
            for number, question in enumerate(outcomes.questions):
                drafted, looked = drafts[question.id], looks.get(question.id, {})
                tokens = drafted["prompt_tokens"], drafted["generated_tokens"]
                likelihood = float(outcomes.signals["likelihood"][at, number])
                p, spent, text = float(beliefs[number]), int(looked.get("prompt_tokens", 0)), outcomes.texts[at][number]
                cells[question.text] = Cell(p, spent, *tokens, likelihood, drafted["seconds"], text)
            score_s = median([hop["seconds"] for hop in looks.values()] or [0.0])
            engine = (f"{__name__}:Recorded", {"cells": cells, "score_s": score_s})
            card, setup = self.cards[name], Setup(name)
            specs[name] = AgentSpec(card, setup, engine, (policy, dict(options)), ("first_token", {}), settings)
        return specs


def figures(replies: Sequence[Reply], outcomes: Outcomes, alpha: float) -> dict[str, Any]:
    """Utility, full cost, and how long it took; ``seconds``, and ``who`` was forwarded, are (Q,)."""
    places = {name: at for at, name in enumerate(outcomes.agents)}
    right = np.array([outcomes.right[places[reply.agent], number] for number, reply in enumerate(replies)])
    cost, full = np.array([reply.cost for reply in replies]), np.array([reply.full_cost for reply in replies])
    forwarded = np.array([reply.agent != outcomes.agents[0] for reply in replies])
    vain = np.array([any(hop.verdict == "cancelled" for hop in reply.path) for reply in replies])
    return {
        "utility": float((right - alpha * cost).mean()),
        "full_cost": float(full.mean()),
        "forwarded": float(forwarded.mean()),
        "in_vain": float(vain.mean()),
        "seconds": np.array([reply.seconds for reply in replies]),
        "who": forwarded,
    }


def compared(without: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, float]:
    """Medians of the seconds of queries that are forwarded either way, and what all have cost."""
    both = without["who"] & found["who"]
    before, after = (float(np.median(each["seconds"][both])) for each in (without, found))
    kept = ("utility", "full_cost", "in_vain")
    return {
        "forwarded": float(both.mean()),
        "median_s_without": before,
        "median_s": after,
        "sooner": 1 - after / before,
        "full_cost_ratio": found["full_cost"] / without["full_cost"],
        **{key: found[key] for key in kept},
        **{f"{key}_without": without[key] for key in kept[:2]},
    }


def measure(
    validation: Pool, test: Pool, alphas: Sequence[float], told: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """What stands under RESULT: by alpha, and by when an agent forwards at once, the bounds that make forwarded
    validation queries soonest at no more than ``MOST`` times the full cost, and what they make of the test questions.
    """
    found: dict[str, Any] = {}
    few = replace(validation, outcomes=validation.outcomes.at(np.arange(min(TRIED, len(validation.outcomes)))))
    for alpha in alphas:
        rows: dict[str, Any] = {}
        for floor in FLOORS:
            chosen = _chosen(few, floor, alpha)
            without, early = _tried(test, floor, alpha), _tried(test, floor, alpha, **chosen)
            rows[f"{floor:g}"] = {**chosen, **compared(without, early)}
            told(f"alpha {alpha:g}, hopeless {floor:g}")
        plain = figures(test.play("reliability", {}, alpha), test.outcomes, alpha)
        looks = {key: plain[key] for key in ("utility", "full_cost", "forwarded")}
        looks["median_s"] = float(np.median(plain["seconds"][plain["who"]]))
        found[f"{alpha:g}"] = {"hopeless": rows, "looks_alone": looks}
    return {"bench": "speculation", "n": len(test.outcomes), "agents": list(test.outcomes.agents), "alphas": found}


def _tried(pool: Pool, floor: float, alpha: float, doubt: float = 0.0, early: float = 0.0) -> dict[str, Any]:
    """Without bounds nobody begins early."""
    options = {"hopeless": floor, "doubt": max(doubt, floor), "early": early}
    return figures(pool.play("speculative", options, alpha), pool.outcomes, alpha)


def _chosen(pool: Pool, floor: float, alpha: float) -> dict[str, float]:
    without, best, soonest = _tried(pool, floor, alpha), {"doubt": floor, "early": 0.0}, 0.0
    for doubt, early in product(DOUBTS, EARLY):
        if doubt >= floor:
            told = compared(without, _tried(pool, floor, alpha, doubt, early))
            if told["full_cost_ratio"] <= MOST and told["sooner"] > soonest:
                best, soonest = {"doubt": doubt, "early": early}, told["sooner"]
    return best


def cascades(config: MeshConfig, validation: Outcomes, test: Outcomes, work: Path) -> tuple[Pool, Pool]:
    """The agents of ``config`` in a line, on validation and on test questions; ``work`` has what they replied to these,
    as ``shapes.recorded`` keeps it. They read their drafts by the profiles that they publish, where they do.
    """
    profiles, specs = published(), agent_specs(config)

    def made(outcomes: Outcomes, part: str) -> Pool:
        costs = dict(zip(outcomes.agents, outcomes.costs.tolist(), strict=True))
        cards = {name: replaced(specs[name].card, profile=profiles.get(name)) for name in costs}
        return Pool(outcomes, seconds(work / part, outcomes.agents), cards, Cascade(costs))

    return made(validation, "validation"), made(test, "test")


def rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures as a table."""
    return [
        {"alpha": alpha, "hopeless below": floor, **cells}
        for alpha, each in result["alphas"].items()
        for floor, cells in each["hopeless"].items()
    ]
