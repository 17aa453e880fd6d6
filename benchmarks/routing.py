"""Utility against every known way to route: one pool, the same questions, the same rows to learn from.

Routers learn on ``train`` and choose on ``validation``; so do we. All are held to recorded outcomes of the same test
questions. The best baseline is the one that turns out best on the test itself, which is more than it could know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from agents.errors import ConfigError
from agents.offers import Offer, comes_to
from agents.policies import Bar, Policy, RefusalPolicy, Reliability, Reservation
from agents.profile import Profile
from benchmarks.baselines import BASELINES
from benchmarks.experiments import comings_and_goings, easy_and_hard, shares
from benchmarks.frontier import aiq, cost_save, pareto_dist, perf_gain
from benchmarks.missing import missing, sureness
from benchmarks.outcomes import Asked, Floats, Outcomes, Routed, routed
from benchmarks.parallel import workers
from benchmarks.recording import Recording
from benchmarks.unseen import LONGER
from benchmarks.unseen import questions as unseen
from benchmarks.walking import Way, walk
from mesh.config import MeshConfig
from mesh.questions import Question
from topologies import Topology
from training.bars import best_bars
from training.examine import by_the_hundred
from training.lab_questions import Part
from training.profiles import Record, drafts, learn_agreement, learn_prior, learn_values
from training.recipes import OWN_ROWS, others
from training.scores import interval, resampled
from training.threshold import GAMMAS

ALPHAS = (0.2, 0.5, 0.8)
PARTS: tuple[Part, ...] = ("train", "validation", "test")
VALIDATION = 4000
GRID = tuple(round(0.1 * step, 1) for step in range(11))  # alphas at which agents tell what it is worth to ask them
_GIVEN: list[Callable[[str], Any]] = []  # in a process that fits baselines: how. What they learn from comes but once
KINDS = ("looks", "drafts", "both")  # what agents know of themselves: before they draft, of their drafts


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
    one = partial(_baseline, train, validation, test, tuple(alphas), seed)
    if processes == 1:
        return [method for name in names or BASELINES if (method := _told(name, partial(one, name), done))]
    with workers(processes, _give, one) as fitters:
        jobs = {name: fitters.submit(_fitted, name) for name in names or BASELINES}
        return [method for name, job in jobs.items() if (method := _told(name, job.result, done))]


def _baseline(
    train: Outcomes, validation: Outcomes, test: Outcomes, alphas: Sequence[float], seed: int, name: str
) -> Method:
    router, found = BASELINES[name](), {}
    router.fit(train, validation, seed)
    for alpha in alphas:
        asked = Asked(test)
        found[alpha] = routed(test, router.route(asked, alpha), asked)
    return Method(name, False, found)


def _told(name: str, one: Callable[[], Method], done: Callable[[str], None]) -> Method | None:
    try:
        method = one()
    except ConfigError as error:  # it needs what was not recorded
        done(f"{name}, left out: {error}")
        return None
    done(name)
    return method


def _give(one: Callable[[str], Method]) -> None:
    _GIVEN.append(one)


def _fitted(name: str) -> Method:
    (one,) = _GIVEN
    return one(name)


def ways(train: Outcomes, validation: Outcomes, topology: Topology, alphas: Sequence[float]) -> dict[str, Way]:
    """Our ways: the paper's rule, with its gamma and with others; bars that are learnt; and routing by what agents tell
    of themselves, where they look before they draft, judge their drafts, or both. ``-full`` ones are learnt for the
    price of all work, others for that of the answer.
    """
    found = {f"mesh-reliability-{gamma:g}": Way(_alike(validation, Reliability(gamma))) for gamma in GAMMAS}
    begun = priors(train, validation)
    for full, end in ((False, ""), (True, "-full")):
        found[f"mesh-bar{end}"] = Way(learnt(validation, topology, alphas, full))
        for kind in KINDS:
            told = profiles(begun, validation, alphas, full, kind)
            found[f"mesh-reservation-{kind}{end}"] = Way(_alike(validation, Reservation()), told)
    return found


def tried(found: Mapping[str, Way], outcomes: Outcomes, topology: Topology, alphas: Sequence[float]) -> list[Method]:
    """What becomes of questions on each way."""
    return [
        Method(name, True, {a: walk(outcomes, way.policies, topology, a, way.profiles)[0] for a in alphas})
        for name, way in found.items()
    ]


def priors(train: Outcomes, validation: Outcomes) -> dict[str, Profile]:
    """How likely each agent is right by a question's text; it learns that from its own answers."""
    both = [(tuple(question.text for question in rows.questions), rows.right) for rows in (train, validation)]
    return {
        name: learn_prior(*(Record(texts, right[at]) for texts, right in both)) for at, name in enumerate(train.agents)
    }


def profiles(
    begun: Mapping[str, Profile], validation: Outcomes, alphas: Sequence[float], full: bool, kind: str
) -> dict[str, Profile]:
    """Each agent's profile, by what it saw of itself on the validation questions."""
    texts, names = tuple(question.text for question in validation.questions), validation.agents
    beliefs, looks = validation.beliefs[middle(alphas)], validation.looks
    assert looks is not None
    found, offers = {}, {}
    for at, name in enumerate(names):
        may_look = kind != "drafts" and not np.isnan(looks[at]).any()
        record = Record(
            texts,
            validation.right[at],
            beliefs[at] if may_look else None,
            validation.signals["likelihood"][at] if kind != "looks" else None,
            looks[at] if may_look else None,
            validation.work[at],
        )
        cost = float(validation.costs[at])
        found[name] = learn_values(begun[name], record, cost, sorted({*GRID, *alphas}), full)
        sure = drafts(found[name], record)
        said = map(comes_to, validation.texts[at])
        offers[name] = [Offer(name, p, said=text) for p, text in zip(sure, said, strict=True)]
    if not all(any(texts) for texts in validation.texts):
        return found
    for at, name in enumerate(names):
        others = [offers[each] for each in names if each != name]
        found[name] = learn_agreement(found[name], validation.right[at], offers[name], others)
    return found


def keep_profiles(told: Mapping[str, Profile], folder: Path) -> None:
    """Write each agent's into ``folder/AGENT.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, profile in told.items():
        (folder / f"{name}.json").write_bytes(profile.written())


def _alike(outcomes: Outcomes, policy: Policy) -> dict[str, Policy]:
    return dict.fromkeys(outcomes.agents, policy)


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


def chosen(found: Sequence[Method], full: bool) -> str:
    """The way with the highest mean utility on the rows it was tried on, by cost or by full cost."""

    def worth(method: Method) -> float:
        return float(np.mean([each.utility(alpha, full).mean() for alpha, each in method.found.items()]))

    return max(found, key=worth).name


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


def middle(alphas: Sequence[float]) -> float:
    """That nearest to a half."""
    return min(alphas, key=lambda alpha: abs(alpha - 0.5))


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
