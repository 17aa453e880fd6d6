"""``mesh bench``: numbers that anyone can repeat."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Numbers that anyone can repeat.", no_args_is_help=True)
Out = Annotated[Path | None, typer.Option(help="Folder of the result file; default: benchmarks/results.")]


@app.callback()
def main() -> None:
    """Numbers that anyone can repeat."""


@app.command()
def replies(
    file: Annotated[
        Path, typer.Argument(help="Replies, as `mesh ask --file` wrote them.", exists=True, dir_okay=False)
    ],
    questions: Annotated[list[str], typer.Option(help="The question files, or names in MESH_DATA; may be repeated.")],
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    name: Annotated[str, typer.Option(help="Of the result file.")] = "replies",
    out: Out = None,
) -> None:
    """Grade replies: accuracy, cost, full cost, utility and who answered, for every alpha."""
    from benchmarks.replies import judge
    from benchmarks.results import publish
    from mesh.questions import read_questions
    from mesh.terminal import print_table

    rows = {row.id: row for each in questions for row in read_questions(each)[0]}
    result = judge(file, list(rows.values()), seed)
    print_table(
        [
            {
                "alpha": alpha,
                "n": summary["n"],
                "accuracy": summary["accuracy"],
                "cost": summary["cost"],
                "full cost": summary["full_cost"],
                "utility": summary["utility"],
                "95 %": list(summary["utility_ci"]),
                "by full cost": summary["utility_full"],
                "answered by (%)": summary["shares"],
                **{task: scores["accuracy"] for task, scores in summary["tasks"].items()},
            }
            for alpha, summary in result["alphas"].items()
        ]
    )
    publish(name, result, seed, out)


@app.command()
def hops(
    asks: Annotated[int, typer.Option(min=10, help="Of each side, at each number of hops.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Of the simulation.")] = 0,
    out: Out = None,
) -> None:
    """What a hop costs: on Ray, in one process and in virtual time, each against the barest thing that does as much."""
    from benchmarks.hops import measure, rows
    from benchmarks.results import publish
    from mesh.terminal import print_table

    result = measure(asks, seed)
    print_table(rows(result))
    publish("hops", result, seed, out)


@app.command()
def lab(
    count: Annotated[int, typer.Option("--questions", min=28, help="Asked of every agent.")] = 1400,
    seed: Annotated[int, typer.Option(min=0, help="Of the questions.")] = 1,
    out: Out = None,
) -> None:
    """What each of the lab's models can do, by task, on test questions of a fresh seed."""
    from benchmarks.ladder import measure, rows
    from benchmarks.results import publish
    from mesh.terminal import print_table, progress
    from training.lab import RECIPES

    with progress(count * len(RECIPES)) as advance:
        result = measure(count, seed, lambda: advance(False))
    print_table(rows(result))
    publish("lab", result, seed, out)
