"""``mesh bench learning``: how fast values are learnt from feedback, by the test questions one after the other.

From nothing; after an agent joins a pool that has learnt without it; and after one gets worse. Who joins begins with
what the pool's entry has learnt, as with that one's ``keep`` for its ``values``; and, to compare, with nothing. Every
curve is a mean over orders of the questions, and every query is routed before anybody hears what became of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from agents.policies import Policy
from agents.policies.value import Value
from benchmarks.outcomes import Floats, Ints, Outcomes, Routed
from benchmarks.parallel import spread
from benchmarks.rehearsal import rehearsed
from benchmarks.shapes import Shape
from benchmarks.walking import walk
from topologies import Mesh

SHARES = (0.1, 1.0)  # of queries about which somebody says whether the answer was right
EXPLORE = 0.02  # share of queries that agents spend on trying, as long as they learn
WINDOW = 250  # queries of which a curve shows the mean
NEAR = 0.95  # of the way to where it ends counts as there
WORSE = 0.5  # of its right answers are wrong once an agent has got worse
EVENTS = {
    "joins": "joins",
    "dearest_joins": "joins",
    "dearest_joins_with_nothing": "joins with nothing",
    "worsens": "gets worse",
}  # as a result names them, and in words


@dataclass(frozen=True, slots=True)
class Stream:
    """What became of questions in one order: utilities and who answered, (Q,)."""

    utility: Floats
    agent: Ints


def measure(
    validation: Outcomes, test: Outcomes, name: str, alpha: float, seed: int, orders: int, processes: int = 1
) -> dict[str, Any]:
    """All that stands under RESULT.

    Args:
        name: the agent that joins, and that gets worse. So does the dearest one join.
        orders: of the questions, over which curves are means.
    """
    full, dearest = _shape(validation, test), test.agents[int(test.costs.argmax())]
    joins = {"joins": (name, True), "dearest_joins": (dearest, True), "dearest_joins_with_nothing": (dearest, False)}
    known = _learnt(full, alpha)
    best = walk(test, known, full.topology, alpha)[0]
    events = {
        "from_nothing": partial(_from_nothing, full, best),
        **{key: partial(_joined, full, *who) for key, who in joins.items()},
        "worsens": partial(_worse, full, name),
    }
    each = [*product(events, SHARES)]
    curves = dict(zip(each, spread(partial(_event, events, alpha, seed, orders), each, processes), strict=True))
    return {
        "alpha": alpha,
        "n": len(test),
        "orders": orders,
        "window": WINDOW,
        "offline": float(best.utility(alpha).mean()),
        **{event: {f"{share:g}": curves[event, share] for share in SHARES} for event in events},
    }


def _event(
    events: Mapping[str, Callable[..., dict[str, Any]]], alpha: float, seed: int, orders: int, which: tuple[str, float]
) -> dict[str, Any]:
    event, share = which
    return events[event](alpha, share, seed, orders)


def busiest(validation: Outcomes, alpha: float) -> str:
    """Who answers most of the validation questions, but for the entry."""
    shape = _shape(validation, validation)
    answered = walk(validation, _learnt(shape, alpha), shape.topology, alpha)[0].agent
    counts = np.bincount(answered, minlength=len(validation.agents))
    counts[validation.agents.index(shape.topology.entries()[0])] = -1
    return validation.agents[int(counts.argmax())]


def _shape(validation: Outcomes, test: Outcomes) -> Shape:
    return Shape(Mesh(dict(zip(test.agents, test.costs.tolist(), strict=True))), validation, test)


def _learnt(shape: Shape, alpha: float) -> dict[str, Policy]:
    """Values that have been learnt on the validation questions."""
    return rehearsed({name: Value() for name in shape.test.agents}, shape.validation, shape.topology, (alpha,))


def _stream(shape: Shape, policies: Mapping[str, Policy], alpha: float, share: float, order: Ints, seed: int) -> Stream:
    """Questions in an order, with feedback on a share of them."""
    for policy in policies.values():
        assert isinstance(policy, Value)
        policy.explore = EXPLORE
    told = np.random.default_rng(seed).random(len(order)) < share
    found, _ = walk(shape.test.at(order), policies, shape.topology, alpha, feedback=told)
    return Stream(found.utility(alpha), found.agent)


def _orders(count: int, seed: int, orders: int) -> list[Ints]:
    return [np.random.default_rng((seed, number)).permutation(count) for number in range(orders)]


def _from_nothing(shape: Shape, best: Routed, alpha: float, share: float, seed: int, orders: int) -> dict[str, Any]:
    """Utility as it learns, that of agents that have learnt on the validation questions, and what is lost to these."""
    curves, bests = [], []
    for number, order in enumerate(_orders(len(shape.test), seed, orders)):
        policies = {name: Value() for name in shape.test.agents}
        curves.append(_stream(shape, policies, alpha, share, order, number).utility)
        bests.append(best.utility(alpha)[order])
    lost = np.mean(bests, axis=0) - np.mean(curves, axis=0)
    return {
        "utility": _windows(curves),
        "offline": _windows(bests),
        "regret": np.cumsum(lost)[WINDOW - 1 :: WINDOW].tolist(),
    }


def _joined(shape: Shape, name: str, told: bool, alpha: float, share: float, seed: int, orders: int) -> dict[str, Any]:
    """An agent joins a pool that has learnt without it; it is ``told`` what the entry has learnt, or knows nothing."""
    at = shape.test.agents.index(name)
    others = [place for place in range(len(shape.test.agents)) if place != at]
    before = _shape(shape.validation.of(others), shape.test.of(others))
    learnt = _learnt(before, alpha)
    alone = walk(before.test, deepcopy(learnt), before.topology, alpha)[0].utility(alpha)
    entry = learnt[before.topology.entries()[0]]
    assert isinstance(entry, Value)
    shares, curves = [], []
    for number, order in enumerate(_orders(len(shape.test), seed, orders)):
        policies = {**deepcopy(learnt), name: Value(entry.learnt() if told else None)}
        found = _stream(shape, policies, alpha, share, order, number)
        shares.append((found.agent == at).astype(float))
        curves.append(found.utility - alone[order])
    return {"agent": name, "share": _windows(shares), "gain": _windows(curves), **_there(shares, curves)}


def _worse(shape: Shape, name: str, alpha: float, share: float, seed: int, orders: int) -> dict[str, Any]:
    """An agent of a pool that has learnt gets worse: a share of its right answers, drawn at random, is wrong."""
    at = shape.test.agents.index(name)
    right = shape.test.right.copy()
    right[at] *= np.random.default_rng(seed).random(len(shape.test)) >= WORSE
    after = Shape(shape.topology, shape.validation, replace(shape.test, right=right))
    learnt = _learnt(shape, alpha)
    before = walk(shape.test, deepcopy(learnt), shape.topology, alpha)[0]
    frozen = before.utility(alpha) - shape.test.right[before.agent, np.arange(len(right.T))]
    frozen = frozen + right[before.agent, np.arange(len(right.T))]
    shares, curves = [], []
    for number, order in enumerate(_orders(len(shape.test), seed, orders)):
        found = _stream(after, deepcopy(learnt), alpha, share, order, number)
        shares.append((found.agent == at).astype(float))
        curves.append(found.utility - frozen[order])
    begun = float((before.agent == at).mean())
    return {
        "agent": name,
        "share_before": begun,
        "share": _windows(shares),
        "gain": _windows(curves),
        **_there(shares, curves, begun),
    }


def _windows(curves: Sequence[Floats]) -> list[float]:
    """The mean of each ``WINDOW`` queries, over all orders."""
    mean = np.mean(curves, axis=0)
    return [float(mean[start : start + WINDOW].mean()) for start in range(0, len(mean) - WINDOW + 1, WINDOW)]


def _there(shares: Sequence[Floats], gains: Sequence[Floats], begun: float = 0.0) -> dict[str, Any]:
    """After how many queries an agent's share of the answers, and what that gains, have come ``NEAR`` to where they
    end, which is the mean of the last quarter; None where they have not.
    """
    quarter = len(shares[0]) // 4
    share, gain = np.mean(shares, axis=0), np.mean(gains, axis=0)
    ends = float(share[-quarter:].mean()), float(gain[-quarter:].mean())
    return {
        "share_end": ends[0],
        "gain_end": ends[1],
        "share_there": _first(share, begun, ends[0]),
        "gain_there": _first(gain, 0.0, ends[1]),
    }


def _first(curve: Floats, begun: float, end: float) -> int | None:
    """After how many queries the mean of the last ``WINDOW`` is near to the end."""
    trailing = np.convolve(curve, np.full(WINDOW, 1 / WINDOW), mode="valid")
    way = (trailing - begun) / (end - begun) if end != begun else np.ones_like(trailing)
    near = np.flatnonzero(way >= NEAR)
    return int(near[0]) + WINDOW if len(near) else None


def tables(result: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Utility from nothing; and after each event, where an agent's share begins and ends, and when it is near."""
    begun = [
        {"feedback": share, "first": each["utility"][0], "last": each["utility"][-1]}
        | {"offline": each["offline"][-1], "regret": each["regret"][-1]}
        for share, each in result["from_nothing"].items()
    ]
    events = [
        {"": f"{each['agent']} {what}", "feedback": share, "first": each["share"][0], "last": each["share_end"]}
        | {"near after": each["share_there"], "gain": each["gain_end"], "gain near after": each["gain_there"]}
        for key, what in EVENTS.items()
        for share, each in result[key].items()
    ]
    return begun, events


def draw(result: Mapping[str, Any], path: Path) -> None:
    """The curves, as png."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 4, figsize=(19, 4.2))
    for share, found in result["from_nothing"].items():
        xs = (np.arange(len(found["utility"])) + 1) * WINDOW
        axes[0].plot(xs, found["utility"], label=f"feedback on {float(share):.0%}")
    axes[0].plot(xs, found["offline"], "k:", label="learnt offline")
    shown = ("joins", "dearest_joins", "worsens")
    for axis, key in zip(axes[1:], shown, strict=True):
        for share, found in result[key].items():
            axis.plot(
                (np.arange(len(found["share"])) + 1) * WINDOW, found["share"], label=f"feedback on {float(share):.0%}"
            )
        axis.set(title=f"{found['agent']} {EVENTS[key]}", ylabel="share of answers", xlabel="queries")
    axes[0].set(title="from nothing", ylabel=f"utility at alpha {result['alpha']:g}", xlabel="queries")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
