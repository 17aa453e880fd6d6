"""Calibration: examine each agent on validation rows, and fit p = g(score, alpha)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agents.calibration import Calibration
from agents.errors import ConfigError, MeshError
from mesh.config import AgentConfig, MeshConfig
from mesh.questions import Question
from training.examine import Exam, assessor, examine
from training.fit import fit
from training.scores import auroc
from training.threshold import Judged

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
Progress = Callable[[str, int, int], None]  # agent, done, all


@dataclass(frozen=True, slots=True)
class Result:
    """One agent's calibration, and what it was fitted on; ``meta`` of the map tells its figures."""

    agent: str
    path: Path
    calibration: Calibration
    exams: tuple[Exam, ...]

    @property
    def meta(self) -> dict[str, Any]:
        meta: dict[str, Any] = json.loads(self.calibration.meta)
        return meta


def of_tasks(questions: Iterable[Question], tasks: Sequence[str] = (), limit: int | None = None) -> list[Question]:
    """Those of some tasks, at most ``limit`` a task. Raises ConfigError for a task that there is not."""
    if not tasks and limit is None:
        return list(questions)  # in their order
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
        ConfigError: no rows, an unknown agent, or an assessor that gives no score. MeshError: some replies failed.
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

    def told(done: int, total: int) -> None:
        if progress is not None:
            progress(agent.name, done, total)

    seen = examine(config, agent, questions, alphas, out, models_dir, told)
    if len(seen) < len(questions) * len(alphas):  # some failed
        missing = len(questions) * len(alphas) - len(seen)
        raise MeshError(f"{missing} of {len(questions) * len(alphas)} replies of {agent.name!r} failed; see {out}")
    by_alpha = len(alphas) == 1 or assessor(agent).reads_draft
    calibration = fitted(seen, kind, seed) if by_alpha else best_told(seen, kind, seed)
    path = out / f"{agent.name}.json"
    path.write_text(json.dumps(calibration.to_json(), indent=1) + "\n", encoding="utf-8")
    return Result(agent.name, path, calibration, tuple(seen))


def best_told(seen: Sequence[Exam], kind: str = "auto", seed: int = 0) -> Calibration:
    """The map for scores taken at one preference, whatever the query's is: at that which ranks these exams best (ties:
    the lower). The area under its ROC at each goes into the meta, as ``told``.

    For agents that judge themselves before they draft: what they can do is then the same at every preference.

    Raises:
        ConfigError: none of them has a score.
    """
    areas = {}
    for alpha in sorted({exam.alpha for exam in seen}):
        rows = [(exam.score, exam.right) for exam in seen if exam.alpha == alpha and exam.score is not None]
        areas[alpha] = auroc([score for score, _ in rows], [right for _, right in rows]) or 0.0
    told = max(areas, key=lambda alpha: areas[alpha], default=0.0)
    calibration = fitted([exam for exam in seen if exam.alpha == told], kind, seed)
    meta = {**json.loads(calibration.meta), "told": {f"{alpha:g}": round(area, 4) for alpha, area in areas.items()}}
    return replace(calibration, meta=json.dumps(meta), told=told)


def judged(result: Result) -> dict[str, Judged]:
    """What an agent's replies were worth, by question, with the confidence that its new map gives; at the alpha
    nearest to 0.5 that it was asked at.
    """
    alpha = min(result.calibration.alphas, key=lambda asked: abs(asked - 0.5))  # or the one that it is told
    return {
        exam.question.id: Judged(
            None if exam.score is None else result.calibration(exam.score, exam.alpha),
            exam.right,
        )
        for exam in result.exams
        if exam.alpha == alpha
    }


def fitted(seen: Sequence[Exam], kind: str = "auto", seed: int = 0) -> Calibration:
    """The map that exams of an agent support; ``mean_work`` of its complete answers goes into the meta.

    Raises:
        ConfigError: none of them has a score.
    """
    rows: dict[float, list[tuple[float, bool]]] = {}
    right_by_task: dict[str, list[bool]] = {}
    for exam in seen:
        right_by_task.setdefault(exam.question.task, []).append(exam.right)
        if exam.score is not None:
            rows.setdefault(exam.alpha, []).append((exam.score, exam.right))
    if not rows:
        raise ConfigError("no reply has a score; did the engine fail, or did the agent refuse every time?")
    calibration = fit(rows, kind, seed)
    works = [exam.work for exam in seen if exam.work is not None]
    meta = json.loads(calibration.meta)
    meta["mean_work"] = round(sum(works) / len(works), 1) if works else None
    meta["tasks"] = {task: {"n": len(r), "accuracy": sum(r) / len(r)} for task, r in sorted(right_by_task.items())}
    return Calibration(calibration.kind, calibration.alphas, calibration.maps, json.dumps(meta))
