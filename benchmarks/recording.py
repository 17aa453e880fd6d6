"""``mesh record``: what every agent of a live pool does with every question, as rows that anyone can route on.

Each agent is asked by itself: for its answer when it must give one, with what it took and how likely it found it; for
its confidence at each alpha; and, if wanted, for P(true) of its own answer. Replies are kept as they come, so that a
recording that broke off goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress, TaskID

from agents.calibration import Calibration
from agents.errors import ConfigError, MeshError, QueryError
from agents.messages import Card
from benchmarks.outcomes import Outcomes
from mesh.assemble import agent_spec
from mesh.client import Mesh
from mesh.config import AgentConfig, MeshConfig, alone, with_overrides
from mesh.questions import Question, read_questions
from training.examine import ANY, Answering, Declining, agent_limits, ask, counting, replied, scoring
from training.grading import grade

app = typer.Typer(help="Record what every agent of a pool does with every question.")
ALPHAS = tuple(round(0.1 * step, 1) for step in range(11))
LOOKS, DRAFTS = "first_token", "likelihood"  # how agents may judge themselves: before a draft, or by it
_AS_DRAFTED = {"assessor": DRAFTS, "prompt": "plain"}
Told = Callable[[str, int, int], None]  # agent, done, all


@app.callback(invoke_without_command=True)
def main(
    pool: Annotated[str, typer.Option(help="A ready pool's name, or a file.")],
    out: Annotated[Path, typer.Option(help="File for the rows; replies stay in OUT.parts, where it goes on.")],
    questions: Annotated[list[str] | None, typer.Option(help="A file or a name in MESH_DATA; may be repeated.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Only this task; may be repeated.")] = None,
    limit: Annotated[int | None, typer.Option(help="Of each task at most.", min=1)] = None,
    alpha: Annotated[list[float] | None, typer.Option(help="May be repeated; default: 0, 0.1, ..., 1.")] = None,
    p_true: Annotated[bool, typer.Option(help="Ask agents whether their own answers are true.")] = True,
    texts: Annotated[bool, typer.Option(help="Write questions and answers too, not only ids.")] = True,
    models_dir: Annotated[Path | None, typer.Option(help="Where models are looked for before the hub.")] = None,
    count: Annotated[int, typer.Option(help="Of a pool's own questions, where none are given.", min=1)] = 1000,
    part: Annotated[str, typer.Option(help="Of these: train, validation or test.")] = "test",
    seed: Annotated[int, typer.Option(help="Of these.", min=0)] = 0,
) -> None:
    """Record what every agent of a pool does with every question: answers, tokens, seconds, confidences."""
    from benchmarks.rows import write
    from mesh.config import load
    from training.calibrate import of_tasks

    config, alphas = load(pool), tuple(alpha or ALPHAS)
    asked = of_tasks(_asked(config, questions or (), count, part, seed), task or (), limit)
    folder = out.with_name(out.name + ".parts")
    with Progress(console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done)

        record(config, asked, folder, alphas, p_true, models_dir=models_dir, progress=progress)
    write(recorded(config, asked, folder, alphas, p_true, models_dir), out, texts)
    Console().print(f"{len(asked)} questions, {len(config.agents)} agents: {out}")


def _asked(config: MeshConfig, files: Sequence[str], count: int, part: str, seed: int) -> list[Question]:
    if files:
        rows = {row.id: row for name in files for row in read_questions(name)[0] if row.answer is not None}
        if not rows:
            raise QueryError(f"questions: no row of {', '.join(files)} has an answer to be graded by")
        return list(rows.values())
    make = config.question_maker
    if make is None:
        raise QueryError(f"questions: the pool {config.name!r} has none of its own; give files or names in MESH_DATA")
    if part not in ("train", "validation", "test"):
        raise QueryError(f"part is {part!r}; it must be train, validation or test")
    return list(make(count, part, seed))


def record(
    config: MeshConfig,
    questions: Sequence[Question],
    folder: Path,
    alphas: Sequence[float] = ALPHAS,
    p_true: bool = True,
    agents: Sequence[str] = (),
    models_dir: Path | None = None,
    progress: Told | None = None,
) -> Path:
    """Ask agents (all, or those named) all questions; replies go into ``folder``.

    Raises:
        ConfigError: an agent judges itself in a way that cannot be recorded. MeshError: some questions failed;
            recording again asks these again.
    """
    config = with_overrides(config, runtime="local")
    chosen = [config.named(name) for name in agents] or list(config.agents)
    for agent in chosen:
        _looks(agent)
    folder.mkdir(parents=True, exist_ok=True)
    for agent in chosen:
        _record_one(config, agent, questions, folder, alphas, p_true, models_dir, progress)
    return folder


def _record_one(
    config: MeshConfig,
    agent: AgentConfig,
    questions: Sequence[Question],
    folder: Path,
    alphas: Sequence[float],
    p_true: bool,
    models_dir: Path | None,
    progress: Told | None,
) -> None:
    drafts = scoring(config, alone(config, agent, **_AS_DRAFTED).agents[0], Answering)
    passes = [("drafts", drafts, (ANY,), {})]
    if _looks(agent) and alphas:
        passes.append(("looks", scoring(config, agent, Declining), tuple(alphas), {"may_decline": True}))
    if p_true:
        judging = alone(config, agent, assessor="p_true", prompt="plain").agents[0]
        passes.append(("p_true", scoring(config, judging, Answering), (ANY,), {}))
    total = len(questions) * sum(len(asked) for _, _, asked, _ in passes)
    told = counting(total, progress and (lambda done, total: progress(agent.name, done, total)))
    for name, one, asked, options in passes:
        path = _path(folder, agent.name, name)
        with closing(Mesh(one, models_dir)) as mesh:
            ask(mesh, questions, path, asked, agent_limits(config, agent), told, **{"may_decline": True, **options})
        found = sum(1 for _ in replied(path, {question.id for question in questions}))
        if missing := len(questions) * len(asked) - found:
            raise MeshError(f"{missing} of {total} replies of {agent.name!r} failed; see {path}")


def _looks(agent: AgentConfig) -> bool:
    """Whether it judges itself before it drafts. Raises ConfigError where it does neither that nor by its draft."""
    if agent.assessor.kind == LOOKS:
        return True
    if agent.assessor.kind == DRAFTS and agent.prompt == "plain":
        return False
    raise ConfigError(
        f"agent {agent.name!r}: judges itself by {agent.assessor.kind!r} with prompt {agent.prompt!r}; what can be "
        f"recorded is {LOOKS!r}, and {DRAFTS!r} with prompt 'plain'"
    )


def recorded(
    config: MeshConfig,
    questions: Sequence[Question],
    folder: Path,
    alphas: Sequence[float] = ALPHAS,
    p_true: bool = True,
    models_dir: Path | None = None,
) -> Outcomes:
    """What ``record`` has found of a pool's agents.

    Raises:
        ConfigError: a reply is missing.
    """
    agents = sorted(config.agents, key=lambda agent: (agent.cost, agent.name))
    columns = [_column(config, agent, questions, folder, alphas, p_true, models_dir) for agent in agents]
    names = ["likelihood", *(["p_true"] if p_true else [])]
    return Outcomes(
        tuple(questions),
        tuple(agent.name for agent in agents),
        np.array([agent.cost for agent in agents]),
        np.array([column["right"] for column in columns], dtype=float),
        np.array([column["work"] for column in columns]),
        tuple(tuple(column["texts"]) for column in columns),
        {name: np.array([column[name] for column in columns]) for name in names},
        {alpha: np.array([column["beliefs"][alpha] for column in columns]) for alpha in alphas},
        np.array([column["looks"] for column in columns]),
    )


def _column(
    config: MeshConfig,
    agent: AgentConfig,
    questions: Sequence[Question],
    folder: Path,
    alphas: Sequence[float],
    p_true: bool,
    models_dir: Path | None,
) -> dict[str, Any]:
    spec = agent_spec(config, agent, models_dir)
    card, calibration = spec.card, Calibration.from_json(spec.assessor[1]["calibration"])
    drafts = _by_question(_path(folder, agent.name, "drafts"), questions)[ANY]
    column: dict[str, Any] = {
        "right": [grade(line["text"], question) for line, question in zip(drafts, questions, strict=True)],
        "texts": [line["text"] for line in drafts],
        "work": [_spent(card, line) for line in drafts],
        "likelihood": [_score(line) for line in drafts],
    }
    if p_true:
        judged = _by_question(_path(folder, agent.name, "p_true"), questions)[ANY]
        column["p_true"] = [1 / (1 + math.exp(-_score(line))) for line in judged]
    if _looks(agent) and alphas:
        seen = _by_question(_path(folder, agent.name, "looks"), questions)
        column["looks"] = [_spent(card, line) for line in seen[alphas[0]]]
        column["beliefs"] = {a: [calibration(_score(line), a) for line in seen[a]] for a in alphas}
    else:
        column["looks"] = [math.nan] * len(questions)
        scores = column["likelihood"]
        column["beliefs"] = {a: [_believed(calibration, score, a) for score in scores] for a in alphas}
    return column


def _believed(calibration: Calibration, score: float, alpha: float) -> float:
    return math.nan if math.isnan(score) else calibration(score, alpha)


def _path(folder: Path, agent: str, name: str) -> Path:
    return folder / f"{agent}.{name}.jsonl"


def _by_question(path: Path, questions: Sequence[Question]) -> dict[float, list[dict[str, Any]]]:
    """Replies by alpha, in the order of the questions. Raises ConfigError where one is missing."""
    if not path.exists():
        raise ConfigError(f"recording: there is no {path}; `mesh record` makes it")
    found: dict[float, dict[str, dict[str, Any]]] = {}
    for line in replied(path, {question.id for question in questions}):
        found.setdefault(line["alpha"], {})[line["question"]] = line
    missing = [q.id for lines in found.values() for q in questions if q.id not in lines]
    if missing or not found:
        raise ConfigError(f"recording: {path} has no reply to {(missing or [questions[0].id])[0]!r}")
    return {alpha: [lines[question.id] for question in questions] for alpha, lines in found.items()}


def _score(line: Mapping[str, Any]) -> float:
    """What the assessor measured; NaN where the agent refused instead."""
    score = line["path"][-1]["confidence"]
    return math.nan if score is None else float(score)


def _spent(card: Card, line: Mapping[str, Any]) -> float:
    hop = line["path"][-1]
    return card.full_cost(hop["prompt_tokens"], hop["generated_tokens"])
