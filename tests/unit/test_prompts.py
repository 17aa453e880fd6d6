"""The scenario, and what counts as the refusal."""

from __future__ import annotations

import pytest

from agents.messages import Message
from agents.prompts import JUDGEMENTS, REFUSAL, is_refusal, judging, prompted

QUESTION = (Message("user", "why?"),)


@pytest.mark.parametrize(
    "text",
    [
        "I don't know!",
        "I don't know.",
        "I don't know\n",
        "I don't know! It is hard to say",
        "i DON'T know!",
        "I don\u2019t know!",
        ' \n"I don\'t know!"',
        "**I don't know!**",
        "I don't know. Perhaps 42",
    ],
)
@pytest.mark.parametrize("complete", [True, False])
def test_refusals(text: str, complete: bool) -> None:
    assert is_refusal(text, complete) is True


@pytest.mark.parametrize(
    "text",
    [
        "42",
        "I do",
        "I don't know how tall it is, but",
        "I don't knows",
        "I don't know, perhaps 42",
        "Well, I don't know!",
        "Idon't know!",
    ],
)
def test_answers(text: str) -> None:
    assert is_refusal(text + " ...", False) is False
    assert is_refusal(text + " ...", True) is False


@pytest.mark.parametrize("text", ["", " ", "I", "*I don", "I don't", "I don't kno", "I don't know"])
def test_what_cannot_be_told_yet(text: str) -> None:
    assert is_refusal(text, False) is None
    assert is_refusal(text, True) is (text == "I don't know")


def test_every_beginning_of_the_sentence_waits() -> None:
    for end in range(len(REFUSAL)):
        assert is_refusal(REFUSAL[:end], False) is None
    assert is_refusal(REFUSAL, False) is True


@pytest.mark.parametrize(
    ("alpha", "number", "wording"),
    [
        (0, "0.00", "performance first"),
        (0.2, "0.20", "performance first"),
        (0.3499, "0.35", "performance first"),
        (0.35, "0.35", "balance"),
        (0.5, "0.50", "balance"),
        (0.65, "0.65", "cost first"),
        (0.8, "0.80", "cost first"),
        (1, "1.00", "cost first"),
    ],
)
def test_the_scenario_says_alpha_in_digits_and_in_words(alpha: float, number: str, wording: str) -> None:
    system, user = prompted(QUESTION, alpha, "scenario")
    assert system.role == "system"
    assert f"alpha = {number}" in system.content
    assert [word for word in ("performance first", "balance", "cost first") if word in system.content] == [wording]
    assert system.content.endswith(REFUSAL)
    assert user == QUESTION[0]


def test_a_system_message_is_kept_and_stays_the_only_one() -> None:
    chat = (Message("system", "Be brief."), *QUESTION)
    system, user = prompted(chat, 0.5, "scenario")
    assert system.content.startswith("Be brief.\n\nPreference alpha = 0.50")
    assert user == QUESTION[0]


@pytest.mark.parametrize(("alpha", "letter"), [(0, "A"), (0.04, "A"), (0.06, "B"), (0.5, "F"), (1, "K")])
def test_a_level_is_one_letter_for_alpha(alpha: float, letter: str) -> None:
    assert prompted([*QUESTION], alpha, "level") == (Message("system", letter), *QUESTION)


def test_a_plain_prompt_is_the_callers_own() -> None:
    assert prompted([*QUESTION], 0.5, "plain") == QUESTION


def test_a_draft_is_judged_by_its_question() -> None:
    chat = (Message("user", "old"), Message("assistant", "yes"), Message("user", "why?"), Message("assistant", "So"))
    (judge,) = judging(chat, "because")
    assert judge.role == "user"
    assert "Question:\nwhy?\n\nProposed answer:\nbecause\n\n" in judge.content
    assert all(word in judge.content for word in JUDGEMENTS)
