"""Question files: JSON lines in, checked questions out, and the words in which a model is asked.

A row is ``{"id", "task", "question", "choices", "answer", "solution"}``; only ``question`` must be there,
``choices`` is null or a list, ``answer`` a letter for choices and text else. Other keys are ignored.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal, TypeAlias

from agents.errors import QueryError

Part: TypeAlias = Literal["train", "validation"]
NUMBER_TASKS = frozenset({"gsm8k", "math"})
EXACT = "lab/"  # tasks whose name begins so are asked as they stand, and their answer is compared as it stands
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Question:
    """One question; ``answer`` is the option's letter where there are ``choices``, None where nobody knows."""

    id: str
    text: str
    task: str = ""
    choices: tuple[str, ...] | None = None
    answer: str | None = None
    solution: str | None = None

    @property
    def kind(self) -> Literal["choice", "number", "text", "exact"]:
        """How it is asked and graded; never depends on the answer, which would give it away."""
        if self.choices:
            return "choice"
        if self.task.startswith(EXACT):
            return "exact"
        return "number" if self.task in NUMBER_TASKS else "text"

    @property
    def letters(self) -> str:
        """The letters of its options: ``ABCD`` for four."""
        return ascii_uppercase[: len(self.choices or ())]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be asked: where it is, what is wrong, and what would be right."""

    path: Path
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.problem}"


def find_questions(name: str | Path) -> Path:
    """The file ``name``, or the one of that name in the folder that MESH_DATA names (``.jsonl`` may be left out).

    Raises:
        QueryError: there is none; names both places.
    """
    data = os.environ.get("MESH_DATA")
    places = [Path(name).expanduser()]
    if data:
        places += [Path(data, name), Path(data, f"{name}.jsonl")]
    for place in places:
        if place.is_file():
            return place
    where = (
        f"nor {name} or {name}.jsonl in MESH_DATA ({data})"
        if data
        else "and MESH_DATA, where names are looked up, is not set"
    )
    raise QueryError(f"questions {str(name)!r}: there is no such file, {where}")


def read_questions(path: str | Path, on_bad: Literal["fail", "skip"] = "fail") -> tuple[list[Question], list[BadRow]]:
    """Read a file of questions, or one that ``find_questions`` finds by that name.

    Args:
        path: file of JSON lines in UTF-8; blank lines are passed over.
        on_bad: ``fail`` raises at bad rows, ``skip`` returns them beside the good ones.

    Raises:
        QueryError: no such file, no question in it, or bad rows (names the first 5).
    """
    if on_bad not in ("fail", "skip"):
        raise QueryError(f"on_bad is {on_bad!r}; use fail or skip")
    path = find_questions(path)
    questions: list[Question] = []
    bad: list[BadRow] = []
    lines: dict[str, int] = {}
    for number, raw in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not raw.strip():
            continue
        try:
            question = _question(_row(raw), default_id=f"{path.stem}-{number}")
            if question.id in lines:
                raise QueryError(f"id {question.id!r} is line {lines[question.id]}'s already; every id must be unique")
        except QueryError as error:
            bad.append(BadRow(path, number, str(error)))
        else:
            lines[question.id] = number
            questions.append(question)
    if on_bad == "fail" and bad:
        rest = [f"... and {len(bad) - SHOWN} more"] if len(bad) > SHOWN else []
        raise QueryError("\n".join([f"{len(bad)} bad rows:", *map(str, bad[:SHOWN]), *rest]))
    if on_bad == "fail" and not questions:
        raise QueryError(f'{path} holds no question; a line looks like {{"id": "q1", "question": "..."}}')
    return questions, bad


def by_id(names: Iterable[str | Path]) -> dict[str, Question]:
    """Those of several files, or names in MESH_DATA, by id; of two with one id the later. See ``read_questions``."""
    return {row.id: row for name in names for row in read_questions(name)[0]}


def prompt(question: Question) -> str:
    """What a model is told: the question, its lettered options, and the form that the answer must have."""
    text = question.text.strip()
    if question.kind == "exact":
        return text
    if question.choices:
        options = "\n".join(
            f"{x}. {choice.strip()}" for x, choice in zip(question.letters, question.choices, strict=True)
        )
        return f"Choose the correct option. Reply with its letter only.\n\n{text}\n\n{options}"
    if question.kind == "number":
        what = "the number" if question.task == "gsm8k" else "the final result"
        return f'{text}\n\nLet us think step by step. At the end, write {what} after "####".'
    return f"{text}\n\nAnswer in a few words, without an explanation."


def split(id: str, share: float = 0.2) -> Part:
    """Where a question belongs, by a hash of its id: the same on every machine, in every file.

    Raises:
        QueryError: ``share`` is outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise QueryError(f"share is {share}; it must be between 0 and 1")
    return "validation" if place(id) < share else "train"


def place(id: str) -> float:
    """A number in [0, 1) for every id, by its hash."""
    return int.from_bytes(hashlib.sha256(id.encode()).digest()[:8], "big") / 2**64


def _row(raw: bytes) -> dict[str, Any]:
    try:
        row = json.loads(raw.decode())
        json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair can be read, but never sent
    except (ValueError, RecursionError) as error:
        raise QueryError(f"not JSON in UTF-8 ({error}); a row is one JSON object on one line") from None
    if not isinstance(row, dict):
        raise QueryError(f'a {type(row).__name__}, not an object; a row looks like {{"id": "q1", "question": "..."}}')
    return row


def _question(row: Mapping[str, Any], default_id: str) -> Question:
    text = _text(row, "question")
    if text is None:
        raise QueryError('no "question"; every row needs one')
    choices = _choices(row.get("choices"))
    answer = _text(row, "answer")
    if choices and answer is not None:
        answer = _letter(answer.strip(), choices)
    id = _text(row, "id") or default_id
    return Question(id, text, _text(row, "task", may_be_empty=True) or "", choices, answer, _text(row, "solution"))


def _text(row: Mapping[str, Any], key: str, may_be_empty: bool = False) -> str | None:
    value = row.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise QueryError(f"{key} is {value!r}, a {type(value).__name__}; it must be text in quotes")
    if not value.strip() and not may_be_empty:
        raise QueryError(f"{key} is empty; {'write one' if key == 'question' else 'write one, or null for none'}")
    return value


def _choices(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(choice, str) and choice.strip() for choice in value):
        raise QueryError(f"choices is {value!r}; it must be null or a list of texts, none empty")
    if not 2 <= len(value) <= len(ascii_uppercase):
        raise QueryError(f"choices has {len(value)} options; there must be 2 to {len(ascii_uppercase)}, or null")
    return tuple(value)


def _letter(answer: str, choices: tuple[str, ...]) -> str:
    """The letter that ``answer`` means: a letter, an option's own text, or its number (some of ARC's rows)."""
    letters = ascii_uppercase[: len(choices)]
    if len(answer) == 1 and answer.upper() in letters:
        return answer.upper()
    meant = {x for x, choice in zip(letters, choices, strict=True) if choice.strip() == answer}
    if answer.isascii() and answer.isdigit() and 1 <= int(answer) <= len(choices):
        meant.add(letters[int(answer) - 1])
    if len(meant) != 1:
        what = f"may mean {' or '.join(sorted(meant))}" if meant else "is none of the options"
        raise QueryError(f"answer {answer!r} {what}; it must be a letter from A to {letters[-1]}")
    return meant.pop()
