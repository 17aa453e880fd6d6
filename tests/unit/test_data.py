"""Questions by name: rows as each dataset of the hub has them, local files first, and no hub at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agents.errors import QueryError
from mesh.questions import split
from training.data import DATASETS, rows
from training.lab_questions import Part

LABELLED = {"text": ["sun", "moon", "air"], "label": ["A", "B", "C"]}
ROWS: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {  # as on the hub -> options, answer
    "gsm8k": ({"question": "2 and 2?", "answer": "It is 4.\n#### 1,004"}, (None, "1004")),
    "arc": ({"id": "x", "question": "Hot?", "choices": LABELLED, "answerKey": "B"}, (("sun", "moon", "air"), "B")),
    "mmlu": ({"question": "Hot?", "subject": "s", "choices": ["a", "b"], "answer": 1}, (("a", "b"), "B")),
    "race": ({"article": "It was.", "question": "Hot?", "options": ["a", "b"], "answer": "A"}, (("a", "b"), "A")),
    "openbookqa": (
        {"id": "y", "question_stem": "Hot?", "choices": LABELLED, "answerKey": "C"},
        (("sun", "moon", "air"), "C"),
    ),
    "drop": (
        {"query_id": "z", "passage": "It was 3.", "question": "How many?", "answers_spans": {"spans": ["3", "three"]}},
        (None, "3"),
    ),
    "cosmosqa": (
        {"id": "w", "context": "It was.", "question": "Why?", "label": 2} | {f"answer{n}": f"a{n}" for n in range(4)},
        (("a0", "a1", "a2", "a3"), "C"),
    ),
    "squad": ({"id": "v", "context": "In Rome.", "question": "Where?", "answers": {"text": ["Rome"]}}, (None, "Rome")),
    "hellaswag": ({"ctx": "He sat", "endings": ["down.", "up."], "label": "0"}, (("down.", "up."), "A")),
    "headqa": (
        {"qtext": "Which?", "ra": 2, "answers": [{"aid": 1, "atext": "x"}, {"aid": 2, "atext": "y"}]},
        (("x", "y"), "B"),
    ),
}
UNKNOWN: dict[str, dict[str, Any]] = {  # rows whose answer is not public
    "arc": {"id": "x", "question": "Hot?", "choices": LABELLED, "answerKey": ""},
    "cosmosqa": ROWS["cosmosqa"][0] | {"label": -1},
    "hellaswag": ROWS["hellaswag"][0] | {"label": ""},
    "drop": ROWS["drop"][0] | {"answers_spans": {"spans": []}},
    "squad": ROWS["squad"][0] | {"answers": {"text": []}},
}


def hub(*found: dict[str, Any]) -> Callable[..., list[dict[str, Any]]]:
    return lambda path, config, split: list(found)


@pytest.mark.parametrize("name", DATASETS)
def test_a_row_of_each_dataset(name: str) -> None:
    row, (choices, answer) = ROWS[name]
    (question,) = rows(name, "test", hub(row))
    assert (question.choices, question.answer, question.task) == (choices, answer, name)
    assert question.id
    assert question.text


@pytest.mark.parametrize("name", UNKNOWN)
def test_rows_without_a_public_answer_are_left_out(name: str) -> None:
    assert len(rows(name, "test", hub(UNKNOWN[name], ROWS[name][0]))) == 1


def test_parts_are_the_datasets_own_or_shares_of_its_train_part() -> None:
    asked: list[str] = []

    def load(path: str, config: str | None, split: str) -> list[dict[str, Any]]:
        asked.append(split)
        return [ROWS["gsm8k"][0]] * 200 if "gsm8k" in path else [ROWS["arc"][0]]

    parts: tuple[Part, ...] = ("train", "validation", "test")
    train, validation, test = (rows("gsm8k", part, load) for part in parts)
    assert (len(train) + len(validation), len(test)) == (200, 200)
    assert all(split(question.id) == "validation" for question in validation)
    for part in parts:
        rows("arc", part, load)
    assert asked == ["train", "train", "test", "train", "validation", "test"]


def test_a_local_file_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [json.dumps({"id": f"q{n}", "question": "?", "answer": "1"}) for n in range(50)]
    (tmp_path / "gsm8k.jsonl").write_text("\n".join(lines))
    monkeypatch.setenv("MESH_DATA", str(tmp_path))
    found = [rows("gsm8k", part) for part in ("train", "validation")]
    assert sum(map(len, found)) == 50
    with pytest.raises(QueryError, match="has a train and a validation part only"):
        rows("gsm8k", "test")


def test_without_a_hub_it_says_what_to_give_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MESH_DATA", raising=False)

    def load(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no route to host\nlong story")

    with pytest.raises(
        QueryError, match=r"openai/gsm8k on the hub.*no route to host\); give a local file .*--data FILE"
    ):
        rows("gsm8k", "train", load)
    with pytest.raises(QueryError, match=r"'gsm9k': there is no such file.*on the hub are gsm8k, arc"):
        rows("gsm9k", "train")
