"""What an agent can do by itself: several answers of its own to each question, graded.

The share of them that is right is its competence there, from which it learns what to refuse (DiSRouter, section 3.3).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from agents.errors import ConfigError, MeshError, NotUnderstood, QueryTooLong
from mesh.askfile import Replies, ask_all
from mesh.client import Mesh
from mesh.config import MeshConfig, alone
from mesh.questions import Question
from training.examine import agent_limits
from training.grading import grade

SAMPLES = 10
TEMPERATURE = 1.0
ALPHA = 0.5  # told to nobody: an agent is sampled without the scenario
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
    every = [*questions, *others]
    if unknown := [question.id for question in every if question.answer is None]:
        raise ConfigError(f"questions: {unknown[0]!r} has no answer to be graded by")
    one = config.named(agent)
    warm = {out / f"{number}.jsonl": seed * samples + number for number in range(samples)}
    failed: list[MeshError] = []
    done, total = 0, (samples + 1) * len(questions) + len(others)

    def told(outcome: Any) -> None:
        nonlocal done
        if isinstance(outcome, MeshError) and not isinstance(outcome, NotUnderstood | QueryTooLong):
            failed.append(outcome)
        done += 1
        if progress is not None:
            progress(done, total)

    limit = agent_limits(config, one)
    _ask(alone(config, one, **_BARE, temperature=temperature), questions, warm, models_dir, limit, told)
    _ask(alone(config, one, **_BARE), every, {out / FORCED: seed}, models_dir, limit, told)
    if failed:
        raise MeshError(f"{len(failed)} of {total} samples of {agent!r} failed; first: {failed[0]}")
    return experience(out, questions)


def _ask(
    config: MeshConfig,
    questions: Sequence[Question],
    files: Mapping[Path, int],
    models_dir: Path | None,
    concurrency: int,
    told: Callable[[Any], None],
) -> None:
    """Ask a mesh all questions for every file, each with its seed; ``told`` hears of each, None where it was there."""

    def record(file: Replies, job: Any, outcome: Any) -> None:
        file.add(job, outcome)
        told(outcome)

    with Mesh(config, models_dir) as mesh:
        for path, seed in files.items():
            with Replies(path, questions, (ALPHA,)) as file:
                for _ in range(file.found):
                    told(None)
                ask_all(mesh, file.missing(), partial(record, file), concurrency, seed=seed, max_hops=0)


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
        for name, text in _texts(path):
            if name in by_id:
                answers[name].append(text)
    forced = dict(_texts(folder / FORCED))
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


def can(folder: Path, questions: Iterable[Question]) -> list[tuple[Question, str]]:
    """Those of ``questions`` that the agent answers right when it must, and what it says then."""
    forced = dict(_texts(folder / FORCED))
    return [
        (question, forced[question.id])
        for question in questions
        if question.id in forced and grade(forced[question.id], question)
    ]


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    """The question's id and the text of every reply in a file."""
    for text in path.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        if "error" not in line:
            yield line["question"], line["text"]
