"""``mesh bench topologies``: the same agents in every shape, under every policy, on the same recorded questions.

Policies that learn have gone over the validation questions, with feedback on all; test questions tell them nothing but
what agents say of themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np

from agents.errors import ConfigError
from agents.messages import Card
from agents.policies import Answer, Policy, Reliability, Reservation, View
from agents.policies.cells import Means, cluster
from agents.policies.learner import Done
from agents.policies.more import MORE
from agents.policies.value import ALPHAS as GRID
from agents.policies.value import Value
from agents.profile import Profile
from benchmarks.missing import missing
from benchmarks.ours import walked
from benchmarks.outcomes import Floats, Outcomes, Routed
from benchmarks.parallel import spread
from benchmarks.rehearsal import rehearsed
from benchmarks.results import working
from benchmarks.routing import ALPHAS, lab_outcomes
from benchmarks.walking import walk
from mesh.config import MeshConfig, load
from mesh.terminal import say
from topologies import Cascade, Mesh, SmallWorld, Topology, Tree
from training.lab_questions import Part
from training.scores import interval, resampled

LINE = "cascade of five"
FIVE, EIGHT, TELLING = "lab", "lab-mesh", "lab-reservation"  # pools; the agents of the last have profiles


@dataclass(frozen=True, slots=True)
class Shape:
    """A topology, and the outcomes of its agents on the validation and the test questions."""

    topology: Topology
    validation: Outcomes
    test: Outcomes


def recorded(config: MeshConfig, count: int, seed: int, work: Path | None) -> tuple[Outcomes, Outcomes]:
    """What its agents do with validation questions and ``count`` test questions; see ``lab_outcomes``, ``working``."""
    parts: tuple[Part, ...] = ("validation", "test")
    with working(work) as place:
        validation, test = lab_outcomes(config, count, seed, ALPHAS, place, say, parts=parts, p_true=False)
    return validation, test


def shapes(validation: Outcomes, test: Outcomes, seed: int) -> dict[str, Shape]:
    """A cascade of the five generalists, and all agents as a cascade, a tree, a mesh and a small world."""
    known = {agent.name for agent in load(FIVE).agents}
    five = [at for at, name in enumerate(test.agents) if name in known]

    def shape(make: Callable[..., Topology], validation: Outcomes, test: Outcomes, **options: Any) -> Shape:
        return Shape(make(dict(zip(test.agents, test.costs.tolist(), strict=True)), **options), validation, test)

    return {
        LINE: shape(Cascade, validation.of(five), test.of(five)),
        "cascade": shape(Cascade, validation, test),
        "tree": shape(Tree, validation, test),
        "mesh": shape(Mesh, validation, test),
        "small_world": shape(SmallWorld, validation, test, seed=seed),
    }


def published() -> dict[str, Profile]:
    """What the lab's agents tell of themselves."""
    return {agent.name: Profile.load(agent.profile) for agent in load(TELLING).agents if agent.profile}


def contenders(names: Sequence[str] = ()) -> dict[str, Callable[[], Policy]]:
    """How to make each policy, or those named. Raises ConfigError for an unknown one."""
    found: dict[str, Callable[[], Policy]] = {"reliability": Reliability, "reservation": Reservation, **MORE}
    found["value-full"] = partial(Value, full=True)
    del found["budget"], found["guard"]  # without one it is reliability
    if unknown := set(names) - found.keys():
        raise ConfigError(f"policy: unknown {', '.join(sorted(unknown))}; there are {', '.join(found)}")
    return {name: found[name] for name in names or found}


def by_backward_induction(rows: Outcomes, topology: Topology, alpha: float) -> dict[str, Policy]:
    """The rule of ``value`` in a line, with the values that questions really had there: those of the last agent are
    known, and so, agent by agent, are those of all before it.
    """
    line, place = walked(rows, topology), GRID.index(alpha)
    policies: dict[str, Policy] = {rows.agents[line[-1]]: Value()}
    worth = rows.utilities(alpha)
    gained = worth[line[-1]].copy()
    for at, behind in reversed(list(pairwise(line))):
        policy, peer = Value(), Card(rows.agents[behind], float(rows.costs[behind]))
        policy.values, policy.words = Means(window=len(rows)), Means(window=len(rows))
        me = Card(rows.agents[at], float(rows.costs[at]))
        views = [
            View(me, alpha, p, p is None, (peer,), text=question.text)
            for p, question in ((rows.looked(at, n, alpha), q) for n, q in enumerate(rows.questions))
        ]
        for number, view in enumerate(views):
            done = Done(me.name, cluster(view.text), view.text, view.confidence)
            right, said = float(rows.right[at, number]), 0.5 if view.confidence is None else view.confidence
            policy.words.learn(done.cells(me.name, -1), right - said)
            policy.values.learn(done.cells(peer.name, place), float(gained[number]))
        answers = np.array([isinstance(policy.decide(view), Answer) for view in views])
        gained = np.where(answers, worth[at], gained)
        policies[me.name] = policy
    return policies


def measure(
    found: Mapping[str, Shape],
    makers: Mapping[str, Callable[[], Policy]],
    profiles: Mapping[str, Profile],
    alphas: Sequence[float],
    seed: int,
    told: Callable[[str], None] = lambda _: None,
    processes: int = 2,
) -> dict[str, Any]:
    """What stands under RESULT: every policy in every shape at every alpha, and what is compared pair by pair.

    Args:
        profiles: what agents tell of themselves, for policies that go by that.
    """
    draws = list(resampled(len(found[LINE].test), seed))
    routed: dict[tuple[str, str, float], Routed] = {}
    each = [*product(makers, found)]
    for (policy, name), routes in zip(
        each, spread(partial(_routed, makers, found, profiles, alphas), each, processes), strict=True
    ):
        for alpha, route in zip(alphas, routes, strict=True):
            routed[policy, name, alpha] = route
        told(f"{policy}, {name}")
    line = found[LINE]
    best = {
        alpha: walk(line.test, by_backward_induction(line.validation, line.topology, alpha), line.topology, alpha)[
            0
        ].utility(alpha)
        for alpha in alphas
    }
    return {
        "n": len(line.test),
        "alphas": {
            f"{alpha:g}": {
                policy: {
                    name: _row(routed[policy, name, alpha], shape.test, alpha, draws) for name, shape in found.items()
                }
                for policy in makers
            }
            for alpha in alphas
        },
        "oracle": {
            name: {f"{alpha:g}": float(shape.test.utilities(alpha).max(axis=0).mean()) for alpha in alphas}
            for name, shape in found.items()
        },
        **_compared(routed, found, best, alphas, draws, seed),
    }


def _routed(
    makers: Mapping[str, Callable[[], Policy]],
    found: Mapping[str, Shape],
    profiles: Mapping[str, Profile],
    alphas: Sequence[float],
    which: tuple[str, str],
) -> list[Routed]:
    """What becomes of the test questions at each alpha, by a policy in a shape."""
    make, shape = makers[which[0]], found[which[1]]
    policies = rehearsed({name: make() for name in shape.test.agents}, shape.validation, shape.topology, alphas)
    return [walk(shape.test, policies, shape.topology, alpha, profiles)[0] for alpha in alphas]


def _compared(
    routed: Mapping[tuple[str, str, float], Routed],
    found: Mapping[str, Shape],
    best: Mapping[float, Floats],
    alphas: Sequence[float],
    draws: Sequence[Any],
    seed: int,
) -> dict[str, Any]:
    """``value`` against ``reliability`` and against its optimum in the line, other shapes against the cascade of the
    same agents, and what ``value`` lacks to the oracle.
    """
    test = found[LINE].test

    def got(policy: str, shape: str, alpha: float) -> Floats:
        return routed[policy, shape, alpha].utility(alpha)

    return {
        "value_vs_reliability": {
            f"{a:g}": _paired(got("value", LINE, a) - got("reliability", LINE, a), draws) for a in alphas
        },
        "value_vs_optimum": {
            f"{a:g}": {"optimum": float(best[a].mean()), **_paired(got("value", LINE, a) - best[a], draws)}
            for a in alphas
        },
        "value_vs_cascade": {
            name: {f"{a:g}": _paired(got("value", name, a) - got("value", "cascade", a), draws) for a in alphas}
            for name in found
            if name not in (LINE, "cascade")
        },
        "missing": {
            f"{a:g}": missing(test, np.nan_to_num(test.beliefs[a]), routed["value", LINE, a], a, seed) for a in alphas
        },
    }


def _paired(difference: Floats, draws: Sequence[Any]) -> dict[str, Any]:
    return {"diff": float(difference.mean()), "ci": interval([float(difference[at].mean()) for at in draws])}


def _row(found: Routed, test: Outcomes, alpha: float, draws: Sequence[Any]) -> dict[str, Any]:
    utility = found.utility(alpha)
    assert found.hops is not None
    return {
        "utility": float(utility.mean()),
        "ci": interval([float(utility[at].mean()) for at in draws]),
        "utility_full": float(found.utility(alpha, True).mean()),
        "pct_oracle": 100 * float(utility.mean() / test.utilities(alpha).max(axis=0).mean()),
        "accuracy": float(found.right.mean()),
        "cost": float(found.cost.mean()),
        "full_cost": float(found.full_cost.mean()),
        "hops": float(found.hops.mean()),
    }


def table(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a policy and shape: at each alpha utility with its interval, share of the oracle, utility by full cost, and
    hops.
    """
    by_alpha = result["alphas"]
    first = next(iter(by_alpha.values()))
    rows = []
    for policy, by_shape in first.items():
        for shape in by_shape:
            row: dict[str, Any] = {"policy": policy, "shape": shape}
            for alpha, at in by_alpha.items():
                cell = at[policy][shape]
                row[alpha] = "{:.3f} ({:.3f} to {:.3f})".format(cell["utility"], *cell["ci"])
                row[f"{alpha}, %"] = f"{cell['pct_oracle']:.1f}"
                row[f"{alpha}, full"] = f"{cell['utility_full']:.3f}"
                row[f"{alpha}, hops"] = f"{cell['hops']:.2f}"
            rows.append(row)
    return rows


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Utility by cost and by full cost, a bar a policy and shape, for each alpha, as png."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    by_alpha = result["alphas"]
    figure, axes = pyplot.subplots(2, len(by_alpha), figsize=(5 * len(by_alpha), 8), squeeze=False)
    for column, (alpha, at) in enumerate(by_alpha.items()):
        for row, (key, what) in enumerate((("utility", "by the answer's price"), ("utility_full", "by all work"))):
            axis, names = axes[row][column], list(next(iter(at.values())))
            width = 0.8 / len(at)
            for number, (policy, cells) in enumerate(at.items()):
                places = np.arange(len(names)) + number * width - 0.4
                axis.bar(places, [cells[name][key] for name in names], width, label=policy)
            axis.set(title=f"alpha {alpha}, {what}", xticks=range(len(names)))
            axis.set_xticklabels(names, rotation=20, fontsize=8)
            axis.grid(axis="y", alpha=0.3)
    axes[0][0].legend(fontsize=7, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
