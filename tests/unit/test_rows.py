"""Recorded outcomes as files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agents.errors import ConfigError
from benchmarks.rows import prices_path, read, write
from mesh.questions import Question
from tests.baselines import outcomes


def test_what_is_written_is_read(tmp_path: Path) -> None:
    given = outcomes(20, 1)
    beliefs = {0.2: np.where(given.right > 0, 0.8, np.nan), 0.5: given.right * 0.5}
    looks = np.full_like(given.work, 0.01)
    given = replace(given, beliefs=beliefs, looks=looks)
    write(given, tmp_path / "all.jsonl")
    found = read(tmp_path / "all.jsonl")
    assert [(q.id, q.text, q.task) for q in found.questions] == [(q.id, q.text, q.task) for q in given.questions]
    assert (found.agents, found.texts) == (given.agents, given.texts)
    for name in ("costs", "right", "work", "looks"):
        assert np.allclose(getattr(found, name), getattr(given, name), atol=1e-5)
    for name, values in given.signals.items():
        assert np.allclose(found.signals[name], values, atol=1e-5)
    for alpha, values in beliefs.items():
        assert np.allclose(found.beliefs[alpha], values, equal_nan=True)


def test_without_texts_ids_stand_for_questions(tmp_path: Path) -> None:
    given, path = outcomes(5, 1), tmp_path / "ids.jsonl"
    write(given, path, texts=False)
    told = path.read_text()
    assert not any(word in told for word in ('"question"', '"response"', given.questions[0].text))
    with pytest.raises(ConfigError, match=r"ids.jsonl:1: broken row: .*question '1-0' has no text here"):
        read(path)
    assert read(path, {question.id: question for question in given.questions}).questions == given.questions


def test_scores_alone_are_priced_by_the_call(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    rows = [{"id": f"q{n}", "task": "t", "question": "?", "scores": {"big": 1.0, "small": n / 2}} for n in range(3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ConfigError, match=r"prices are missing; they stand in scores.prices.json"):
        read(path)
    prices_path(path).write_text('{"big": {"input_price": 0.3, "output_price": 0.5}}')
    with pytest.raises(ConfigError, match="no price of small"):
        read(path)
    prices = {"big": {"input_price": 0.3, "output_price": 0.5}, "small": {"input_price": 0.1, "output_price": 0.1}}
    prices_path(path).write_text(json.dumps(prices))
    found = read(path)
    assert found.agents == ("small", "big")
    assert found.costs.tolist() == pytest.approx([0.25, 1.0])
    assert found.right.tolist() == [[0.0, 0.5, 1.0], [1.0, 1.0, 1.0]]
    assert found.work.tolist() == [[0.25] * 3, [1.0] * 3]
    assert found.questions[1] == Question("q1", "?", "t", None, None)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"id": "x", "question": "?", "scores": {"a": 1.5}}, "score of 'a' is 1.5"),
        ({"question": "?", "scores": {"a": 1}}, "'id'"),
        ({"id": "x", "question": "?"}, "'scores'"),
        ([], "list"),
    ],
)
def test_a_broken_row_is_told(tmp_path: Path, row: object, told: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(ConfigError, match=f"rows.jsonl:1: broken row: .*{told}"):
        read(path)


def test_every_agent_is_in_every_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"id": n, "question": "?", "scores": scores} for n, scores in enumerate(({"a": 1, "b": 0}, {"a": 1}))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prices_path(path).write_text('{"a": {"cost": 0.1}, "b": {"cost": 0.2}}')
    with pytest.raises(ConfigError, match="row 2 has nothing of b"):
        read(path)


def test_an_id_stands_there_once_and_a_line_ends_where_json_lines_end(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = json.dumps({"id": "x", "question": "one\u2028line", "scores": {"a": 1}}, ensure_ascii=False) + "\n"
    prices_path(path).write_text('{"a": {"cost": 0.1}}')
    path.write_text(row, encoding="utf-8")
    assert read(path).questions[0].text == "one\u2028line"
    path.write_text(row * 2, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"rows.jsonl:2: id 'x' stands there twice"):
        read(path)


@pytest.mark.parametrize(
    ("price", "told"),
    [
        ({"cost": 0}, r"cost of 'a' is 0; it must be a number in \(0, 1\]"),
        ({"cost": "1"}, "cost of 'a' is '1'"),
        ({"input_price": 0.5}, "output_price of 'a' is None; it must be a number above 0"),
    ],
)
def test_a_price_that_is_none_is_told(tmp_path: Path, price: object, told: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": "x", "question": "?", "scores": {"a": 1}}\n')
    prices_path(path).write_text(json.dumps({"a": price}))
    with pytest.raises(ConfigError, match=f"rows.prices.json: {told}"):
        read(path)
