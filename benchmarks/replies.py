"""What a file of replies was worth: the replies of ``mesh ask --file``, graded against the questions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agents.errors import QueryError
from benchmarks.metrics import Row, summarise
from mesh.questions import Question
from training.grading import grade


def judge(replies: Path, questions: Sequence[Question], seed: int = 0) -> dict[str, Any]:
    """Accuracy, cost, full cost, utility with its interval and shares, for every alpha and task in the file.

    Returns:
        ``{"errors", "unknown", "seed", "questions", "alphas": {alpha: {..., "tasks": {task: {n, accuracy}}, "work":
        {"agent verdict": its part of the full cost}}}}``; ``questions`` are the ids of those graded. A failed question
        is no row: ``errors`` counts them.

    Raises:
        QueryError: not one reply can be graded.
    """
    known = {question.id: question for question in questions if question.answer is not None}
    rows: dict[float, list[tuple[str, Row]]] = {}
    work: dict[float, Counter[str]] = {}
    graded_ids: dict[str, None] = {}
    errors = unknown = 0
    for text in replies.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        question = known.get(line["question"])
        errors += "error" in line
        unknown += question is None
        if question is not None and "error" not in line:
            rows.setdefault(line["alpha"], []).append((question.task, _row(line, question)))
            graded_ids[question.id] = None
            for hop in line["path"]:
                work.setdefault(line["alpha"], Counter())[f"{hop['agent']} {hop['verdict']}"] += hop["full_cost"]
    if not rows:
        raise QueryError(f"{replies}: none of its replies belongs to a question with an answer; other questions?")
    alphas = {
        f"{alpha:g}": {
            **_summary(graded, seed),
            "work": {who: spent / len(graded) for who, spent in sorted(work[alpha].items())},
        }
        for alpha, graded in sorted(rows.items())
    }
    counts = {"errors": errors, "unknown": unknown, "seed": seed}
    return {"bench": "replies", **counts, "questions": list(graded_ids), "alphas": alphas}


def _row(line: dict[str, Any], question: Question) -> Row:
    refused = sum(hop["verdict"] == "refused" for hop in line["path"])
    right = line["finish"] in ("stop", "length") and grade(line["text"], question)
    return Row(right, line["cost"], line["full_cost"], line["agent"], line["alpha"], len(line["path"]), refused)


def _summary(graded: list[tuple[str, Row]], seed: int) -> dict[str, Any]:
    tasks: dict[str, list[bool]] = {}
    for task, row in graded:
        tasks.setdefault(task, []).append(row.right)
    by_task = {task: {"n": len(right), "accuracy": sum(right) / len(right)} for task, right in sorted(tasks.items())}
    return {**asdict(summarise([row for _, row in graded], seed=seed)), "tasks": by_task}
