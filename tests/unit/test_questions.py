"""Question files: good rows, named bad rows, names in MESH_DATA, prompts, the split."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agents.errors import QueryError
from mesh.questions import Question, find_questions, prompt, read_questions, split

ROW = {"id": "q1", "task": "gsm8k", "question": "1 + 1?", "choices": None, "answer": "2", "solution": "1 + 1 = 2"}


def write(folder: Path, *rows: object, name: str = "q.jsonl") -> Path:
    """A file with one row a line; text and bytes as they are, anything else as JSON."""
    path = folder / name
    lines = [r if isinstance(r, bytes) else (r if isinstance(r, str) else json.dumps(r)).encode() for r in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def test_reads_every_field(tmp_path: Path) -> None:
    chosen = {"id": "q2", "task": "arc", "question": "Which?", "choices": ["sun", "moon"], "answer": "b", "extra": 1}
    questions, bad = read_questions(write(tmp_path, ROW, "", chosen, {"question": "Zürich\u2028or Bern?"}))
    assert bad == []
    assert questions == [
        Question("q1", "1 + 1?", "gsm8k", None, "2", "1 + 1 = 2"),
        Question("q2", "Which?", "arc", ("sun", "moon"), "B"),
        Question("q-4", "Zürich\u2028or Bern?"),
    ]
    assert [q.kind for q in questions] == ["number", "choice", "text"]
    assert [q.letters for q in questions] == ["", "AB", ""]


def test_windows_line_ends_and_a_byte_order_mark_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"id": "a", "question": "?"}\r\n{"id": "b", "question": "?"}\r\n')
    assert [q.id for q in read_questions(path)[0]] == ["a", "b"]


BAD_ROWS = [
    ("{broken", "not JSON in UTF-8"),
    (b'{"question": "\xff"}', "not JSON in UTF-8"),
    ('{"question": "\\ud800"}', "not JSON in UTF-8"),
    ("[" * 100_000, "not JSON in UTF-8"),
    ("[1]", "a list, not an object"),
    ({"id": "x"}, 'no "question"'),
    ({"question": None}, 'no "question"'),
    ({"question": "  "}, "question is empty; write one"),
    ({"question": 5}, "question is 5, a int; it must be text"),
    ({"question": "?", "id": 5}, "id is 5, a int"),
    ({"question": "?", "id": ""}, "id is empty"),
    ({"question": "?", "answer": 42}, "answer is 42, a int; it must be text in quotes"),
    ({"question": "?", "answer": ""}, "answer is empty; write one, or null for none"),
    ({"question": "?", "task": []}, r"task is \[\], a list"),
    ({"question": "?", "solution": True}, "solution is True, a bool"),
    ({"question": "?", "choices": "AB"}, "choices is 'AB'; it must be null or a list"),
    ({"question": "?", "choices": ["a", 1]}, "it must be null or a list of texts"),
    ({"question": "?", "choices": ["a", " "]}, "none empty"),
    ({"question": "?", "choices": ["a"]}, "choices has 1 options; there must be 2 to 26"),
    ({"question": "?", "choices": ["a", "b"], "answer": "C"}, "answer 'C' is none of the options; .* from A to B"),
    ({"question": "?", "choices": ["2", "1"], "answer": "1"}, "answer '1' may mean A or B"),
    ({"question": "?", "choices": ["x", "x"], "answer": "x"}, "answer 'x' may mean A or B"),
    (ROW | {"question": "another"}, "id 'q1' is line 1's already"),
]


@pytest.mark.parametrize(("row", "problem"), BAD_ROWS)
def test_a_bad_row_is_named_and_nothing_else_is_lost(tmp_path: Path, row: object, problem: str) -> None:
    path = write(tmp_path, ROW, row, {"id": "q3", "question": "?"})
    with pytest.raises(QueryError, match=rf"1 bad rows:\n{path}:2: .*{problem}"):
        read_questions(path)
    questions, bad = read_questions(path, on_bad="skip")
    assert [q.id for q in questions] == ["q1", "q3"]
    assert [(b.path, b.line) for b in bad] == [(path, 2)]


def test_only_the_first_five_bad_rows_are_spelled_out(tmp_path: Path) -> None:
    path = write(tmp_path, *["{"] * 7)
    with pytest.raises(QueryError) as caught:
        read_questions(path)
    lines = str(caught.value).split("\n")
    assert lines[0] == "7 bad rows:"
    assert [line.split(": ")[0] for line in lines[1:6]] == [f"{path}:{n}" for n in range(1, 6)]
    assert lines[6:] == ["... and 2 more"]


@pytest.mark.parametrize(("answer", "letter"), [("A", "A"), ("c", "C"), ("3", "C"), ("green", "B"), (" B ", "B")])
def test_an_answer_is_stored_as_its_letter(tmp_path: Path, answer: str, letter: str) -> None:
    row = {"question": "?", "choices": ["red", "green", "blue"], "answer": answer}
    assert read_questions(write(tmp_path, row))[0][0].answer == letter


def test_an_empty_file_fails_unless_bad_rows_are_skipped(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="holds no question; a line looks like"):
        read_questions(write(tmp_path, ""))
    assert read_questions(tmp_path / "q.jsonl", on_bad="skip") == ([], [])


def test_on_bad_is_checked(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="on_bad is 'ignore'; use fail or skip"):
        read_questions(write(tmp_path, ROW), on_bad="ignore")  # type: ignore[arg-type]


def test_a_name_is_looked_up_in_mesh_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    data.mkdir()
    path = write(data, ROW, name="mine.jsonl")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MESH_DATA", str(data))
    assert find_questions("mine") == find_questions("mine.jsonl") == path
    assert [q.id for q in read_questions("mine")[0]] == ["q1"]
    with pytest.raises(QueryError, match=rf"'other': there is no such file, nor other or other.jsonl in .*{data}"):
        read_questions("other")
    monkeypatch.delenv("MESH_DATA")
    with pytest.raises(QueryError, match=r"'mine': there is no such file, and MESH_DATA, .* is not set"):
        find_questions("mine")
    assert find_questions(path) == path


def test_prompts() -> None:
    assert prompt(Question("c", "Which? ", choices=("sun\n", "moon"))) == (
        "Choose the correct option. Reply with its letter only.\n\nWhich?\n\nA. sun\nB. moon"
    )
    assert prompt(Question("n", "1 + 1?", "gsm8k")).startswith("1 + 1?\n\nLet us think step by step.")
    assert 'write the number after "####"' in prompt(Question("n", "1 + 1?", "gsm8k"))
    assert 'write the final result after "####"' in prompt(Question("n", "x?", "math"))
    assert prompt(Question("t", "Who?")) == "Who?\n\nAnswer in a few words, without an explanation."


def test_a_prompt_never_depends_on_the_answer() -> None:
    for task in ("", "gsm8k", "trivia_qa"):
        assert prompt(Question("q", "?", task, answer="42")) == prompt(Question("q", "?", task, answer="Rome"))


def test_the_split_is_the_same_everywhere() -> None:
    # sha256("a") begins with ca97..., so "a" lies at 0xca97 / 0x10000 = 0.791
    assert split("a", 0.79) == "train"
    assert split("a", 0.80) == "validation"
    share = sum(split(f"q{n}") == "validation" for n in range(5000)) / 5000
    assert share == pytest.approx(0.2, abs=0.02)
    assert split("q", 0) == "train"
    assert split("q", 1) == "validation"
    with pytest.raises(QueryError, match=r"share is 1\.5; it must be between 0 and 1"):
        split("q", 1.5)
