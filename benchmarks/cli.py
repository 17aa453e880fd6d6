"""``mesh bench``: numbers that anyone can repeat."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agents.errors import QueryError
from mesh.options import ModelsDir

app = typer.Typer(help="Numbers that anyone can repeat.", no_args_is_help=True)
Work = Annotated[
    Path | None, typer.Option(help="Folder for what agents reply; asked again, it goes on. Default: a passing one.")
]
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
    processes: Annotated[int, typer.Option(min=1, help="That ask and learn at a time.")] = 2,
    out: Out = None,
) -> None:
    """Utility against every known way to route: same pool, same questions, same rows to learn from."""
    if pool.startswith("replay:"):
        from benchmarks.replay_command import run

        rows = Path(pool.removeprefix("replay:"))
        return run(rows, texts or (), tasks, alpha or (), seed, baseline or (), told, out)
    from benchmarks.lab_command import run as run_lab

    run_lab(pool, count, alpha or (), seed, baseline or (), work, told, out, processes)


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
    from mesh.questions import read_questions

    questions = {row.id: row for each in texts or () for row in read_questions(each)[0]}
    write(figures(read(rows, questions), source), out)


@app.command()
def topologies(
    count: Annotated[int, typer.Option("--questions", min=100, help="Asked of every agent.")] = 4000,
    seed: Annotated[int, typer.Option(min=0, help="Of the questions, the small world and the bootstrap.")] = 1,
    policy: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    work: Work = None,
    out: Out = None,
) -> None:
    """The lab's agents in every shape under every policy: utility by cost and by full cost, and hops."""
    from benchmarks.results import folder, publish, working
    from benchmarks.routing import ALPHAS
    from benchmarks.shapes import EIGHT, contenders, draw, measure, published, recorded, shapes, table
    from mesh.config import load
    from mesh.terminal import print_table, say

    makers = contenders([*dict.fromkeys(("value", "reliability", *policy))] if policy else ())
    with working(work) as place:
        validation, test = recorded(load(EIGHT), count, seed, place)
    found = measure(shapes(validation, test, seed), makers, published(), ALPHAS, seed, say)
    result = {"bench": "topologies", "pool": EIGHT, "seed": seed, **found}
    print_table(table(result))
    draw(result, folder(out) / "topologies.png")
    publish("topologies", result, seed, out)


@app.command()
def speculation(
    pool: Annotated[str, typer.Option(help="A lab pool, or replay:FILE of rows that `mesh record` made.")] = "lab",
    count: Annotated[int, typer.Option("--questions", min=100, help="Asked of every agent of a lab pool.")] = 4000,
    seed: Annotated[int, typer.Option(min=0, help="Of these questions.")] = 1,
    texts: Annotated[list[str] | None, typer.Option(help="Question file for rows of ids; may be repeated.")] = None,
    work: Work = None,
    out: Out = None,
) -> None:
    """How much sooner queries end where the next agent begins early, and what that costs; in virtual time."""
    from benchmarks.results import publish, working
    from benchmarks.routing import ALPHAS
    from benchmarks.speculation import measure, of_lab, of_rows, rows
    from mesh.config import load
    from mesh.terminal import print_table, say

    recorded = Path(pool.removeprefix("replay:")) if pool.startswith("replay:") else None
    with working(work) as place:
        found = of_rows(recorded, texts or (), ALPHAS) if recorded else of_lab(load(pool), count, seed, place)
    result = measure(*found, ALPHAS, say)
    print_table(rows(result))
    name = f"speculation_{recorded.stem}" if recorded else "speculation"
    publish(name, {"pool": pool, "seed": seed, **result}, seed, out)


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
def learning(
    count: Annotated[int, typer.Option("--questions", min=1000, help="Asked of every agent.")] = 4000,
    alpha: Annotated[float, typer.Option(min=0, max=1, help="One of 0.2, 0.5 and 0.8.")] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="Of the questions, and of their orders.")] = 1,
    agent: Annotated[str | None, typer.Option(help="Who joins, and gets worse; default: who answers most.")] = None,
    orders: Annotated[int, typer.Option(min=1, help="Of the questions, over which curves are means.")] = 5,
    work: Work = None,
    out: Out = None,
) -> None:
    """How fast values are learnt from feedback: from nothing, after an agent joins, and after one gets worse."""
    from benchmarks.learning import busiest, draw, measure, tables
    from benchmarks.results import folder, publish, working
    from benchmarks.shapes import EIGHT, recorded
    from mesh.config import load
    from mesh.terminal import print_table

    config = load(EIGHT)
    with working(work) as place:
        validation, test = recorded(config, count, seed, place)
    name = config.named(agent).name if agent else busiest(validation, alpha)
    result = {"bench": "learning", "pool": EIGHT, "seed": seed, **measure(validation, test, name, alpha, seed, orders)}
    for rows in tables(result):
        print_table(rows)
    draw(result, folder(out) / "learning.png")
    publish("learning", result, seed, out)
