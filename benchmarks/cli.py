"""``mesh bench``: numbers that anyone can repeat."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Numbers that anyone can repeat.", no_args_is_help=True)


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
    out: Annotated[Path | None, typer.Option(help="Folder of the result file; default: benchmarks/results.")] = None,
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
