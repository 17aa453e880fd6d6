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
    rows: dict[float, list[tuple[Question, Row, list[dict[str, Any]]]]] = {}
    errors = unknown = 0
    for text in replies.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        question = known.get(line["question"])
        errors += "error" in line
        unknown += question is None
        if question is not None and "error" not in line:
            rows.setdefault(line["alpha"], []).append((question, _row(line, question), line["path"]))
    if not rows:
        raise QueryError(f"{replies}: none of its replies belongs to a question with an answer; other questions?")
    counts = {"errors": errors, "unknown": unknown, "seed": seed}
    ids = dict.fromkeys(question.id for graded in rows.values() for question, _, _ in graded)
    alphas = {f"{alpha:g}": _summary(graded, seed) for alpha, graded in sorted(rows.items())}
    return {"bench": "replies", **counts, "questions": list(ids), "alphas": alphas}


def _row(line: dict[str, Any], question: Question) -> Row:
    refused = sum(hop["verdict"] == "refused" for hop in line["path"])
    right = line["finish"] in ("stop", "length") and grade(line["text"], question)
    return Row(right, line["cost"], line["full_cost"], line["agent"], line["alpha"], len(line["path"]), refused)


def _summary(graded: list[tuple[Question, Row, list[dict[str, Any]]]], seed: int) -> dict[str, Any]:
    tasks: dict[str, list[bool]] = {}
    work: Counter[str] = Counter()
    for question, row, path in graded:
        tasks.setdefault(question.task, []).append(row.right)
        for hop in path:
            work[f"{hop['agent']} {hop['verdict']}"] += hop["full_cost"]
    return {
        **asdict(summarise([row for _, row, _ in graded], seed=seed)),
        "tasks": {
            task: {"n": len(right), "accuracy": sum(right) / len(right)} for task, right in sorted(tasks.items())
        },
        "work": {who: spent / len(graded) for who, spent in sorted(work.items())},
    }
