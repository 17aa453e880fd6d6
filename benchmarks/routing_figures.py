"""How routing is shown: tables, and two plots for all methods: utility over alpha, and cost against accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.frontier import hull
from benchmarks.outcomes import Method, Outcomes

SHOWN = 8  # baselines in a plot, the best of them: more cannot be told apart


def table(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a method, best first: at each alpha utility with its interval, % of the oracle, utility by full cost."""
    by_alpha = result["alphas"]
    names = next(iter(by_alpha.values()))["methods"]

    def mean(name: str) -> float:
        return sum(at["methods"][name]["utility"] for at in by_alpha.values())

    rows = []
    for name in sorted(names, key=mean, reverse=True):
        row: dict[str, Any] = {"method": name}
        for alpha, at in by_alpha.items():
            found = at["methods"][name]
            low, high = found["ci"]
            row[f"{alpha}"] = f"{found['utility']:.3f} ({low:.3f} to {high:.3f})"
            row[f"{alpha}, % of oracle"] = f"{found['pct_oracle']:.1f}"
            row[f"{alpha}, full"] = f"{found['utility_full']:.3f}"
        rows.append(row)
    return rows


def draw(methods: Sequence[Method], test: Outcomes, ours: str, path: Path) -> None:
    """Both plots, side by side, as png."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (over, plane) = pyplot.subplots(1, 2, figsize=(13, 5.2))
    alphas = sorted(methods[0].found)
    drawn = _drawn(methods, ours)
    for method in drawn:
        style = {"linewidth": 2.5, "color": "black"} if method.name == ours else {"linewidth": 1.0}
        over.plot(alphas, [method.found[a].utility(a).mean() for a in alphas], label=method.name, **style)
        points = sorted(method.points())
        plane.plot(*zip(*points, strict=True), marker=".", **style)
    over.plot(alphas, [test.utilities(a).max(axis=0).mean() for a in alphas], "k:", label="oracle")
    edge = hull([point for method in drawn for point in method.points()])
    plane.plot(*zip(*edge, strict=True), "k--", linewidth=0.8, label="convex hull")
    singles = test.costs, test.right.mean(axis=1)
    plane.plot(*singles, "x", color="grey", label="single agents")
    over.set(xlabel="alpha", ylabel="utility, right - alpha * cost")
    plane.set(xlabel="cost of the answer", ylabel="accuracy")
    for axis in (over, plane):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _drawn(methods: Sequence[Method], ours: str) -> list[Method]:
    """Ours, and the best of the others."""

    def worth(method: Method) -> float:
        return float(sum(each.utility(a).mean() for a, each in method.found.items()))

    others = sorted((method for method in methods if not method.ours), key=worth, reverse=True)
    return [method for method in methods if method.name == ours] + others[:SHOWN]
