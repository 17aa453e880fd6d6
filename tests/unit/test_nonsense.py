"""Questions that nobody asks, made of those that somebody does."""

from __future__ import annotations

import re
from collections import Counter

from mesh.config import load
from mesh.questions import prompt
from training.lab_questions import questions
from training.nonsense import nonsense

LAB = load("lab")
PATTERN = LAB.understands.pattern if LAB.understands else ""
ASKED = questions(280, "train", 1)


def test_no_nonsense_is_a_question_that_the_pool_understands() -> None:
    found = nonsense(ASKED, 3000, PATTERN, 1)
    assert len({one.id for one in found}) == 3000
    for one in found:
        assert re.fullmatch(PATTERN, "".join(one.text.split()).lower()) is None, one
        assert one.answer is None
        assert prompt(one) == one.text.strip()  # it is put as the questions are that it is made of
    assert found == nonsense(ASKED, 3000, PATTERN, 1)
    assert found != nonsense(ASKED, 3000, PATTERN, 2)


def test_it_looks_like_what_is_asked() -> None:
    """The same characters, about as many of them, and each way to ask as often."""
    found = nonsense(ASKED, 3000, PATTERN)
    allowed = set("".join(one.text for one in ASKED)) | set("abcdefghijklmnopqrstuvwxyz ")
    assert set("".join(one.text for one in found)) <= allowed
    longest = max(len(one.text) for one in ASKED)
    assert max(len(one.text) for one in found) <= longest + 12
    letters = Counter(bool(re.search(r"[0-9]", one.text)) for one in found)
    assert 0.25 < letters[False] / 3000 < 0.45  # a quarter is made of "reverse mesh=" and its like


def test_a_pool_that_understands_anything_is_asked_no_nonsense() -> None:
    assert nonsense(ASKED, 20, ".*") == ()
