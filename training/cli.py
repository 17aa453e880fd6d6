"""``mesh train``: what makes agents know themselves."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer
from rich.console import Console
from rich.progress import Progress, TaskID, TextColumn
from rich.table import Table

from agents.errors import ConfigError, QueryError
from mesh.config import MeshConfig
from mesh.questions import Part, Question
from mesh.terminal import progress_by_name

if TYPE_CHECKING:
    from training.sample import Experience

Pool: TypeAlias = Annotated[str, typer.Option(help="A ready pool's name, or a YAML file.")]
Agent: TypeAlias = Annotated[str, typer.Option(help="Which of its agents.")]
Samples: TypeAlias = Annotated[Path, typer.Option(help="Folder that `mesh train sample` filled.")]
Out: TypeAlias = Annotated[Path, typer.Option(help="Folder for checkpoints, and for the result: `final`.")]
Files: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(help="Question files, or names in MESH_DATA; may be repeated. Lab pools have their own."),
]
Tasks: TypeAlias = Annotated[list[str] | None, typer.Option(help="Only this task; may be repeated.")]
Limit: TypeAlias = Annotated[int | None, typer.Option(help="At most so many rows a task.", min=1)]
Data: TypeAlias = Annotated[
    list[str] | None, typer.Option(help="The same as it was sampled on; may be repeated. Lab pools have their own.")
]
ModelsDir: TypeAlias = Annotated[Path | None, typer.Option(help="Where models lie by their local_name.")]
Size: TypeAlias = Annotated[int, typer.Option(help="How many lessons, half of them refusals.", min=2)]
Rank: TypeAlias = Annotated[int | None, typer.Option(help="Of LoRA adapters; default: all weights.", min=1)]
Seed: TypeAlias = Annotated[int, typer.Option(help="Of lessons and weights, and of a pool's own questions.")]
Threads: TypeAlias = Annotated[int, typer.Option(min=1, help="Of torch.")]

app = typer.Typer(help="Make agents know themselves.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Make agents know themselves."""


@app.command()
def calibrate(
    pool: Pool,
    out: Annotated[Path, typer.Option(help="Where the maps and the replies go.")],
    data: Files = None,
    models_dir: ModelsDir = None,
    agent: Annotated[list[str] | None, typer.Option(help="Only this agent; may be repeated.")] = None,
    task: Tasks = None,
    limit: Limit = None,
    kind: Annotated[str, typer.Option(help="isotonic, platt, or auto: by held-out Brier score.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of the held-out folds, and of a pool's own questions.")] = 0,
) -> None:
    """Fit p = g(score, alpha) of every agent on validation rows; a run that broke off goes on where it stopped."""
    from mesh.config import load
    from training.calibrate import calibrate, judged
    from training.threshold import best_gamma

    config = load(pool)
    questions = _rows("validation", config, data or (), task or (), limit, seed)
    with progress_by_name() as progress:
        results = calibrate(config, questions, out, models_dir, agent or (), kind, seed, progress)
    table = Table(title=f"calibrated on {len(questions)} validation rows; scores are of held-out folds")
    for column in ("agent", "map", "rows", "accuracy", "AUROC", "ECE", "Brier", "mean work", "file"):
        table.add_column(column, justify="left" if column in ("agent", "map", "file") else "right")
    for result in results:
        meta = result.meta
        figures = [meta[key] for key in ("accuracy", "auroc", "ece", "brier")]
        told = ["-" if value is None else f"{value:.3f}" for value in figures]
        table.add_row(result.agent, meta["kind"], str(meta["n"]), *told, str(meta["mean_work"]), str(result.path))
    Console().print(table)
    costs = {each.name: each.cost for each in config.agents}
    if len(results) > 1:
        line = sorted(results, key=lambda result: costs[result.agent])
        gamma, utilities = best_gamma([(costs[result.agent], judged(result)) for result in line])
        told = ", ".join(f"{alpha:g}: {value:.3f}" for alpha, value in utilities[gamma].items())
        paper = ", ".join(f"{value:.3f}" for value in utilities[0.5].values())
        Console().print(f"best gamma for a cascade of these: {gamma:g} (utility at alpha {told}; with 0.5: {paper})")


def _rows(
    part: Part, config: MeshConfig, data: Sequence[str], tasks: Sequence[str], limit: int | None, seed: int
) -> list[Question]:
    from training.calibrate import of_tasks
    from training.data import rows
    from training.recipes import OWN_ROWS

    if data:
        found = {row.id: row for name in data for row in rows(name, part) if row.answer is not None}  # they may share
        if not found:
            raise ConfigError(
                f"data: no row with an answer is of the {part} part (a file's is told by its ids' hashes)"
            )
        return of_tasks(found.values(), tasks, limit)
    make = config.question_maker
    if make is None:
        raise QueryError(
            f"data: the pool {config.name!r} has no questions of its own; give files or names in MESH_DATA"
        )
    return of_tasks(make(OWN_ROWS[part], part, seed), tasks, limit)


@app.command()
def sample(
    pool: Pool,
    agent: Agent,
    out: Annotated[Path, typer.Option(help="Folder for its replies, one file for each time it is asked.")],
    data: Files = None,
    models_dir: ModelsDir = None,
    task: Tasks = None,
    limit: Limit = None,
    samples: Annotated[int, typer.Option(help="How often it is asked each question.", min=1)] = 10,
    temperature: Annotated[float, typer.Option(min=0)] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the samples, and of a pool's own questions.")] = 0,
) -> None:
    """Ask an agent every question of the train part several times, and tell how often it is right."""
    from mesh.config import load
    from training.sample import sample

    config = load(pool)
    questions = _rows("train", config, data or (), task or (), limit, seed)
    with Progress(console=Console(stderr=True)) as bars:
        bar = bars.add_task(agent, total=(samples + 1) * len(questions))
        found = sample(
            config,
            agent,
            questions,
            out,
            models_dir,
            samples,
            temperature,
            seed,
            lambda done, _: bars.update(bar, completed=done),
        )
    told = Counter(sum(one.right) for one in found)
    table = Table(title=f"{agent}: {len(found)} questions")
    table.add_column("right", justify="right")
    table.add_column("questions", justify="right")
    for right in range(samples + 1):
        table.add_row(f"{right} of {samples}", str(told[right]))
    Console().print(table)


@app.command()
def sft(
    pool: Pool,
    agent: Agent,
    samples: Samples,
    out: Out,
    data: Data = None,
    models_dir: ModelsDir = None,
    size: Size = 10_000,
    epochs: Annotated[float, typer.Option(min=0)] = 3.0,
    learning_rate: Annotated[float, typer.Option(min=0)] = 1e-3,
    rank: Rank = None,
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """Teach an agent when to refuse, by its own samples; a run that broke off goes on at its last checkpoint."""
    from training.label import lessons
    from training.sft import SftRecipe, sft, style_of

    config, model, known = _known(pool, agent, samples, data, models_dir, seed)
    taught = lessons(known, size, seed=seed)
    recipe = SftRecipe(epochs, learning_rate, rank=rank)
    with _bar(f"{agent}: {len(taught)} lessons") as told:
        done = sft(model, taught, out, recipe, style_of(config), seed, threads, told)
    Console().print(f"{agent}: {done}")


@app.command()
def rl(
    pool: Pool,
    agent: Agent,
    samples: Samples,
    out: Out,
    model: Annotated[
        Path | None, typer.Option(help="Where to begin: what `mesh train sft` made; default: bare.")
    ] = None,
    data: Data = None,
    models_dir: ModelsDir = None,
    steps: Annotated[int, typer.Option(min=1)] = 800,
    learning_rate: Annotated[float, typer.Option(min=0)] = 1e-4,
    reward: Annotated[str, typer.Option(help="A name in REWARDS, or package.module:attr.")] = "localized",
    rank: Rank = None,
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """Reward an agent for right answers, and for refusing what it would get wrong; goes on at its last checkpoint.

    What it would get wrong is what it did get wrong in its samples.
    """
    from agents.plugins import build
    from training.label import choices
    from training.rewards import REWARDS
    from training.rl import RlRecipe, rl
    from training.sft import style_of

    config, bare, known = _known(pool, agent, samples, data, models_dir, seed)
    recipe = RlRecipe(steps, learning_rate, max_tokens=config.max_tokens, rank=rank)
    met = choices(known, steps * recipe.prompts, rehearsal=recipe.rehearsal, seed=seed)
    style, earned = style_of(config), build(REWARDS, reward, "reward")
    with _bar(f"{agent}: {steps} steps") as told:
        done = rl(model or bare, met, out, recipe, style, earned, seed, threads, told)
    Console().print(f"{agent}: {done}")


def _known(
    pool: str, name: str, samples: Path, data: list[str] | None, models_dir: Path | None, seed: int
) -> tuple[MeshConfig, Path, list[Experience]]:
    """An agent's pool, its model, and what it can do by its samples."""
    from mesh.config import load
    from training.sample import experience
    from training.sft import bare_model

    config = load(pool)
    model = bare_model(config, name, models_dir)
    known = experience(samples, _rows("train", config, data or (), (), None, seed))
    if not known:
        raise ConfigError(f"samples: no reply in {samples} is to a question of the data; same --data, same --seed?")
    return config, model, known


@contextlib.contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar, and what moves it: steps done, and all."""
    with Progress(console=Console(stderr=True)) as bars:
        bar = bars.add_task(what, total=None)
        yield lambda step, total: bars.update(bar, completed=step, total=total)


@app.command("self-awareness")
def self_awareness(
    pool: Pool,
    out: Annotated[Path, typer.Option(help="Folder that all nodes see; asked again, it goes on where it stopped.")],
    agent: Annotated[list[str] | None, typer.Option(help="May be repeated; default: all but the dearest.")] = None,
    data: Files = None,
    models_dir: ModelsDir = None,
    task: Tasks = None,
    limit: Limit = None,
    samples: Annotated[int, typer.Option(help="How often each question is answered.", min=1)] = 10,
    once: Annotated[int, typer.Option(help="Rows a task beyond --limit, answered only once each.", min=0)] = 0,
    size: Annotated[int | None, typer.Option(help="How many lessons, half of them refusals.", min=2)] = None,
    target_tokens: Annotated[int | None, typer.Option(help="Of an answer in stage one.", min=1)] = None,
    epochs: Annotated[float | None, typer.Option(help="Of stage one.", min=0)] = None,
    steps: Annotated[int | None, typer.Option(help="Of stage two.", min=1)] = None,
    learning_rates: Annotated[
        tuple[float, float] | None, typer.Option(help="Of both stages: two numbers.", metavar="SFT RL")
    ] = None,
    prompts: Annotated[int | None, typer.Option(help="In a step of stage two.", min=1)] = None,
    group: Annotated[int | None, typer.Option(help="Answers to each prompt.", min=2)] = None,
    ahead: Annotated[int | None, typer.Option(help="Steps whose answers are written at once: for GPUs.", min=1)] = None,
    at_once: Annotated[int | None, typer.Option(help="Rows in memory at a time, in both stages.", min=1)] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Of an answer in stage two.", min=1)] = None,
    reward: Annotated[str, typer.Option(help="A name in REWARDS, or package.module:attr.")] = "localized",
    reasons: Annotated[bool, typer.Option(help="Have refusals say what is hard.")] = False,
    rank: Rank = None,
    seed: Seed = 0,
    threads: Threads = 1,
) -> None:
    """Sample, teach, reward, calibrate and publish agents, each stage a Ray task; ends with a pool file.

    What is not told is as suits the pool: all weights of small models that come with it, LoRA for others.
    """
    from mesh.config import load
    from training.driver import train
    from training.jobs import Plan
    from training.recipes import changed, further, noise, others, recipes

    config = load(pool)
    first, second = learning_rates or (None, None)
    rows = {part: _rows(part, config, data or (), task or (), limit, seed) for part in ("train", "validation")}
    known = _rows("train", config, data or (), task or (), None, seed) if once else ()
    (usual_size, sft, rl), both = recipes(config), {"at_once": at_once, "rank": rank}
    stage_two = {"steps": steps, "prompts": prompts, "group": group, "ahead": ahead, "max_tokens": max_tokens}
    plan = Plan(
        tuple(rows["train"]),
        tuple(rows["validation"]),
        others=further(known, limit, once) if data or once else others(config, seed),
        nonsense=() if data else noise(config, rows["train"], seed),
        samples=samples,
        size=size or usual_size,
        sft=changed(sft, epochs=epochs, learning_rate=first, target_tokens=target_tokens, **both),
        rl=changed(rl, **{**both, **stage_two, "learning_rate": second}),
        reward=reward,
        reasons=reasons,
        seed=seed,
        threads=threads,
    )
    with _stages() as progress:
        path = train(config, agent or (), plan, out, models_dir, progress)
    _print_reports(path)


@contextlib.contextmanager
def _stages() -> Iterator[Callable[[str, str, int, int], None]]:
    """A progress bar for each agent, and what moves it: the agent, its stage, steps done, and all."""
    columns = (TextColumn("{task.fields[stage]:>9}"), *Progress.get_default_columns())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(name: str, stage: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, stage=stage)
            bars.update(tasks[name], stage=stage, completed=done, total=total)

        yield progress


def _print_reports(pool: Path) -> None:
    from training.driver import published

    table = Table(title="the answer's probability to be right, told before it is drafted; on held-out rows")
    for column in ("agent", "AUROC", "ECE", "Brier", "right when it must answer"):
        table.add_column(column, justify="left" if column == "agent" else "right")
    for report in published(pool.parent):
        meta = report["calibration"]
        figures = [meta[key] for key in ("auroc", "ece", "brier", "accuracy")]
        table.add_row(report["agent"], *("-" if value is None else f"{value:.3f}" for value in figures))
    Console().print(table)
    Console().print(f"mesh ask --pool {pool} QUERY")


@app.command()
def status(out: Annotated[Path, typer.Option(help="The folder of `mesh train self-awareness`.")]) -> None:
    """How far a training run is, wherever it runs: the stage, the steps and the figures of each agent."""
    from mesh.terminal import print_table
    from training.driver import status

    rows = status(out)
    print_table(
        [{title: row.get(title) for title in dict.fromkeys(key for row in rows for key in row)} for row in rows]
    )


@app.command()
def diagnose(
    trace: Annotated[Path, typer.Argument(help="A trace, as `trace: FILE` in a pool or `mesh ask --trace` writes it.")],
) -> None:
    """What a trace tells of agents that do not know themselves: failure signatures, their evidence, their remedies."""
    from mesh.terminal import print_table
    from training.diagnose import diagnose, read_trace

    answered, feedback = read_trace(trace)
    found = diagnose(answered, feedback)
    told = f"{len(answered)} answered queries, {len(feedback)} with feedback"
    if not feedback:
        told += "; without feedback nothing can be said about wrong answers"
    Console().print(told if found else f"{told}: nothing is wrong that these could show")
    if found:
        columns = ("signature", "agent", "evidence", "remedy")
        print_table([{name: getattr(one, name) for name in columns} for one in found])


@app.command()
def cancel(out: Annotated[Path, typer.Option(help="The folder of `mesh train self-awareness`.")]) -> None:
    """End a training run; the same command goes on later where it stopped."""
    from training.driver import cancel

    cancel(out)
    Console().print(f"{out}: its driver ends it within a second")


@app.command()
def lab(
    names: Annotated[list[str] | None, typer.Argument(help="Which models; default: all eight.")] = None,
    out: Annotated[Path, typer.Option(help="Folder in which each gets its own.")] = Path("lab"),
    seed: Annotated[int, typer.Option(help="Of the weights and the questions.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Of torch; other numbers give other last digits.")] = 1,
) -> None:
    """Train the lab pool's models from scratch; they ship with the package in mesh/pools/lab."""
    from training.lab import RECIPES, make

    for name in names or RECIPES:
        if name not in RECIPES:
            raise ConfigError(f"names: no model {name!r} in the lab; there are {', '.join(RECIPES)}")
    columns = (*Progress.get_default_columns(), TextColumn("{task.fields[loss]}"))
    with Progress(*columns, console=Console(stderr=True)) as bars:
        for name in names or RECIPES:
            bar = bars.add_task(name, total=RECIPES[name].steps, loss="")

            def progress(step: int, loss: float, bar: TaskID = bar) -> None:
                bars.update(bar, completed=step, loss=f"loss {loss:.3f}")

            figures = make(name, out, seed, threads, progress)
            bars.console.print(f"{name}: {figures['parameters']:,} parameters, {figures['accuracy']:.1%} right")
