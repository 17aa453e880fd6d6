"""``mesh bench``: numbers that anyone can repeat."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agents.errors import QueryError
from benchmarks.cli_routing import app as about_routing
from benchmarks.options import Out, Work
from mesh.options import ModelsDir

app = typer.Typer(help="Numbers that anyone can repeat.", no_args_is_help=True)
app.add_typer(about_routing)


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
    from mesh.questions import by_id
    from mesh.terminal import print_table

    result = judge(file, list(by_id(questions).values()), seed)
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
def serving(
    count: Annotated[int, typer.Option("--streams", min=10, help="Of each side, each time, without a model.")] = 400,
    concurrency: Annotated[int, typer.Option(min=2, help="Streams at once, where requests a second count.")] = 16,
    model: Annotated[bool, typer.Option(help="Also smollm2-135m on vLLM; takes minutes.")] = True,
    model_count: Annotated[int, typer.Option("--model-streams", min=2, help="Of each side, with the model.")] = 24,
    tokens: Annotated[int, typer.Option(min=2, help="Bounds the model's answers.")] = 32,
    profile: Annotated[bool, typer.Option("--profile", help="Also: whose the distance to `vllm serve` is.")] = False,
    models_dir: ModelsDir = None,
    out: Out = None,
) -> None:
    """What the server costs, against Ray Serve, FastAPI and one streaming actor, and against `vllm serve`."""
    from benchmarks import serving, serving_model
    from benchmarks.results import publish
    from mesh.terminal import print_table

    noop = serving.noop(count, concurrency)
    real = serving_model.measure(model_count, tokens, profile, models_dir) if model else None
    print_table(serving.rows(noop, real))
    details = {"streams": count, "concurrency": concurrency, "noop": noop, "model": real}
    publish("serving", serving.result(noop, real), out=out, details=details)


@app.command()
def faults(
    times: Annotated[int, typer.Option(min=1, help="How often each goes wrong.")] = 20,
    case: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    out: Out = None,
) -> None:
    """What becomes of streams when agents or replicas die, stall, dawdle or talk nonsense, or the client goes."""
    from benchmarks.faults import CASES, measure, rows
    from benchmarks.results import publish
    from mesh.terminal import print_table, say

    known = [each.name for each in CASES]
    if unknown := set(case or ()).difference(known):
        raise QueryError(f"case: {min(unknown)!r}; it must be one of {', '.join(known)}")
    result = measure(times, case or (), say)
    print_table(rows(result))
    publish("serving_faults", result, out=out)


@app.command()
def streams(
    count: Annotated[int, typer.Option("--streams", min=2, help="At once.")] = 1000,
    rounds: Annotated[int, typer.Option(min=1, help="How often all of them.")] = 3,
    lasting_s: Annotated[float, typer.Option(min=1.0, help="Seconds that the engine takes over each.")] = 30.0,
    out: Out = None,
) -> None:
    """A thousand streams at once through the server: how many are lost, how long they wait, what memory they take."""
    from benchmarks.results import publish
    from benchmarks.streams import measure, rows
    from mesh.terminal import print_table

    result = measure(count, rounds, lasting_s)
    print_table(rows(result))
    publish("serving_streams", result, out=out)


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


@app.command("self-awareness")
def self_awareness(
    pool: Annotated[str, typer.Option(help="A pool of which agents were trained to know themselves.")] = "lab-mesh",
    agent: Annotated[list[str] | None, typer.Option(help="Only this agent; may be repeated.")] = None,
    count: Annotated[int, typer.Option("--questions", min=200, help="Asked of every agent.")] = 4000,
    seed: Annotated[int, typer.Option(min=0, help="Of the questions, and of the bootstrap.")] = 1,
    work: Work = None,
    processes: Annotated[int, typer.Option(min=1, help="Agents examined at a time.")] = 2,
    out: Out = None,
) -> None:
    """Do agents know what they know? Against their bare models, stage one alone, and judges from outside."""
    from benchmarks.awareness_figures import draw, figures, keep, tables
    from benchmarks.results import folder, publish, working
    from benchmarks.self_awareness import measure, trained
    from mesh.config import load
    from mesh.terminal import print_table, progress

    config = load(pool)
    make = config.question_maker
    if make is None:
        raise QueryError(f"pool: {pool!r} has no questions of its own, of which fresh ones could be asked")
    names = trained(config, agent or ())
    with working(work) as place, progress(len(names)) as advance:
        found = measure(pool, names, count, seed, place, lambda _: advance(False), processes)
    result = {
        "bench": "self_awareness",
        "pool": config.name,
        "seed": seed,
        **figures(found, make(count, "test", seed), seed),
    }
    for rows in tables(result):
        print_table(rows)
    draw(found, folder(out) / "self_awareness.png")
    keep(found, folder(out) / "self_awareness.npz")
    publish("self_awareness", result, seed, out)


@app.command()
def ablations(
    run: Annotated[Path, typer.Option(help="Folder of the `mesh train self-awareness` that trained the agent.")],
    pool: Annotated[str, typer.Option(help="The pool that was trained.")] = "lab-mesh",
    agent: Annotated[str, typer.Option(help="Which of its agents.")] = "nano",
    count: Annotated[int, typer.Option("--questions", min=200, help="Asked of every variant.")] = 4000,
    seed: Annotated[int, typer.Option(min=0, help="Of the questions, and of the bootstrap.")] = 1,
    work: Annotated[Path, typer.Option(help="Folder for the variants; asked again, it goes on.")] = Path("ablations"),
    out: Out = None,
) -> None:
    """What each part of the training is for: an agent trained without it. Takes minutes a variant."""
    from benchmarks.ablations import VARIANTS, measure, train
    from benchmarks.awareness_figures import digits
    from benchmarks.results import publish
    from mesh.config import load
    from mesh.terminal import print_table, progress
    from training.recipes import usual

    config = load(pool)
    plan = usual(config)
    with progress(len(VARIANTS)) as advance:
        train(config, agent, plan, run, work, lambda _: advance(False))
    rows = measure(config, agent, plan, config.question_maker(count, "test", seed), work, seed)
    keys = ("accuracy", "f1", "auroc", "auroc_cell", "ece", "task_accuracy")
    print_table(
        [
            {"": row["variant"], **{key: digits(row[key]) for key in keys}}
            | {f"share at {alpha}": digits(share, 2) for alpha, share in row["reward_share"].items()}
            for row in rows
        ]
    )
    result = {"bench": "ablations", "pool": config.name, "agent": agent, "seed": seed, "n": count, "variants": rows}
    publish(f"ablations_{agent}", result, seed, out)


@app.command()
def churn(
    queries: Annotated[int, typer.Option(min=200, help="How many are asked.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the faults: what, and to whom.")] = 0,
    pieces: Annotated[int, typer.Option(min=1, help="In so many pieces, each on a cluster of its own.")] = 1,
    piece: Annotated[int | None, typer.Option(min=1, help="Only this piece.")] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder where pieces are kept; what is there is not run again.")
    ] = None,
    out: Out = None,
) -> None:
    """Is every query answered once while agents die, stall, come, go, and nodes are lost? Starts a Ray of its own."""
    from benchmarks.churn import measure
    from benchmarks.results import publish

    publish("churn", measure(queries, seed, pieces, piece, work), seed, out)


@app.command()
def scale(
    queries: Annotated[int, typer.Option(min=1000, help="Asked of ten thousand agents.")] = 1_000_000,
    seed: Annotated[int, typer.Option(min=0, help="Of agents, queries and times.")] = 1,
    work: Work = None,
    out: Out = None,
) -> None:
    """What a query costs the mesh itself with ten to ten thousand agents, in virtual time."""
    from benchmarks.results import folder, publish, working
    from benchmarks.scale import draw, measure, rows
    from mesh.terminal import print_table, progress_by_name

    with working(work) as place, progress_by_name() as told:
        result = measure(queries, seed, place, told)
    print_table(rows(result))
    draw(result, folder(out) / "scale.png")
    publish("scale", result, seed, out)
