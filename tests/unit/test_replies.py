"""Grading a file of replies, against values computed by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agents.errors import QueryError
from benchmarks.replies import judge
from benchmarks.results import publish
from mesh.questions import Question

QUESTIONS = [Question(str(i), "Which?", "moons", ("sun", "moon"), "B") for i in range(4)]


def line(question: str, alpha: float, text: str, cost: float, agent: str = "a") -> str:
    path = [{"agent": agent, "verdict": "answered", "full_cost": 2 * cost}]
    reply = {"question": question, "alpha": alpha, "text": text, "cost": cost, "full_cost": 2 * cost, "agent": agent}
    return json.dumps({**reply, "finish": "stop", "path": path})


def test_every_alpha_by_hand(tmp_path: Path) -> None:
    file = tmp_path / "replies.jsonl"
    failed = json.dumps({"question": "3", "alpha": 0.5, "error": "NoAgentLeft", "why": "-"})
    lines = [line("0", 0.5, "B", 0.1), line("1", 0.5, "A", 0.1), line("2", 0.5, "B", 0.9, "b"), failed]
    file.write_text("\n".join([*lines, line("0", 0.2, "B", 0.1), line("stranger", 0.2, "B", 0.1)]) + "\n")
    result = judge(file, QUESTIONS)
    assert (result["errors"], result["unknown"], list(result["alphas"])) == (1, 1, ["0.2", "0.5"])
    half = result["alphas"]["0.5"]
    assert half["n"] == 3
    assert half["accuracy"] == pytest.approx(2 / 3)
    assert half["cost"] == pytest.approx(1.1 / 3)
    assert half["utility"] == pytest.approx(2 / 3 - 0.5 * 1.1 / 3)
    assert half["utility_full"] == pytest.approx(2 / 3 - 0.5 * 2.2 / 3)
    assert half["shares"] == pytest.approx({"a": 200 / 3, "b": 100 / 3})
    assert half["work"] == pytest.approx({"a answered": 0.4 / 3, "b answered": 1.8 / 3})
    assert result["questions"] == ["0", "1", "2"]
    assert half["tasks"] == {"moons": {"n": 3, "accuracy": pytest.approx(2 / 3)}}


def test_replies_to_other_questions(tmp_path: Path) -> None:
    file = tmp_path / "replies.jsonl"
    file.write_text(line("stranger", 0.5, "B", 0.1) + "\n")
    with pytest.raises(QueryError, match="none of its replies belongs to a question with an answer"):
        judge(file, QUESTIONS)


def test_a_result_says_how_it_came_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = publish("some", {"bench": "some", "value": 1.5}, seed=3, out=tmp_path)
    written = json.loads(path.read_text())
    assert written["result"] == {"bench": "some", "value": 1.5}
    assert written["seed"] == 3
    assert written.keys() >= {"command", "commit", "date", "hardware", "python", "packages"}
    assert capsys.readouterr().out.splitlines()[-1] == 'RESULT {"bench": "some", "value": 1.5}'
