"""``mesh bench``, what is about routing: against other ways, in other shapes, by other policies, by several at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.options import Out, Processes, Work

app = typer.Typer()


@app.command()
def routing(
    pool: Annotated[
        str, typer.Option(help="A pool with questions of its own, or replay:FILE, or a name in MESH_DATA.")
    ] = "lab-mesh",
    count: Annotated[int, typer.Option("--questions", min=100, help="Asked of every agent.")] = 4000,
    alpha: Annotated[list[float] | None, typer.Option(help="May be repeated; default: 0.2, 0.5, 0.8.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the questions, the routers and the bootstrap.")] = 1,
    baseline: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    work: Work = None,
    told: Annotated[Path | None, typer.Option("--profiles", help="Folder for the profiles that agents learn.")] = None,
    texts: Annotated[list[str] | None, typer.Option(help="Question file for rows of ids; may be repeated.")] = None,
    tasks: Annotated[bool, typer.Option(help="Of recorded rows, let everybody read the task's name.")] = True,
    longer: Annotated[bool, typer.Option("--longer", help="Ask longer questions than anybody has met.")] = False,
    processes: Processes = 2,
    name: Annotated[str, typer.Option(help="Of the result file, unless rows are replayed.")] = "routing",
    out: Out = None,
) -> None:
    """Utility against every known way to route: same pool, same questions, same rows to learn from."""
    from benchmarks.replay import path_of

    if (rows := path_of(pool)) is not None:
        from benchmarks.replay_command import run

        return run(rows, texts or (), tasks, alpha or (), seed, baseline or (), told, out)
    from benchmarks.lab_command import run as run_lab

    run_lab(pool, count, alpha or (), seed, baseline or (), work, told, out, processes, longer, name)


@app.command()
def topologies(
    count: Annotated[int, typer.Option("--questions", min=100, help="Asked of every agent.")] = 4000,
    seed: Annotated[int, typer.Option(min=0, help="Of the questions, the small world and the bootstrap.")] = 1,
    policy: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    processes: Processes = 2,
    name: Annotated[str, typer.Option(help="Of the result file.")] = "topologies",
    work: Work = None,
    out: Out = None,
) -> None:
    """The lab's agents in every shape under every policy: utility by cost and by full cost, and hops."""
    from benchmarks.results import folder, publish
    from benchmarks.routing import ALPHAS
    from benchmarks.shapes import EIGHT, contenders, draw, measure, published, recorded, shapes, table
    from mesh.config import load
    from mesh.terminal import print_table, say

    makers = contenders([*dict.fromkeys(("value", "reliability", *policy))] if policy else ())
    validation, test = recorded(load(EIGHT), count, seed, work)
    found = measure(shapes(validation, test, seed), makers, published(), ALPHAS, seed, say, processes)
    result = {"bench": "topologies", "pool": EIGHT, "seed": seed, **found}
    print_table(table(result))
    draw(result, folder(out) / f"{name}.png")
    publish(name, result, seed, out)


@app.command()
def speculation(
    pool: Annotated[str, typer.Option(help="A lab pool, or replay:FILE of rows that `mesh record` made.")] = "lab",
    count: Annotated[int, typer.Option("--questions", min=100, help="Asked of every agent of a lab pool.")] = 4000,
    seed: Annotated[int, typer.Option(min=0, help="Of these questions.")] = 1,
    texts: Annotated[list[str] | None, typer.Option(help="Question file for rows of ids; may be repeated.")] = None,
    processes: Processes = 2,
    work: Work = None,
    out: Out = None,
) -> None:
    """How much sooner queries end where the next agent begins early, and what that costs; in virtual time."""
    from benchmarks.replay import path_of
    from benchmarks.results import publish
    from benchmarks.routing import ALPHAS
    from benchmarks.speculation import measure, of_lab, of_rows, rows
    from mesh.config import load
    from mesh.terminal import print_table, say

    recorded = path_of(pool)
    found = of_rows(recorded, texts or (), ALPHAS) if recorded else of_lab(load(pool), count, seed, work)
    result = measure(*found, ALPHAS, say, processes)
    print_table(rows(result))
    name = f"speculation_{recorded.stem}" if recorded else "speculation"
    publish(name, {"pool": pool, "seed": seed, **result}, seed, out)


@app.command()
def learning(
    count: Annotated[int, typer.Option("--questions", min=1000, help="Asked of every agent.")] = 4000,
    alpha: Annotated[float, typer.Option(min=0, max=1, help="One of 0.2, 0.5 and 0.8.")] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="Of the questions, and of their orders.")] = 1,
    agent: Annotated[str | None, typer.Option(help="Who joins, and gets worse; default: who answers most.")] = None,
    orders: Annotated[int, typer.Option(min=1, help="Of the questions, over which curves are means.")] = 5,
    processes: Processes = 2,
    work: Work = None,
    out: Out = None,
) -> None:
    """How fast values are learnt from feedback: from nothing, after an agent joins, and after one gets worse."""
    from benchmarks.learning import busiest, draw, measure, tables
    from benchmarks.results import folder, publish
    from benchmarks.shapes import EIGHT, recorded
    from mesh.config import load
    from mesh.terminal import print_table

    config = load(EIGHT)
    validation, test = recorded(config, count, seed, work)
    name = config.named(agent).name if agent else busiest(validation, alpha)
    found = measure(validation, test, name, alpha, seed, orders, processes)
    result = {"bench": "learning", "pool": EIGHT, "seed": seed, **found}
    for rows in tables(result):
        print_table(rows)
    draw(result, folder(out) / "learning.png")
    publish("learning", result, seed, out)


@app.command()
def guard(
    pool: Annotated[str, typer.Option(help="A pool that says what it understands, and makes questions.")] = "lab",
    count: Annotated[int, typer.Option("--questions", min=100, help="Of the test.")] = 4000,
    seed: Annotated[int, typer.Option(min=0, help="Of the questions.")] = 1,
    write: Annotated[Path | None, typer.Option(help="File for the guard; a pool's `guard` reads it.")] = None,
    out: Out = None,
) -> None:
    """Does a small guard tell what a pool can answer from what it cannot?"""
    from benchmarks.guard import run

    run(pool, count, seed, write, out)


@app.command()
def measured(
    rows: Annotated[Path, typer.Argument(help="Recorded rows, as `mesh record` writes them.", exists=True)],
    source: Annotated[str, typer.Option(help="Where they are from; it is written down.")],
    out: Annotated[Path, typer.Option(help="The file of figures.")],
    texts: Annotated[list[str] | None, typer.Option(help="Question file for rows of ids; may be repeated.")] = None,
) -> None:
    """The few figures of recorded rows that `mesh sim --figures FILE` draws its agents from."""
    from benchmarks.measured import figures, write
    from benchmarks.rows import read
    from mesh.questions import by_id

    write(figures(read(rows, by_id(texts or ())), source), out)
