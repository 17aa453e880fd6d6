"""Utility against every known way to route: one pool, the same questions, the same rows to learn from.

Routers learn on ``train`` and choose on ``validation``; so do we. All are held to recorded outcomes of the same test
questions. The best baseline is the one that turns out best on the test itself, which is more than it could know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import as_completed
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from agents.errors import ConfigError
from benchmarks.baselines import BASELINES
from benchmarks.experiments import comings_and_goings, easy_and_hard, shares
from benchmarks.frontier import aiq, cost_save, pareto_dist, perf_gain
from benchmarks.missing import missing, sureness
from benchmarks.ours import middle
from benchmarks.outcomes import Asked, Floats, Method, Outcomes, Routed, routed
from benchmarks.parallel import spread, workers
from benchmarks.recording import Recording
from benchmarks.unseen import LONGER
from benchmarks.unseen import questions as unseen
from benchmarks.walking import Way, walk
from mesh.config import MeshConfig
from mesh.questions import Question
from topologies import Topology
from training.examine import by_the_hundred
from training.lab_questions import Part
from training.recipes import OWN_ROWS, others
from training.scores import interval, resampled

ALPHAS = (0.2, 0.5, 0.8)
PARTS: tuple[Part, ...] = ("train", "validation", "test")
VALIDATION = 4000


def lab_outcomes(
    config: MeshConfig,
    count: int,
    seed: int,
    alphas: Sequence[float],
    work: Path,
    told: Callable[[str], None],
    processes: int = 2,
    parts: Sequence[Part] = PARTS,
    p_true: bool = True,
    longer: bool = False,
) -> list[Outcomes]:
    """Of a pool with questions of its own: all that its agents were trained on, other validation questions than those
    their calibrations were fitted on, and ``count`` fresh ones (``longer``: such as nobody has met); or only some
    ``parts`` of these. What agents replied stays in ``work``; they are asked in processes of their own, with ``p_true``
    also whether their answers are true.

    Raises:
        ConfigError: it makes no questions.
    """
    make = config.question_maker
    if make is None:
        raise ConfigError(f"pool {config.name!r} makes no questions; record its agents on some with `mesh record`")
    asked: dict[Part, Callable[[], Iterable[Question]]] = {
        "train": lambda: {row.id: row for row in (*make(OWN_ROWS["train"], "train", 0), *others(config, 0))}.values(),
        "validation": lambda: make(VALIDATION, "validation", seed + 1),
        "test": lambda: unseen(LONGER, count, seed) if longer else make(count, "test", seed),
    }
    recordings = {}
    for part in parts:
        says = part != "train"  # what agents say of themselves there nobody learns from
        at = tuple(alphas) if says else ()
        place = work / ("longer" if longer and part == "test" else part)
        asking = config if says else by_the_hundred(config)  # nor does anybody learn how many seconds an answer took
        recordings[part] = Recording(asking, list(asked[part]()), place, at, p_true and says)
    with workers(processes) as recorders:
        jobs = {
            recorders.submit(recording.ask, agent): f"{agent.name}, {len(recording.questions)} {name} questions"
            for name, recording in recordings.items()
            for agent in sorted(recording.config.agents, key=lambda agent: -agent.cost)
        }
        for done in as_completed(jobs):
            done.result()
            told(f"recorded {jobs[done]}")
    return [recording.outcomes() for recording in recordings.values()]


def baselines(
    train: Outcomes,
    validation: Outcomes,
    test: Outcomes,
    alphas: Sequence[float],
    seed: int,
    names: Sequence[str] = (),
    done: Callable[[str], None] = lambda _: None,
    processes: int = 1,
) -> list[Method]:
    """All baselines, or those named, so many at a time; one that cannot be had of these outcomes is left out."""
    methods, asked = [], names or tuple(BASELINES)
    one = partial(_baseline, train, validation, test, tuple(alphas), seed)
    for name, found in zip(asked, spread(one, asked, processes), strict=True):
        if isinstance(found, ConfigError):
            done(f"{name}, left out: {found}")
        else:
            done(name)
            methods.append(found)
    return methods


def _baseline(
    train: Outcomes, validation: Outcomes, test: Outcomes, alphas: Sequence[float], seed: int, name: str
) -> Method | ConfigError:
    """What becomes of the test questions; an error where it needs what was not recorded."""
    router, found = BASELINES[name](), {}
    try:
        router.fit(train, validation, seed)
    except ConfigError as error:
        return error
    for alpha in alphas:
        asked = Asked(test)
        found[alpha] = routed(test, router.route(asked, alpha), asked)
    return Method(name, False, found)


def report(
    methods: Sequence[Method],
    mine: Mapping[str, Way],
    best: tuple[str, str],
    test: Outcomes,
    topology: Topology,
    alphas: Sequence[float],
    seed: int,
) -> dict[str, Any]:
    """All that stands under RESULT: the figures, what ours lack to the oracle, what becomes of them when agents come
    and go, what easy and hard questions cost, and who answers.
    """
    by_name = {method.name: method for method in methods}
    return {
        **figures(methods, best, test, alphas, seed),
        "planes": planes(methods, test),
        "missing": {name: decomposed(mine[name], by_name[name], test, alphas, seed) for name in dict.fromkeys(best)},
        "changes": changes(mine[best[1]], test, topology, alphas),
        "easy_and_hard": easy_and_hard(test, {name: method.found[middle(alphas)] for name, method in by_name.items()}),
        "shares": {name: shares(by_name[name].found, test.agents) for name in dict.fromkeys(best)},
    }


def figures(
    methods: Sequence[Method], names: tuple[str, str], test: Outcomes, alphas: Sequence[float], seed: int
) -> dict[str, Any]:
    """What stands under RESULT: by alpha the oracle, ours (``names``: by cost, by full cost) against the best baseline,
    and all methods.
    """
    draws = list(resampled(len(test), seed))
    return {"n": len(test), "alphas": {f"{a:g}": _at(methods, names, test, a, draws) for a in alphas}}


def _at(
    methods: Sequence[Method], names: tuple[str, str], test: Outcomes, alpha: float, draws: Sequence[Any]
) -> dict[str, Any]:
    oracle = test.utilities(alpha).max(axis=0)
    others = [method for method in methods if not method.ours]
    versus: dict[str, Any] = {}
    for name, full, key in zip(names, (False, True), ("", "_full"), strict=True):
        mine = next(method for method in methods if method.name == name)
        best = max(others, key=lambda method: method.found[alpha].utility(alpha, full).mean())
        diff = mine.found[alpha].utility(alpha, full) - best.found[alpha].utility(alpha, full)
        versus |= {f"baseline{key}": best.name, f"diff{key}": float(diff.mean()), f"ci{key}": _interval(diff, draws)}
        above = float(oracle.mean() - best.found[alpha].utility(alpha, full).mean())
        versus[f"gap_closed{key}"] = float(diff.mean()) / above if above > 0 else None
    return {
        "oracle": float(oracle.mean()),
        "ours": {"name": names[0], "name_full": names[1], "chosen_on": "validation"},
        "vs_best": versus,
        "methods": {method.name: _row(method.found[alpha], alpha, oracle, test, draws) for method in methods},
    }


def _row(found: Routed, alpha: float, oracle: Floats, test: Outcomes, draws: Sequence[Any]) -> dict[str, Any]:
    utility, answers = found.utility(alpha), test.work[found.agent, np.arange(len(test))]
    return {
        "utility": float(utility.mean()),
        "ci": _interval(utility, draws),
        "utility_full": float(found.utility(alpha, True).mean()),
        "accuracy": float(found.right.mean()),
        "cost": float(found.cost.mean()),
        "full_cost": float(found.full_cost.mean()),
        "pct_oracle": 100 * float(utility.mean() / oracle.mean()),
        "work_beside_answers": 1 - float(answers.sum() / found.full_cost.sum()),
        "hops": None if found.hops is None else float(found.hops.mean()),
    }


def _interval(values: Floats, draws: Sequence[Any]) -> tuple[float, float]:
    return interval([values[at].mean() for at in draws])


def decomposed(
    way: Way, found: Method, test: Outcomes, alphas: Sequence[float], seed: int
) -> dict[str, dict[str, float]]:
    """By alpha, what one of our ways lacks to the oracle."""
    told = {
        a: np.nan_to_num(test.beliefs[a]) if way.profiles is None else sureness(test, way.profiles, a) for a in alphas
    }
    return {f"{a:g}": missing(test, told[a], found.found[a], a, seed) for a in alphas}


def changes(way: Way, test: Outcomes, topology: Topology, alphas: Sequence[float]) -> list[dict[str, Any]]:
    """What becomes of one of our ways when agents leave and join: the two that answer most go, but for the entry, the
    second of them comes back, and whoever answers most of those left was not there from the beginning. Fewer than five
    agents are left alone.
    """
    alpha, entry = middle(alphas), test.agents.index(topology.entries()[0])
    answered = walk(test, way.policies, topology, alpha, way.profiles)[0].agent
    most = [int(at) for at in np.argsort(-np.bincount(answered, minlength=len(test.agents)), kind="stable")]
    names = [test.agents[at] for at in most if at != entry]
    if len(test.agents) < 5:
        return []
    return comings_and_goings(test, way, names[1::-1], names[2], alpha)


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
