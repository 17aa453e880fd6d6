"""What an agent can do by itself: several answers of its own to each question, graded.

The share of them that is right is its competence there, from which it learns what to refuse (DiSRouter, section 3.3).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.errors import ConfigError, MeshError, NotUnderstood, QueryTooLong
from mesh.askfile import Replies, ask_all
from mesh.client import Mesh
from mesh.config import MeshConfig, alone
from mesh.questions import Question
from training.calibrate import agent_limits
from training.grading import grade

SAMPLES = 10
TEMPERATURE = 1.0
ALPHA = 0.5  # told to nobody: an agent is sampled without the scenario
Progress = Callable[[int, int], None]  # done, all


@dataclass(frozen=True, slots=True)
class Experience:
    """An agent's own answers to one question, and which of them are right."""

    question: Question
    answers: tuple[str, ...]
    right: tuple[bool, ...]

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
) -> list[Experience]:
    """Have one agent of a pool answer every question ``samples`` times, by itself and without a scenario.

    ``out/NUMBER.jsonl`` holds the replies of each time; a run that broke off goes on there.

    Raises:
        ConfigError: an unknown agent, or a question whose answer nobody knows. MeshError: some failed; sampling again
            asks those again.
    """
    if unknown := [question.id for question in questions if question.answer is None]:
        raise ConfigError(f"questions: {unknown[0]!r} has no answer to be graded by")
    files = [out / f"{number}.jsonl" for number in range(samples)]
    failed: list[MeshError] = []
    done = 0

    def record(file: Replies, job: Any, outcome: Any) -> None:
        nonlocal done
        file.add(job, outcome)
        if isinstance(outcome, MeshError) and not isinstance(outcome, NotUnderstood | QueryTooLong):
            failed.append(outcome)
        done += 1
        if progress is not None:
            progress(done, samples * len(questions))

    one = config.named(agent)
    bare = {"policy": "always", "assessor": "refusal", "prompt": "plain", "temperature": temperature}
    with Mesh(alone(config, one, **bare), models_dir) as mesh:
        for number, path in enumerate(files):
            with Replies(path, questions, (ALPHA,)) as file:
                done += file.found
                ask_all(
                    mesh,
                    file.missing(),
                    lambda job, outcome, file=file: record(file, job, outcome),
                    concurrency=agent_limits(config, one),
                    seed=seed * samples + number,
                    max_hops=0,
                )
    if failed:
        raise MeshError(f"{len(failed)} of {samples * len(questions)} samples of {agent!r} failed; first: {failed[0]}")
    return experience(files, questions)


def experience(files: Iterable[Path], questions: Iterable[Question]) -> list[Experience]:
    """What files of an agent's replies add up to, in the order of ``questions``; a reply that failed is none."""
    by_id: dict[str, tuple[Question, list[str]]] = {question.id: (question, []) for question in questions}
    for path in files:
        for text in path.read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            if "error" not in line and line["question"] in by_id:
                by_id[line["question"]][1].append(line["text"])
    return [
        Experience(question, tuple(answers), tuple(grade(answer, question) for answer in answers))
        for question, answers in by_id.values()
        if answers
    ]
