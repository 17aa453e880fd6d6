"""``mesh bench speculation``: how much sooner forwarded queries end where the next agent begins before this one has
decided, and what is done in vain for that.

In virtual time, with the production node, owner and policies, each query by itself: an agent says, takes and spends for
each question what it did when it was recorded. Where it looks, it takes its median time for that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from agents.engines.base import Setup
from agents.engines.scripted import ScriptedEngine, Step
from agents.errors import ConfigError
from agents.messages import Card, Message, Piece, Query, Reply, Request, ScoreRequest, Scores
from agents.node import Settings
from agents.profile import Profile
from agents.spec import AgentSpec
from benchmarks.ours import priors, profiles
from benchmarks.outcomes import TOOK, Outcomes
from benchmarks.parallel import spread
from benchmarks.replay import load
from benchmarks.shapes import published, recorded
from mesh.config import MeshConfig
from mesh.runtimes.sim import Simulation
from topologies import Cascade
from training.threshold import GAMMAS

APART_S = 3600.0  # between two queries: nobody waits for a place
DEADLINE_S = 1e6
NO_TEXT = "?"  # of an answer, where rows have none
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


@dataclass(frozen=True, slots=True)
class Pool:
    """Agents in a line by their prices, as they were recorded on some questions."""

    outcomes: Outcomes
    cards: Mapping[str, Card]

    def play(self, policy: str, options: Mapping[str, Any], alpha: float) -> list[Reply]:
        """What becomes of the questions, one after the other, with everybody going by a policy."""
        costs = dict(zip(self.outcomes.agents, self.outcomes.costs.tolist(), strict=True))
        world = Simulation(self._specs(policy, options, alpha), Cascade(costs))
        for number, question in enumerate(self.outcomes.questions):
            asked = Query(str(number), (Message("user", question.text),), alpha, remaining_s=DEADLINE_S, seed=number)
            world.ask(asked, number * APART_S)
        replies = world.run()
        assert all(isinstance(reply, Reply) for reply in replies)
        return replies  # type: ignore[return-value]

    def _specs(self, policy: str, options: Mapping[str, Any], alpha: float) -> dict[str, AgentSpec]:
        specs, took, settings = {}, self.outcomes.took, Settings(prompt="plain")
        for at, name in enumerate(self.outcomes.agents):
            looks = took["look_seconds"][at]
            score_s = 0.0 if np.isnan(looks).any() else float(np.median(looks))
            engine = (f"{__name__}:Recorded", {"cells": self._cells(at, alpha), "score_s": score_s})
            assessor: tuple[str, Mapping[str, Any]] = ("first_token", {})
            specs[name] = AgentSpec(self.cards[name], Setup(name), engine, (policy, dict(options)), assessor, settings)
        return specs

    def _cells(self, at: int, alpha: float) -> dict[str, Cell]:
        """What an agent did, by the question's text. Who does not look goes by its profile's prior, or by nothing."""
        outcomes, profile = self.outcomes, self.cards[self.outcomes.agents[at]].profile
        took = {key: np.nan_to_num(values[at]).tolist() for key, values in outcomes.took.items()}
        looks = outcomes.looks is not None and not np.isnan(outcomes.looks[at]).any()
        cells = {}
        for number, question in enumerate(outcomes.questions):
            believed = outcomes.looked(at, number, alpha) or 0.0 if looks else 0.5
            cells[question.text] = Cell(
                believed if looks or profile is None else profile.prior(question.text),
                int(took["look_tokens"][number]),
                int(took["prompt_tokens"][number]),
                int(took["generated_tokens"][number]),
                float(outcomes.signals["likelihood"][at, number]),
                took["seconds"][number],
                outcomes.texts[at][number] or NO_TEXT,
            )
        return cells


def pool(outcomes: Outcomes, profiles: Mapping[str, Profile]) -> Pool:
    """Recorded agents with the profiles that they publish, by which they read their drafts (without one: by its
    likelihood).

    Raises:
        ConfigError: seconds or tokens were not recorded, or stand twice for one text.
    """
    for key in TOOK[:3]:
        if key not in outcomes.took or np.isnan(outcomes.took[key]).any():
            raise ConfigError(f"rows: {key} was not recorded of every answer; record them again with `mesh record`")
    if len({question.text for question in outcomes.questions}) < len(outcomes):
        raise ConfigError("rows: a question stands there twice, by its text; each must be another")
    spent = outcomes.took["prompt_tokens"] + 4 * outcomes.took["generated_tokens"]
    mean_work = np.median(outcomes.costs[:, None] * spent / outcomes.work, axis=1)
    cards = {
        name: Card(name, cost, mean, profile=profiles.get(name))
        for name, cost, mean in zip(outcomes.agents, outcomes.costs.tolist(), mean_work.tolist(), strict=True)
    }
    none = np.full_like(outcomes.work, np.nan)
    return Pool(replace(outcomes, took={key: outcomes.took.get(key, none) for key in TOOK}), cards)


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


def compared(without: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, float | None]:
    """Medians of the seconds of queries that are forwarded either way (None where none is), and what all have cost."""
    both, kept = without["who"] & found["who"], ("utility", "full_cost", "in_vain")
    told: dict[str, float | None] = {"forwarded": float(both.mean())}
    if both.any():
        before, after = (float(np.median(each["seconds"][both])) for each in (without, found))
        told |= {"median_s_without": before, "median_s": after, "sooner": 1 - after / before}
    else:
        told |= dict.fromkeys(("median_s_without", "median_s", "sooner"))
    return {
        **told,
        "full_cost_ratio": found["full_cost"] / without["full_cost"],
        **{key: found[key] for key in kept},
        **{f"{key}_without": without[key] for key in kept[:2]},
    }


def measure(
    validation: Pool,
    test: Pool,
    alphas: Sequence[float],
    told: Callable[[str], None] = lambda _: None,
    processes: int = 1,
) -> dict[str, Any]:
    """What stands under RESULT: by alpha, and by when an agent forwards at once, the bounds that make forwarded
    validation queries soonest at no more than ``MOST`` times the full cost, and what they make of the test questions.
    The rule's gamma is the one that pays best on validation questions where every agent drafts and nobody begins early.
    """
    few = replace(validation, outcomes=validation.outcomes.at(np.arange(min(TRIED, len(validation.outcomes)))))
    worth = dict(zip(GAMMAS, spread(partial(_worth, few, tuple(alphas)), GAMMAS, processes), strict=True))
    gamma = max(GAMMAS, key=lambda gamma: worth[gamma])
    told(f"gamma {gamma:g}")
    rows: dict[float, dict[str, Any]] = {alpha: {} for alpha in alphas}
    each = [*product(alphas, FLOORS)]
    for (alpha, floor), row in zip(each, spread(partial(_row, few, test, gamma), each, processes), strict=True):
        rows[alpha][f"{floor:g}"] = row
        told(f"alpha {alpha:g}, hopeless {floor:g}")
    found = {f"{alpha:g}": {"hopeless": rows[alpha], "looks_alone": _by_looks(test, gamma, alpha)} for alpha in alphas}
    agents = list(test.outcomes.agents)
    return {"bench": "speculation", "n": len(test.outcomes), "gamma": gamma, "agents": agents, "alphas": found}


def _worth(pool: Pool, alphas: Sequence[float], gamma: float) -> float:
    return sum(_tried(pool, gamma, 0.0, alpha)["utility"] for alpha in alphas)


def _row(validation: Pool, test: Pool, gamma: float, at: tuple[float, float]) -> dict[str, Any]:
    alpha, floor = at
    chosen = _chosen(validation, gamma, floor, alpha)
    without, early = _tried(test, gamma, floor, alpha), _tried(test, gamma, floor, alpha, **chosen)
    return {**chosen, **compared(without, early)}


def _by_looks(test: Pool, gamma: float, alpha: float) -> dict[str, Any]:
    plain = figures(test.play("reliability", {"gamma": gamma}, alpha), test.outcomes, alpha)
    who = plain["who"]
    median = float(np.median(plain["seconds"][who])) if who.any() else None
    return {**{key: plain[key] for key in ("utility", "full_cost", "forwarded")}, "median_s": median}


def _tried(
    pool: Pool, gamma: float, floor: float, alpha: float, doubt: float = 0.0, early: float = 0.0
) -> dict[str, Any]:
    """Without bounds nobody begins early."""
    options = {"gamma": gamma, "hopeless": floor, "doubt": max(doubt, floor), "early": early}
    return figures(pool.play("speculative", options, alpha), pool.outcomes, alpha)


def _chosen(pool: Pool, gamma: float, floor: float, alpha: float) -> dict[str, float]:
    without, best, soonest = _tried(pool, gamma, floor, alpha), {"doubt": floor, "early": 0.0}, 0.0
    for doubt, early in product(DOUBTS, EARLY):
        if doubt >= floor:
            told = compared(without, _tried(pool, gamma, floor, alpha, doubt, early))
            ratio, sooner = told["full_cost_ratio"], told["sooner"]
            if ratio is not None and sooner is not None and ratio <= MOST and sooner > soonest:
                best, soonest = {"doubt": doubt, "early": early}, sooner
    return best


def of_lab(config: MeshConfig, count: int, seed: int, work: Path | None) -> tuple[Pool, Pool]:
    """A lab pool's agents, with the profiles that they ship, on validation questions and on ``count`` fresh ones."""
    told = published()
    return tuple(pool(outcomes, told) for outcomes in recorded(config, count, seed, work))  # type: ignore[return-value]


def of_rows(path: Path, texts: Sequence[str], alphas: Sequence[float]) -> tuple[Pool, Pool]:
    """Recorded agents on validation and on test rows, with profiles that each learns from its own training rows; see
    ``benchmarks.replay.load``.

    Raises:
        ConfigError: what is needed was not recorded.
    """
    replay = load(path, texts)
    told = profiles(priors(replay.train, replay.validation), replay.validation, alphas, True, "both")
    return pool(replay.validation, told), pool(replay.test, told)


def rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures as a table."""
    return [
        {"alpha": alpha, "hopeless below": floor, **cells}
        for alpha, each in result["alphas"].items()
        for floor, cells in each["hopeless"].items()
    ]
