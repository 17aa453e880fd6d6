"""Our own ways to route, learnt from what each agent did: rules, bars, and profiles; and what becomes of questions on
each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from agents.offers import Offer, comes_to
from agents.policies import Bar, Policy, RefusalPolicy, Reliability, Reservation
from agents.profile import Profile
from benchmarks.outcomes import Floats, Method, Outcomes
from benchmarks.parallel import spread
from benchmarks.walking import Way, walk
from topologies import Topology
from training.bars import best_bars
from training.profiles import Record, drafts, learn_agreement, learn_prior, learn_values
from training.threshold import GAMMAS

GRID = tuple(round(0.1 * step, 1) for step in range(11))  # alphas at which agents tell what it is worth to ask them
KINDS = ("looks", "drafts", "both")  # what agents know of themselves: before they draft, of their drafts


def ways(
    train: Outcomes, validation: Outcomes, topology: Topology, alphas: Sequence[float], processes: int = 1
) -> dict[str, Way]:
    """Our ways: the paper's rule, with its gamma and with others; bars that are learnt; and routing by what agents tell
    of themselves, where they look before they draft, judge their drafts, or both. ``-full`` ones are learnt for the
    price of all work, others for that of the answer.
    """
    found = {f"mesh-reliability-{gamma:g}": Way(_alike(validation, Reliability(gamma))) for gamma in GAMMAS}
    begun, both = priors(train, validation, processes), [*product((False, True), KINDS)]
    told = dict(zip(both, spread(partial(_told, begun, validation, tuple(alphas)), both, processes), strict=True))
    for full, end in ((False, ""), (True, "-full")):
        found[f"mesh-bar{end}"] = Way(learnt(validation, topology, alphas, full))
        for kind in KINDS:
            found[f"mesh-reservation-{kind}{end}"] = Way(_alike(validation, Reservation()), told[full, kind])
    return found


def tried(
    found: Mapping[str, Way], outcomes: Outcomes, topology: Topology, alphas: Sequence[float], processes: int = 1
) -> list[Method]:
    """What becomes of questions on each way."""
    return [*spread(partial(_tried, found, outcomes, topology, tuple(alphas)), found, processes)]


def _tried(
    found: Mapping[str, Way], outcomes: Outcomes, topology: Topology, alphas: Sequence[float], name: str
) -> Method:
    way = found[name]
    return Method(name, True, {a: walk(outcomes, way.policies, topology, a, way.profiles)[0] for a in alphas})


def priors(train: Outcomes, validation: Outcomes, processes: int = 1) -> dict[str, Profile]:
    """How likely each agent is right by a question's text; it learns that from its own answers."""
    both = [(tuple(question.text for question in rows.questions), rows.right) for rows in (train, validation)]
    places = range(len(train.agents))
    return dict(zip(train.agents, spread(partial(_prior, both), places, processes), strict=True))


def _prior(both: Sequence[tuple[tuple[str, ...], Floats]], place: int) -> Profile:
    return learn_prior(*(Record(texts, right[place]) for texts, right in both))


def _told(
    begun: Mapping[str, Profile], validation: Outcomes, alphas: Sequence[float], way: tuple[bool, str]
) -> dict[str, Profile]:
    full, kind = way
    return profiles(begun, validation, alphas, full, kind)


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


def middle(alphas: Sequence[float]) -> float:
    """That nearest to a half."""
    return min(alphas, key=lambda alpha: abs(alpha - 0.5))
