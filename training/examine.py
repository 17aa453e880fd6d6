"""Examining an agent: how sure it says it is of each question, and whether the answer is right that it then gives.

It is asked through a mesh of its own, so that what is measured is what production does: the same prompt, engine,
drafts and assessor; only the policy is another, and the assessor reports its raw score.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.assess import ASSESSORS, Assessor
from agents.errors import ConfigError
from agents.plugins import resolve
from agents.policies import Answer, Decision, Decline, Policy, View
from mesh.askfile import Replies, ask_all
from mesh.client import Mesh
from mesh.config import AgentConfig, MeshConfig, alone, with_overrides
from mesh.questions import Question
from training.grading import grade

ANY = 0.5  # the preference that is told to nobody
AT_ONCE = 256  # drafts of a small model
Progress = Callable[[int, int], None]  # done, all
Told = Callable[[int, Any], None]  # how many more have come; the outcome of one that has come just now


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
    told = counting(len(questions) * (len(alphas) + (not kind.reads_draft)), progress)
    replies = out / f"{agent.name}.replies.jsonl"
    policy = Answering if kind.reads_draft else Declining
    with closing(Mesh(scoring(config, agent, policy), models_dir)) as mesh:
        ask(mesh, questions, replies, alphas, agent_limits(config, agent), told, may_decline=True)
        if kind.reads_draft:
            return exams(questions, replies)
        return exams(questions, replies, _force(mesh, config, agent, questions, out, told))


def forced(
    config: MeshConfig,
    agent: AgentConfig,
    questions: Iterable[Question],
    out: Path,
    models_dir: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, bool]:
    """Whether the answer is right that an agent gives when it must, by the question's id; replies go into ``out``, and
    a run that broke off goes on there.
    """
    by_id = {question.id: question for question in questions}
    told = counting(len(by_id), progress)
    with closing(Mesh(scoring(config, agent, Declining), models_dir)) as mesh:
        path = _force(mesh, config, agent, tuple(by_id.values()), out, told)
    return {line["question"]: grade(line["text"], by_id[line["question"]]) for line in replied(path, by_id)}


def _force(
    mesh: Mesh, config: MeshConfig, agent: AgentConfig, questions: Sequence[Question], out: Path, told: Told
) -> Path:
    """Have an agent answer all questions, as it does when it must; the file with what it said."""
    path = out / f"{agent.name}.forced.jsonl"
    ask(mesh, questions, path, (ANY,), agent_limits(config, agent), told, max_hops=0)
    return path


def exams(questions: Sequence[Question], replies: Path, forced: Path | None = None) -> list[Exam]:
    """What files of replies tell: those with scores, and where these are no answers, those with the answers."""
    by_id = {question.id: question for question in questions}
    answers = {} if forced is None else {line["question"]: line for line in replied(forced, by_id)}
    found = []
    for line in replied(replies, by_id):
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
    return alone(config, agent, assessor=raw, policy=f"{policy.__module__}:{policy.__name__}")


def by_the_hundred(config: MeshConfig) -> MeshConfig:
    """A pool of models so small that they come with it, each decoding ``AT_ONCE`` drafts together and handing them on
    whole: the same answers, a third more of them in the same time, and nobody here waits for a first word. Other pools
    as they are: how many drafts find room is theirs to say.
    """
    if config.question_maker is None:
        return config
    agents = []
    for agent in config.agents:
        settings = agent.model_dump(exclude_unset=True)
        if agent.engine.kind == "transformers":
            together = {**agent.engine.written(), "max_batch": AT_ONCE, "stream_interval": AT_ONCE}
            settings |= {"engine": together, "limits": {**settings.get("limits", {}), "running": AT_ONCE}}
        agents.append(settings)
    return with_overrides(config, agents=agents)


def agent_limits(config: MeshConfig, agent: AgentConfig) -> int:
    """How many questions to keep in an agent's hands: as many as it drafts at once, and some more to follow."""
    return config.limits_for(agent).running + 8


def counting(total: int, progress: Progress | None) -> Told:
    """What tells ``progress`` how many replies have come, of ``total``."""
    done = 0

    def told(count: int, _: Any) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    return told


def ask(
    mesh: Mesh,
    questions: Sequence[Question],
    path: Path,
    alphas: Sequence[float],
    concurrency: int,
    told: Told,
    **options: Any,
) -> None:
    """Ask what is not in the file ``path`` yet, which starts the mesh where anything is missing. ``told`` hears how
    many replies have come, and of one that has come just now, what it is.
    """

    def record(job: Any, outcome: Any) -> None:
        file.add(job, outcome)
        told(1, outcome)

    with Replies(path, questions, alphas) as file:
        told(file.found, None)
        ask_all(mesh, file.missing(), record, concurrency, **options)


def replied(path: Path, among: Container[str]) -> Iterator[dict[str, Any]]:
    """The lines of a file of replies to questions of these ids; failures are none, and of one that is there twice the
    first counts.
    """
    seen: set[str] = set()
    for text in path.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        if "error" not in line and line["question"] in among and line["id"] not in seen:
            seen.add(line["id"])
            yield line
