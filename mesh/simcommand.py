"""The command ``mesh sim``."""

from __future__ import annotations

from typing import Annotated

import typer

from mesh.options import AsJson
from mesh.query import check_alpha
from mesh.terminal import cell, print_json, print_table, progress_by_name


def sim(
    agents: Annotated[int, typer.Option(min=1, help="How many agents; they do as measured ones did.")] = 100,
    queries: Annotated[int, typer.Option(min=1, help="How many queries.")] = 1000,
    alpha: Annotated[float, typer.Option(help="0: the best answer, 1: the cheapest.")] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="What all randomness follows from.")] = 0,
    topology: Annotated[
        str | None, typer.Option(help="Who may forward to whom; default: as in the pool, else a tree.")
    ] = None,
    policy: Annotated[str, typer.Option(help="How agents decide.")] = "reliability",
    figures: Annotated[str, typer.Option(help="What agents do: lab, nine_models, or a file of figures.")] = "lab",
    rate: Annotated[float, typer.Option(min=1e-6, help="Queries a second at each agent that is an entry.")] = 0.5,
    fail: Annotated[float, typer.Option(min=0, max=1, help="Share of drafts that break off.")] = 0.0,
    feedback: Annotated[
        float, typer.Option(min=0, max=1, help="Share of replies of which agents hear whether they were right.")
    ] = 0.0,
    faults: Annotated[
        int, typer.Option(min=0, help="How often something happens to some agent; all promises are then checked.")
    ] = 0,
    pool: Annotated[
        str | None, typer.Option(help="Simulate this pool's agents, scripted, instead of measured ones.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Simulate a mesh in virtual time, with the code that runs for real."""
    from mesh.simulate import simulate

    with progress_by_name() as told:
        result = simulate(
            pool=pool,
            agents=agents,
            queries=queries,
            alpha=check_alpha(alpha),
            seed=seed,
            topology=topology,
            policy=policy,
            figures=figures,
            fail=fail,
            rate=rate,
            feedback=feedback,
            faults=faults,
            progress=lambda done, total: told("queries", done, total),
        )
    if as_json:
        return print_json(result)
    print_table([{"": key.replace("_", " "), "value": cell(value)} for key, value in result.items()])
