"""Calibration: ask each agent alone, judge its answers, and fit p = g(score, alpha) on validation rows.

An agent is asked through a mesh of its own, so that what is measured is what production does: the same prompt,
engine, drafts and assessor; only the policy answers whatever it is asked, and the assessor reports its raw score.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.assess import ASSESSORS
from agents.calibration import Calibration
from agents.errors import ConfigError
from agents.plugins import resolve
from agents.policies import Answer, Decision, Policy, View
from mesh.askfile import Replies, ask_all
from mesh.client import Mesh
from mesh.config import AgentConfig, MeshConfig, alone
from mesh.questions import Part, Question, split
from training.fit import fit
from training.grading import grade
from training.threshold import Judged

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
Progress = Callable[[str, int, int], None]  # agent, done, all


class Answering(Policy):
    """Assess oneself, then answer whatever the verdict."""

    def decide(self, view: View) -> Decision:
        return Answer()


@dataclass(frozen=True, slots=True)
class Result:
    """One agent's calibration; ``meta`` of the map tells its figures."""

    agent: str
    path: Path
    calibration: Calibration

    @property
    def meta(self) -> dict[str, Any]:
        meta: dict[str, Any] = json.loads(self.calibration.meta)
        return meta


def rows_of(
    part: Part,
    questions: Iterable[Question],
    tasks: Sequence[str] = (),
    limit: int | None = None,
) -> list[Question]:
    """The rows of one part among ``questions`` (by a hash of their ids), of some tasks, at most ``limit`` a task.

    Raises:
        ConfigError: there are none.
    """
    rows = [row for row in questions if row.answer is not None and split(row.id) == part]
    if not rows:
        raise ConfigError(f"data: no row with an answer is of the {part} part (which is told by a hash of the ids)")
    return of_tasks(rows, tasks, limit)


def of_tasks(questions: Iterable[Question], tasks: Sequence[str] = (), limit: int | None = None) -> list[Question]:
    """Those of some tasks, at most ``limit`` a task. Raises ConfigError for a task that there is not."""
    by_task: dict[str, list[Question]] = {}
    for question in questions:
        by_task.setdefault(question.task, []).append(question)
    for task in tasks:
        if task not in by_task:
            raise ConfigError(f"task: no row is of task {task!r}; there are {', '.join(sorted(by_task))}")
    return [row for task, rows in by_task.items() if not tasks or task in tasks for row in rows[:limit]]


def calibrate(
    config: MeshConfig,
    questions: Sequence[Question],
    out: Path,
    models_dir: Path | None = None,
    agents: Sequence[str] = (),
    kind: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Result]:
    """Fit the maps of a pool's agents (all, or those named), one after the other; ``out/AGENT.json`` holds each.

    What every agent replied stays beside it in ``AGENT.replies.jsonl``; a run that broke off goes on there.

    Raises:
        ConfigError: no rows, an unknown agent, or an assessor that gives no score.
    """
    if not questions:
        raise ConfigError("questions: there are none to calibrate on")
    chosen = [config.named(name) for name in agents] or config.agents
    out.mkdir(parents=True, exist_ok=True)
    return [_calibrate_one(config, agent, questions, out, models_dir, kind, seed, progress) for agent in chosen]


def _calibrate_one(
    config: MeshConfig,
    agent: AgentConfig,
    questions: Sequence[Question],
    out: Path,
    models_dir: Path | None,
    kind: str,
    seed: int,
    progress: Progress | None,
) -> Result:
    alphas = (config.alpha,) if agent.prompt == "plain" else ALPHAS
    replies = out / f"{agent.name}.replies.jsonl"
    with Replies(replies, questions, alphas) as file:
        total, done = len(questions) * len(alphas), file.found

        def record(job: Any, outcome: Any) -> None:
            nonlocal done
            file.add(job, outcome)
            done += 1
            if progress is not None:
                progress(agent.name, done, total)

        if done < total:
            with Mesh(scoring(config, agent), models_dir) as mesh:
                ask_all(mesh, file.missing(), record, concurrency=agent_limits(config, agent), may_decline=True)
    calibration = fitted(replies, questions, kind, seed)
    path = out / f"{agent.name}.json"
    path.write_text(json.dumps(calibration.to_json(), indent=1) + "\n", encoding="utf-8")
    return Result(agent.name, path, calibration)


def scoring(config: MeshConfig, agent: AgentConfig) -> MeshConfig:
    """A mesh of this one agent, which reports its raw score and answers everything.

    Raises:
        ConfigError: its assessor gives no score.
    """
    if not resolve(ASSESSORS, agent.assessor.kind, "assessor").gives_probability:
        able = ", ".join(name for name, kind in ASSESSORS.items() if kind.gives_probability)
        raise ConfigError(f"agent {agent.name!r}: assessor {agent.assessor.kind!r} gives no score to fit: use {able}")
    assessor = {**agent.assessor.written(), "calibration": {"kind": "score"}}
    return alone(config, agent, assessor=assessor, policy="training.calibrate:Answering")


def agent_limits(config: MeshConfig, agent: AgentConfig) -> int:
    """How many questions to keep in an agent's hands: as many as it drafts at once, and some more to follow."""
    return config.limits_for(agent).running + 8


def judged(result: Result, questions: Sequence[Question]) -> dict[str, Judged]:
    """What an agent's replies were worth, by question, with the confidence that its new map gives; at the alpha
    nearest to 0.5 that it was asked at.
    """
    by_id = {question.id: question for question in questions}
    alpha = min(result.calibration.alphas, key=lambda asked: abs(asked - 0.5))
    answers: dict[str, Judged] = {}
    for text in result.path.with_name(f"{result.agent}.replies.jsonl").read_text(encoding="utf-8").splitlines():
        reply = json.loads(text)
        if "error" not in reply and reply["alpha"] == alpha and reply["question"] in by_id:
            score = reply["path"][-1]["confidence"]
            p = None if score is None else result.calibration(score, alpha)
            answers[reply["question"]] = Judged(p, grade(reply["text"], by_id[reply["question"]]))
    return answers


def fitted(replies: Path, questions: Sequence[Question], kind: str = "auto", seed: int = 0) -> Calibration:
    """The map that a file of an agent's replies supports; ``mean_work`` of its complete answers goes into the meta.

    Raises:
        ConfigError: no reply in it has a score.
    """
    by_id = {question.id: question for question in questions}
    rows: dict[float, list[tuple[float, bool]]] = {}
    works: list[int] = []
    seen: set[str] = set()
    right_by_task: dict[str, list[bool]] = {}
    for text in replies.read_text(encoding="utf-8").splitlines():
        reply = json.loads(text)
        question = by_id.get(reply["question"])
        if question is None or "error" in reply or reply["id"] in seen:
            continue
        seen.add(reply["id"])
        hop, right = reply["path"][-1], grade(reply["text"], question)
        right_by_task.setdefault(question.task, []).append(right)
        if hop["confidence"] is not None:
            rows.setdefault(reply["alpha"], []).append((hop["confidence"], right))
        if reply["finish"] == "stop":
            works.append(hop["prompt_tokens"] + 4 * hop["generated_tokens"])
    if not rows:
        raise ConfigError(f"{replies}: no reply has a score; did the engine fail? Its lines tell")
    calibration = fit(rows, kind, seed)
    meta = json.loads(calibration.meta)
    meta["mean_work"] = round(sum(works) / len(works), 1) if works else None
    meta["tasks"] = {task: {"n": len(r), "accuracy": sum(r) / len(r)} for task, r in sorted(right_by_task.items())}
    return Calibration(calibration.kind, calibration.alphas, calibration.maps, json.dumps(meta))
