"""What an agent can do by itself: several answers of its own to each question, graded.

The share of them that is right is its competence there, from which it learns what to refuse (DiSRouter, section 3.3).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.errors import ConfigError, MeshError, NotUnderstood, QueryTooLong
from mesh.client import Mesh
from mesh.config import MeshConfig, alone
from mesh.questions import Question
from training.examine import ANY, agent_limits, ask, counting, replied
from training.grading import grade

SAMPLES = 10
TEMPERATURE = 1.0
FORCED = "forced.jsonl"
_BARE = {"policy": "always", "assessor": "refusal", "prompt": "plain", "adapter": None}
Progress = Callable[[int, int], None]  # done, all


@dataclass(frozen=True, slots=True)
class Experience:
    """An agent's own answers to one question, and which of them are right; ``answer`` is the one that it gives in its
    mesh when it must, ``forced`` whether that is right.
    """

    question: Question
    answers: tuple[str, ...]
    right: tuple[bool, ...]
    answer: str
    forced: bool

    @property
    def competence(self) -> float:
        """The share that is right."""
        return sum(self.right) / len(self.right)

    @property
    def own_right(self) -> list[str]:
        """Those of its answers that are right."""
        return [answer for answer, right in zip(self.answers, self.right, strict=True) if right]


def sample(
    config: MeshConfig,
    agent: str,
    questions: Sequence[Question],
    out: Path,
    models_dir: Path | None = None,
    samples: int = SAMPLES,
    temperature: float = TEMPERATURE,
    seed: int = 0,
    progress: Progress | None = None,
    others: Sequence[Question] = (),
) -> list[Experience]:
    """Have one agent of a pool answer every question ``samples`` times at ``temperature``, and once as its pool has it
    answer; ``others`` only once, so. It is asked by itself and without a scenario.

    ``out/NUMBER.jsonl`` holds the replies of each time, ``out/forced.jsonl`` those of the last; a run that broke off
    goes on there.

    Raises:
        ConfigError: an unknown agent, or a question whose answer nobody knows. MeshError: some failed; sampling again
            asks those again.
    """
    every = list({question.id: question for question in (*questions, *others)}.values())
    if unknown := [question.id for question in every if question.answer is None]:
        raise ConfigError(f"questions: {unknown[0]!r} has no answer to be graded by")
    one = config.named(agent)
    failed: list[MeshError] = []
    total = samples * len(questions) + len(every)
    counted = counting(total, progress)

    def told(count: int, outcome: Any) -> None:
        if isinstance(outcome, MeshError) and not isinstance(outcome, NotUnderstood | QueryTooLong):
            failed.append(outcome)
        counted(count, outcome)

    limit = agent_limits(config, one)
    with closing(Mesh(alone(config, one, **_BARE, temperature=temperature), models_dir)) as mesh:
        for number in range(samples):
            path = out / f"{number}.jsonl"
            ask(mesh, questions, path, (ANY,), limit, told, seed=seed * samples + number, max_hops=0)
    with closing(Mesh(alone(config, one, **_BARE), models_dir)) as mesh:
        ask(mesh, every, out / FORCED, (ANY,), limit, told, seed=seed, max_hops=0)
    if failed:
        raise MeshError(f"{len(failed)} of {total} samples of {agent!r} failed; first: {failed[0]}")
    return experience(out, questions)


def experience(folder: Path, questions: Iterable[Question]) -> list[Experience]:
    """What an agent's replies in a folder add up to, in the order of ``questions``; a reply that failed is none.

    Raises:
        ConfigError: it is no folder of samples.
    """
    if not (folder / FORCED).exists():
        raise ConfigError(f"samples: {folder} has no {FORCED}; `mesh train sample` fills such a folder")
    by_id = {question.id: question for question in questions}
    answers: dict[str, list[str]] = {name: [] for name in by_id}
    for path in sorted(folder.glob("[0-9]*.jsonl")):
        for line in replied(path, by_id):
            answers[line["question"]].append(line["text"])
    forced = _forced(folder, by_id)
    return [
        Experience(
            question,
            tuple(answers[name]),
            tuple(grade(answer, question) for answer in answers[name]),
            forced[name],
            grade(forced[name], question),
        )
        for name, question in by_id.items()
        if answers[name] and name in forced
    ]


def once(folder: Path, questions: Iterable[Question]) -> list[Experience]:
    """What an agent said to ``questions``, repeats and all, when it had to answer; of those that it was asked."""
    questions = list(questions)
    said = _forced(folder, {question.id for question in questions})
    found = ((question, said[question.id]) for question in questions if question.id in said)
    graded = ((question, answer, grade(answer, question)) for question, answer in found)
    return [Experience(question, (answer,), (right,), answer, right) for question, answer, right in graded]


def _forced(folder: Path, among: Container[str]) -> dict[str, str]:
    """What the agent said when it had to answer, by the question's id."""
    return {line["question"]: line["text"] for line in replied(folder / FORCED, among)}
