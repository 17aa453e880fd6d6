"""``mesh bench routing`` on a pool with questions of its own: agents are asked, ways are held to what they did."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.ours import chosen, keep_profiles, tried, ways
from benchmarks.results import folder, publish, working
from benchmarks.routing import ALPHAS, baselines, lab_outcomes, report
from benchmarks.routing_figures import draw, table
from mesh.config import load
from mesh.query import check_alpha
from mesh.terminal import print_table, say


def run(
    pool: str,
    count: int,
    alphas: Sequence[float],
    seed: int,
    names: Sequence[str],
    work: Path | None,
    told: Path | None,
    out: Path | None,
    processes: int = 2,
    longer: bool = False,
    name: str = "routing",
) -> None:
    """Ask, measure, print the table, and publish as ``name``.

    Args:
        count: questions asked of every agent.
        names: of baselines; none: all.
        work: folder for what agents reply; None: a passing one.
        told: folder for the profiles that agents learn.
        out: folder of the result.
        processes: that work at a time.
        longer: ask longer questions than any that agents and routers have met.
    """
    config, alphas = load(pool), [check_alpha(each) for each in sorted(alphas or ALPHAS)]
    with working(work) as place:
        train, validation, test = lab_outcomes(config, count, seed, alphas, place, say, processes, longer=longer)
    topology = config.build_topology()
    mine = ways(train, validation, topology, alphas, processes)
    known = tried(mine, validation, topology, alphas, processes)
    best = chosen(known, False), chosen(known, True)
    if told is not None:
        keep_profiles(mine[best[1]].profiles or {}, told)
    methods = [
        *tried(mine, test, topology, alphas, processes),
        *baselines(train, validation, test, alphas, seed, names, say, processes),
    ]
    found = report(methods, mine, best, test, topology, alphas, seed)
    result = {"bench": "routing", "pool": config.name, "seed": seed, "longer": longer, **found}
    print_table(table(result))
    draw(methods, test, best[0], folder(out) / f"{name}.png")
    publish(name, result, seed, out)
