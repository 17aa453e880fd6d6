"""The plane of cost and accuracy: what a method's points, one for each alpha, are worth together.

Costs are means over the questions, in units of price; accuracies are in [0, 1]. AIQ is RouterBench's (Hu et al. 2024,
arXiv 2403.12031); the gain, the saving and the distance are after LLMRouterBench (Li et al. 2026, arXiv 2601.07206),
over all questions at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import hypot
from typing import TypeAlias

Point: TypeAlias = tuple[float, float]  # cost, accuracy


def hull(points: Sequence[Point]) -> list[Point]:
    """The upper convex hull that never falls, by cost: what can be had by mixing points, and paying no more than one
    must.
    """
    found: list[Point] = []
    for cost, accuracy in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if found and accuracy <= max(height for _, height in found):
            continue
        while len(found) > 1 and _turns_up(found[-2], found[-1], (cost, accuracy)):
            found.pop()
        found.append((cost, accuracy))
    return found


def _turns_up(first: Point, middle: Point, last: Point) -> bool:
    """Whether the middle one lies on the line between the others, or below."""
    left = (middle[1] - first[1]) * (last[0] - first[0])
    return left <= (last[1] - first[1]) * (middle[0] - first[0])


def aiq(points: Sequence[Point], low: float, high: float) -> float:
    """Average improvement in quality: the mean height of the hull between two costs. Below its first point a method
    has nothing to offer (0), beyond its last it stays as good as there.

    Raises:
        ValueError: ``high`` is not above ``low``, or there is no point.
    """
    if not high > low or not points:
        raise ValueError(f"from {low} to {high} there is no area under {len(points)} points")
    line = hull(points)
    knots = sorted({low, high, *(cost for cost, _ in line if low < cost < high)})
    area = sum((b - a) * (_height(line, a, b) + _height(line, b, a)) / 2 for a, b in pairwise(knots))
    return area / (high - low)


def _height(line: Sequence[Point], at: float, towards: float) -> float:
    """The hull's height at a cost, as seen from between it and ``towards``."""
    between = (at + towards) / 2
    if between < line[0][0]:
        return 0.0
    if between > line[-1][0]:
        return line[-1][1]
    for (x, y), (u, v) in pairwise(line):
        if x <= between <= u:
            return y + (v - y) * (at - x) / (u - x)
    return line[0][1]  # a single point


def perf_gain(points: Sequence[Point], single: Point) -> float:
    """How much more accurate the method's best point is than the most accurate single agent, as a share of that."""
    return max(accuracy for _, accuracy in points) / single[1] - 1


def cost_save(points: Sequence[Point], single: Point) -> float | None:
    """What is saved of the most accurate single agent's cost at its accuracy; None where that is not reached."""
    enough = [cost for cost, accuracy in points if accuracy >= single[1]]
    return 1 - min(enough) / single[0] if enough else None


def pareto(points: Sequence[Point]) -> list[Point]:
    """The points that none beats in one thing and equals in the other, by cost."""
    found: list[Point] = []
    for cost, accuracy in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if not found or accuracy > found[-1][1]:
            found.append((cost, accuracy))
    return found


def pareto_dist(points: Sequence[Point], everybody: Sequence[Point]) -> float:
    """Mean distance of a method's points to the nearest Pareto point of all methods, each axis scaled to what is
    between the cheapest and dearest, and the worst and best, of those.
    """
    best = pareto(everybody)
    spans = [max(axis) - min(axis) or 1.0 for axis in zip(*everybody, strict=True)]
    near = [min(hypot((x - u) / spans[0], (y - v) / spans[1]) for u, v in best) for x, y in points]
    return sum(near) / len(near)
