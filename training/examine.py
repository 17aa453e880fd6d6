"""Examining an agent: how sure it says it is of each question, and whether the answer is right that it then gives.

It is asked through a mesh of its own, so that what is measured is what production does: the same prompt, engine,
drafts and assessor; only the policy is another, and the assessor reports its raw score.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from agents.assess import ASSESSORS, Assessor
from agents.errors import ConfigError
from agents.plugins import resolve
from agents.policies import Answer, Decision, Decline, Policy, View
from mesh.askfile import Replies, ask_all
from mesh.client import Mesh
from mesh.config import AgentConfig, MeshConfig, alone
from mesh.questions import Question
from training.grading import grade

ANY = 0.5  # the preference that is told to nobody
Progress = Callable[[int, int], None]  # done, all


class Answering(Policy):
    """Assess oneself, then answer whatever the verdict."""

    def decide(self, view: View) -> Decision:
        return Answer()


class Declining(Policy):
    """Assess oneself, then leave it at that."""

    def decide(self, view: View) -> Decision:
        return Decline()


@dataclass(frozen=True, slots=True)
class Exam:
    """One question at one preference: the raw score (None: it refused), and the answer: whether it is right, and what
    work it took (None: it was cut off).
    """

    question: Question
    alpha: float
    score: float | None
    right: bool
    work: int | None


def examine(
    config: MeshConfig,
    agent: AgentConfig,
    questions: Sequence[Question],
    alphas: Sequence[float],
    out: Path,
    models_dir: Path | None = None,
    progress: Progress | None = None,
) -> list[Exam]:
    """Ask one agent all questions at all alphas. An assessor that needs no draft is asked for scores only, and the
    answer is the one that the agent gives when it must.

    What it replied goes into ``out/AGENT.replies.jsonl`` and ``out/AGENT.forced.jsonl``; a run that broke off goes on
    there.

    Raises:
        ConfigError: its assessor gives no score.
    """
    kind = assessor(agent)
    total, done = len(questions) * (len(alphas) + (not kind.reads_draft)), 0

    def told(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    ask = partial(_ask, questions, concurrency=agent_limits(config, agent), models_dir=models_dir, told=told)
    replies, forced = out / f"{agent.name}.replies.jsonl", out / f"{agent.name}.forced.jsonl"
    policy = Answering if kind.reads_draft else Declining
    ask(scoring(config, agent, policy), replies, alphas, may_decline=True)
    if not kind.reads_draft:
        ask(scoring(config, agent, policy), forced, (ANY,), max_hops=0)
    return exams(questions, replies, None if kind.reads_draft else forced)


def forced(
    config: MeshConfig, agent: AgentConfig, questions: Sequence[Question], out: Path, models_dir: Path | None = None
) -> dict[str, bool]:
    """Whether the answer is right that an agent gives when it must, by the question's id; replies go into ``out``."""
    path = out / f"{agent.name}.forced.jsonl"
    one, limit = scoring(config, agent, Declining), agent_limits(config, agent)
    _ask(questions, one, path, (ANY,), limit, models_dir, lambda _: None, max_hops=0)
    by_id = {question.id: question for question in questions}
    return {line["question"]: grade(line["text"], by_id[line["question"]]) for line in _lines(path, by_id)}


def exams(questions: Sequence[Question], replies: Path, forced: Path | None = None) -> list[Exam]:
    """What files of replies tell: those with scores, and where these are no answers, those with the answers."""
    by_id = {question.id: question for question in questions}
    answers = {} if forced is None else {line["question"]: line for line in _lines(forced, by_id)}
    found = []
    for line in _lines(replies, by_id):
        answer = line if forced is None else answers.get(line["question"])
        if answer is not None:
            question, hop = by_id[line["question"]], answer["path"][-1]
            work = hop["prompt_tokens"] + 4 * hop["generated_tokens"] if answer["finish"] == "stop" else None
            score = line["path"][-1]["confidence"]
            found.append(Exam(question, line["alpha"], score, grade(answer["text"], question), work))
    return found


def assessor(agent: AgentConfig) -> type[Assessor]:
    """How an agent assesses itself. Raises ConfigError where that gives no score."""
    kind = resolve(ASSESSORS, agent.assessor.kind, "assessor")
    if not kind.gives_probability:
        able = ", ".join(name for name, kind in ASSESSORS.items() if kind.gives_probability)
        raise ConfigError(f"agent {agent.name!r}: assessor {agent.assessor.kind!r} gives no score to fit: use {able}")
    return kind


def scoring(config: MeshConfig, agent: AgentConfig, policy: type[Policy]) -> MeshConfig:
    """A mesh of this one agent, which reports its raw score and does what ``policy`` says."""
    raw = {**agent.assessor.written(), "calibration": {"kind": "score"}}
    return alone(config, agent, assessor=raw, policy=f"{__name__}:{policy.__name__}")


def agent_limits(config: MeshConfig, agent: AgentConfig) -> int:
    """How many questions to keep in an agent's hands: as many as it drafts at once, and some more to follow."""
    return config.limits_for(agent).running + 8


def _ask(
    questions: Sequence[Question],
    config: MeshConfig,
    path: Path,
    alphas: Sequence[float],
    concurrency: int,
    models_dir: Path | None,
    told: Callable[[int], None],
    **options: Any,
) -> None:
    def record(job: Any, outcome: Any) -> None:
        file.add(job, outcome)
        told(1)

    with Replies(path, questions, alphas) as file:
        told(file.found)
        if file.found < len(questions) * len(alphas):
            with Mesh(config, models_dir) as mesh:
                ask_all(mesh, file.missing(), record, concurrency, **options)


def _lines(path: Path, by_id: Mapping[str, Question]) -> Iterator[dict[str, Any]]:
    """Replies to these questions; of one that is there twice the first."""
    seen: set[str] = set()
    for text in path.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        if "error" not in line and line["question"] in by_id and line["id"] not in seen:
            seen.add(line["id"])
            yield line
