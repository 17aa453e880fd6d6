"""Calibrating a pool end to end: scripted agents, asked alone, whose scores say nothing or everything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agents.calibration import Calibration
from agents.errors import ConfigError
from mesh.assemble import agent_specs
from mesh.config import load
from mesh.questions import Question
from training.calibrate import best_told, calibrate, fitted, of_tasks
from training.examine import Exam


def pool(**settings: Any) -> dict[str, Any]:
    agents = [
        {"name": "sure", "cost": 0.1, "engine": {"kind": "scripted", "answer": "A", "confidence": "random"}},
        {"name": "unsure", "cost": 0.9, "engine": {"kind": "scripted", "answer": "B", "confidence": "random"}},
    ]
    defaults = {"assessor": "likelihood", "policy": "reliability", "prompt": "plain"}
    return {"name": "two", "runtime": "local", "agents": agents, "defaults": defaults, **settings}


def questions(count: int) -> list[Question]:
    return [Question(f"q{i}", f"Which, {i}?", "task", ("sun", "moon"), "AB"[i % 4 == 0]) for i in range(count)]


def test_maps_are_fitted_and_used(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    rows = questions(40)
    results = calibrate(load(pool()), rows, tmp_path, progress=lambda *step: seen.append(step))
    assert [result.agent for result in results] == ["sure", "unsure"]
    assert seen[-1] == ("unsure", 40, 40)
    sure, unsure = (result.meta for result in results)
    assert (sure["n"], sure["accuracy"], unsure["accuracy"]) == (40, 0.75, 0.25)
    assert sure["tasks"] == {"task": {"n": 40, "accuracy": 0.75}}
    # the prompt's 11 words and one piece of answer, which counts four times
    words = len(
        [
            "Choose",
            "the",
            "correct",
            "option.",
            "Reply",
            "with",
            "its",
            "letter",
            "only.",
            "Which,",
            "1?",
            "A.",
            "sun",
            "B.",
            "moon",
        ]
    )
    assert sure["mean_work"] == words + 4

    calibrated = pool()
    calibrated["agents"][0]["assessor"] = {"kind": "likelihood", "calibration": str(results[0].path)}
    spec = agent_specs(load(calibrated))["sure"]
    assert spec.card.mean_work == words + 4
    assert abs(Calibration.load(results[0].path)(-0.7, 0.5) - 0.75) < 0.2  # the score is noise: p is the base rate


def test_a_run_that_broke_off_goes_on(tmp_path: Path) -> None:
    calibrate(load(pool()), questions(6), tmp_path, agents=["sure"])
    file = tmp_path / "sure.replies.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:4]) + lines[4][:30])
    steps: list[int] = []
    calibrate(
        load(pool()), questions(6), tmp_path, agents=["sure"], progress=lambda name, done, all: steps.append(done)
    )
    assert steps == [4, 5, 6]
    assert {json.loads(line)["question"] for line in file.read_text().splitlines()} == {f"q{i}" for i in range(6)}


def test_an_agent_told_its_scenario_is_asked_over_a_grid_of_alphas(tmp_path: Path) -> None:
    (result,) = calibrate(
        load(pool(defaults={**pool()["defaults"], "prompt": "scenario"})), questions(4), tmp_path, agents=["sure"]
    )
    assert result.calibration.alphas == (0.0, 0.25, 0.5, 0.75, 1.0)


def test_who_needs_no_draft_drafts_only_the_answer_that_it_must_give(tmp_path: Path) -> None:
    asking = load(pool(defaults={"assessor": "first_token", "policy": "reliability", "prompt": "scenario"}))
    seen: list[tuple[int, int]] = []
    (result,) = calibrate(asking, questions(40), tmp_path, agents=["sure"], progress=lambda _, *told: seen.append(told))
    assert seen[-1] == (240, 240)
    lines = [json.loads(line) for line in (tmp_path / "sure.replies.jsonl").read_text().splitlines()]
    assert {line["finish"] for line in lines} == {"declined"}
    assert {line["path"][-1]["generated_tokens"] for line in lines} == {0}
    assert len((tmp_path / "sure.forced.jsonl").read_text().splitlines()) == 40
    assert (result.meta["n"], result.meta["accuracy"]) == (40, 0.75)
    assert result.calibration.told in result.calibration.alphas


def exams(alpha: float, scores: list[float]) -> list[Exam]:
    """At this preference, of four questions of which the last two are answered right."""
    return [Exam(q, alpha, score, at > 1, 1) for at, (q, score) in enumerate(zip(questions(4), scores, strict=True))]


def test_an_agent_is_asked_how_sure_it_is_where_it_knows_best() -> None:
    """The areas by hand: of four pairs of a right and a wrong answer two, all and three are in order."""
    seen = [*exams(0.0, [3, 1, 2, 2]), *exams(0.5, [1, 2, 3, 4]), *exams(1.0, [1, 3, 2, 4])]
    found = best_told(seen)
    assert (found.told, found.alphas) == (0.5, (0.5,))
    assert json.loads(found.meta)["told"] == {"0": 0.5, "0.5": 1.0, "1": 0.75}
    assert json.loads(found.meta)["n"] == 4
    assert found(1.5, 0.1) == found(1.5, 0.9) == fitted(exams(0.5, [1, 2, 3, 4]))(1.5, 0.5)
    assert best_told([*exams(0.5, [1, 2, 3, 4]), *exams(0.2, [1, 2, 3, 4])]).told == 0.2
    with pytest.raises(ConfigError, match="no reply has a score"):
        best_told([])


def test_refused_drafts_are_no_rows(tmp_path: Path) -> None:
    refusing = pool()
    refusing["agents"][0]["engine"]["refuse"] = 1.0
    with pytest.raises(ConfigError, match="no reply has a score"):
        calibrate(load(refusing), questions(4), tmp_path, agents=["sure"])


def test_what_cannot_be_calibrated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown agent 'nobody'; there are sure, unsure"):
        calibrate(load(pool()), questions(2), tmp_path, agents=["nobody"])
    with pytest.raises(ConfigError, match="there are none to calibrate on"):
        calibrate(load(pool()), [], tmp_path)
    plain = load(pool(defaults={"assessor": "refusal", "policy": "refusal"}))
    with pytest.raises(
        ConfigError, match="assessor 'refusal' gives no score to fit: use first_token, likelihood, p_true"
    ):
        calibrate(plain, questions(2), tmp_path)
    with pytest.raises(ConfigError, match="no reply has a score"):
        fitted([])


def test_rows_of_some_tasks() -> None:
    assert len(of_tasks(questions(200), limit=3)) == 3
    assert of_tasks(questions(5), ["task"]) == questions(5)
    with pytest.raises(ConfigError, match="no row is of task 'other'; there are task"):
        of_tasks(questions(200), tasks=["other"])
