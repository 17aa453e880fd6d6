"""Utility against every known way to route: one pool, the same questions, the same rows to learn from.

Routers learn on ``train`` and choose on ``validation``; so do we. All are held to recorded outcomes of the same test
questions. The best baseline is the one that turns out best on the test itself, which is more than it could know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from agents.errors import ConfigError
from agents.policies import Bar, Policy, RefusalPolicy, Reliability
from benchmarks.baselines import BASELINES
from benchmarks.frontier import aiq, cost_save, pareto_dist, perf_gain
from benchmarks.outcomes import Asked, Floats, Outcomes, Routed, routed
from benchmarks.recording import Recording
from benchmarks.walking import walk
from mesh.config import MeshConfig
from topologies import Topology
from training.bars import best_bars
from training.recipes import OWN_ROWS, others
from training.scores import interval, resampled
from training.threshold import GAMMAS

ALPHAS = (0.2, 0.5, 0.8)
VALIDATION = 4000


@dataclass(frozen=True, slots=True)
class Method:
    """One way to route, and what became of the test questions at each alpha."""

    name: str
    ours: bool
    found: Mapping[float, Routed]

    def points(self) -> list[tuple[float, float]]:
        """Mean cost and accuracy at each alpha."""
        return [(float(each.cost.mean()), float(each.right.mean())) for each in self.found.values()]


def lab_outcomes(
    config: MeshConfig, count: int, seed: int, alphas: Sequence[float], work: Path, told: Callable[[str], None]
) -> tuple[Outcomes, Outcomes, Outcomes]:
    """Of a pool with questions of its own: all that its agents were trained on, other validation questions than those
    their calibrations were fitted on, and ``count`` fresh ones. What agents replied stays in ``work``.

    Raises:
        ConfigError: it makes no questions.
    """
    make = config.question_maker
    if make is None:
        raise ConfigError(f"pool {config.name!r} makes no questions; record its agents on some with `mesh record`")
    learnt = {row.id: row for row in (*make(OWN_ROWS["train"], "train", 0), *others(config, 0))}
    parts = {
        "train": (list(learnt.values()), ()),
        "validation": (list(make(VALIDATION, "validation", seed + 1)), tuple(alphas)),
        "test": (list(make(count, "test", seed)), tuple(alphas)),
    }
    found = []
    for name, (asked, at) in parts.items():
        told(f"recording {len(asked)} {name} questions")
        recording = Recording(config, asked, work / name, at, p_true=name != "train")  # no router learns from it
        recording.record()
        found.append(recording.outcomes())
    return found[0], found[1], found[2]


def baselines(
    train: Outcomes,
    validation: Outcomes,
    test: Outcomes,
    alphas: Sequence[float],
    seed: int,
    names: Sequence[str] = (),
    done: Callable[[str], None] = lambda _: None,
) -> list[Method]:
    """All baselines, or those named; one that cannot be had of these outcomes is left out."""
    found = []
    for name in names or BASELINES:
        router = BASELINES[name]()
        try:
            router.fit(train, validation, seed)
        except ConfigError:  # it needs what was not recorded
            done(f"{name}, left out")
            continue
        by_alpha = {}
        for alpha in alphas:
            asked = Asked(test)
            by_alpha[alpha] = routed(test, router.route(asked, alpha), asked)
        found.append(Method(name, False, by_alpha))
        done(name)
    return found


def ours(
    validation: Outcomes, test: Outcomes, topology: Topology, alphas: Sequence[float]
) -> tuple[list[Method], list[Method]]:
    """Our ways on the validation and on the test questions: the paper's rule, with its gamma and with the best one, and
    bars that are learnt, by the price of the answer or by that of all work.
    """
    rules: dict[str, dict[str, Policy]] = {f"mesh-reliability-{gamma:g}": _alike(test, gamma) for gamma in GAMMAS}
    for full in (False, True):
        rules["mesh-bar-full" if full else "mesh-bar"] = learnt(validation, topology, alphas, full)
    tried = [
        [
            Method(name, True, {a: walk(rows, policies, topology, a)[0] for a in alphas})
            for name, policies in rules.items()
        ]
        for rows in (validation, test)
    ]
    return tried[0], tried[1]


def _alike(outcomes: Outcomes, gamma: float) -> dict[str, Policy]:
    return dict.fromkeys(outcomes.agents, Reliability(gamma))


def learnt(validation: Outcomes, topology: Topology, alphas: Sequence[float], full: bool) -> dict[str, Policy]:
    """Each agent's bars, for the line in which a question that nobody answers walks through the topology."""
    line = walked(validation, topology)
    bars: dict[int, dict[float, float]] = {agent: {} for agent in line}
    assert validation.looks is not None
    passing = np.where(np.isnan(validation.looks), validation.work, validation.looks)[line]
    spent = (validation.work + np.nan_to_num(validation.looks))[line] if full else validation.costs[line, None]
    for alpha in sorted(alphas):
        worth = validation.right[line] - alpha * spent
        found, _ = best_bars(validation.beliefs[alpha][line], worth, alpha * passing * full)
        for agent, bar in zip(line, found, strict=True):
            bars[agent][alpha] = float(bar)
    return {validation.agents[agent]: Bar(bars[agent]) for agent in line}


def walked(outcomes: Outcomes, topology: Topology) -> list[int]:
    """The agents that a question meets which all of them refuse, in order."""
    one = replace(outcomes.at(np.array([0])), beliefs={0.5: np.full((len(outcomes.agents), 1), np.nan)})
    _, (path,) = walk(one, dict.fromkeys(outcomes.agents, RefusalPolicy()), topology, 0.5)
    return list(path)


def chosen(tried: Sequence[Method]) -> str:
    """The way with the highest mean utility on the rows it was tried on, by cost and by full cost alike."""

    def worth(method: Method) -> float:
        return float(
            np.mean([each.utility(a, full).mean() for a, each in method.found.items() for full in (False, True)])
        )

    return max(tried, key=worth).name


def figures(methods: Sequence[Method], name: str, test: Outcomes, alphas: Sequence[float], seed: int) -> dict[str, Any]:
    """What stands under RESULT: by alpha the oracle, ours against the best baseline, and all methods."""
    draws = list(resampled(len(test), seed))
    return {"n": len(test), "alphas": {f"{a:g}": _at(methods, name, test, a, draws) for a in alphas}}


def _at(methods: Sequence[Method], name: str, test: Outcomes, alpha: float, draws: Sequence[Any]) -> dict[str, Any]:
    oracle = test.utilities(alpha).max(axis=0)
    mine = next(method for method in methods if method.name == name)
    others = [method for method in methods if not method.ours]
    versus: dict[str, Any] = {}
    for full, key in ((False, ""), (True, "_full")):
        best = max(others, key=lambda method: method.found[alpha].utility(alpha, full).mean())
        diff = mine.found[alpha].utility(alpha, full) - best.found[alpha].utility(alpha, full)
        versus |= {f"baseline{key}": best.name, f"diff{key}": float(diff.mean()), f"ci{key}": _interval(diff, draws)}
        above = float(oracle.mean() - best.found[alpha].utility(alpha, full).mean())
        versus[f"gap_closed{key}"] = float(diff.mean()) / above if above > 0 else None
    return {
        "oracle": float(oracle.mean()),
        "ours": {"name": name, "chosen_on": "validation"},
        "vs_best": versus,
        "methods": {method.name: _row(method.found[alpha], alpha, oracle, draws) for method in methods},
    }


def _row(found: Routed, alpha: float, oracle: Floats, draws: Sequence[Any]) -> dict[str, Any]:
    utility = found.utility(alpha)
    return {
        "utility": float(utility.mean()),
        "ci": _interval(utility, draws),
        "utility_full": float(found.utility(alpha, True).mean()),
        "accuracy": float(found.right.mean()),
        "cost": float(found.cost.mean()),
        "full_cost": float(found.full_cost.mean()),
        "pct_oracle": 100 * float(utility.mean() / oracle.mean()),
    }


def _interval(values: Floats, draws: Sequence[Any]) -> tuple[float, float]:
    return interval([values[at].mean() for at in draws])


def planes(methods: Sequence[Method], test: Outcomes) -> dict[str, dict[str, float | None]]:
    """AIQ and its like for every method, over its alphas."""
    accuracies = test.right.mean(axis=1)
    single = (float(test.costs[accuracies.argmax()]), float(accuracies.max()))
    everybody = [point for method in methods for point in method.points()]
    low, high = float(test.costs.min()), float(test.costs.max())
    return {
        method.name: {
            "aiq": aiq(method.points(), low, high),
            "perf_gain": perf_gain(method.points(), single),
            "cost_save": cost_save(method.points(), single),
            "pareto_dist": pareto_dist(method.points(), everybody),
        }
        for method in methods
    }
