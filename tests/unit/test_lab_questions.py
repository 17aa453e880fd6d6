"""The lab's questions: right answers, parts that share nothing, and a generator that nobody may tune any more."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import islice

import pytest

from mesh.config import load
from mesh.questions import prompt, split
from training.grading import grade
from training.lab_questions import EXAMPLES, FAMILIES, SHORT, TASKS, Part, belongs, questions, stream

# Whoever changes how questions are drawn changes how hard the lab is, and every figure measured on it.
FROZEN = {"train": "61206a7b0c388cf4", "validation": "4aeda6248be26438", "test": "a7c87bfebf3ee36a"}


def solve(text: str) -> str:
    """The answer, found in another way than the generator finds it."""
    words = text.removesuffix("=").split()
    match words:
        case ["sort", given]:
            return "".join(digit * given.count(digit) for digit in "0123456789")
        case ["reverse", given]:
            return "".join(reversed(given))
        case ["count", what, "in", given]:
            return str(len(given.split(what)) - 1)
    return str(eval(words[0]))


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_answers_are_right(part: Part) -> None:
    for question in questions(560, part, seed=3):
        assert question.answer == solve(question.text)
        assert prompt(question) == question.text == question.id
        assert grade(question.answer, question)
        assert not grade(f"{question.answer} or so", question)
        assert not grade("I don't know!", question)


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_the_generator_is_frozen(part: Part) -> None:
    drawn = [*questions(500, part, seed=11), *islice(stream(part, 11), 500)]
    told = "\n".join(f"{q.id} {q.answer} {q.task}" for q in drawn)
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == FROZEN[part]


def test_parts_share_short_questions_only() -> None:
    parts = {part: {q.id for q in islice(stream(part, seed), 3000)} for part, seed in (("train", 0), ("test", 1))}
    parts["validation"] = {q.id for q in islice(stream("validation", 2), 3000)}
    for one, other in (("train", "test"), ("train", "validation"), ("validation", "test")):
        assert all(len(text) <= SHORT for text in parts[one] & parts[other])


def test_validation_is_what_it_is_everywhere() -> None:
    long = [q.id for q in questions(400, "validation", 5) if len(q.id) > SHORT]
    assert len(long) > 300
    assert {split(text) for text in long} == {"validation"}
    assert not any(belongs(text, "train") or belongs(text, "test") for text in long)


def test_every_task_comes_as_often_and_no_question_twice() -> None:
    asked = questions(700, "test", 7)
    counts = Counter(question.task.removeprefix("lab/") for question in asked)
    assert set(counts) == set(TASKS) == {task for tasks in FAMILIES.values() for task in tasks}
    assert all(95 <= count <= 105 for count in counts.values())
    assert len({question.id for question in asked}) == 700
    short = sum(len(question.id) <= SHORT for question in asked)
    assert 0.15 < short / 700 < 0.30  # as often as they are drawn, although every part has all of them
    assert questions(700, "test", 7) == asked
    assert questions(700, "test", 8) != asked


def test_weights_tell_how_often_a_task_is_drawn() -> None:
    weights = {"sort": 0.9, "add": 0.1}
    drawn = Counter(question.task for question in islice(stream("train", 0, weights), 2000))
    assert set(drawn) == {"lab/sort", "lab/add"}
    assert 0.86 < drawn["lab/sort"] / 2000 < 0.94


def test_the_lab_pool_reads_them_all() -> None:
    pool = load("lab")
    assert pool.understands is not None
    assert pool.understands.examples == EXAMPLES
    assert pool.question_maker is questions
    for question in (*questions(560, "train"), *questions(560, "test")):
        pool.check_understood(question.text)
