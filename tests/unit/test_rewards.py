"""Rewards, by hand: what answering and refusing earn, and that a batch is graded row by row."""

from __future__ import annotations

import pytest

from agents.prompts import REFUSAL
from mesh.questions import Question
from training.label import Lesson
from training.rewards import REWARDS, Choice, Localized
from training.rl import graded


@pytest.mark.parametrize(
    ("choice", "earned"),
    [
        (Choice(True, False, 0.2), 1.0),
        (Choice(False, False, 0.2), 0.0),
        (Choice(False, True, 0.2), 0.894427191),  # the square root of 0.8
        (Choice(False, True, 0.5), 0.707106781),
        (Choice(False, True, 0.8), 0.447213595),
        (Choice(False, True, 0.0), 1.0),
        (Choice(False, True, 1.0), 0.0),
    ],
)
def test_localized(choice: Choice, earned: float) -> None:
    assert REWARDS["localized"]()(choice) == pytest.approx(earned)


def test_gamma_moves_the_point_where_answering_pays() -> None:
    reward = Localized(gamma=1.0)
    for p in (0.3, 0.7):
        answering = p * reward(Choice(True, False, 0.5)) + (1 - p) * reward(Choice(False, False, 0.5))
        assert (answering > reward(Choice(False, True, 0.5))) is (p > 0.5)


@pytest.mark.parametrize(
    ("choice", "earned"),
    [
        (Choice(True, False, 0.5, tokens=100), 0.9),
        (Choice(True, False, 0.5, tokens=9000), 0.5),  # the cap
        (Choice(False, False, 0.5, tokens=1), 0.0),
        (Choice(False, True, 0.75, tokens=5), 0.5),
    ],
)
def test_success_gated(choice: Choice, earned: float) -> None:
    assert REWARDS["success_gated"]()(choice) == pytest.approx(earned)


@pytest.mark.parametrize(
    ("choice", "earned"),
    [
        (Choice(False, True, 0.75, competence=0.9), -1.0),  # refusing is worth .5, answering .9
        (Choice(True, False, 0.75, competence=0.9), 0.25),
        (Choice(False, False, 0.75, competence=0.9), -2.25),
        (Choice(False, True, 0.75, competence=0.1), 0.0),  # the better of the two
        (Choice(True, False, 0.75, competence=0.5), 5.0),  # as good as each other: the floor
    ],
)
def test_boundary(choice: Choice, earned: float) -> None:
    assert REWARDS["boundary"]()(choice) == pytest.approx(earned)


def test_a_batch_is_graded_row_by_row_and_without_a_preference_only_right_counts() -> None:
    add, subtract = (
        Question("1", "2+3=", "lab/add", None, "5"),
        Question("2", "7-9=", "lab/subtract", None, "-2"),
    )
    taught = [Lesson(add, 0.5, "5"), Lesson(subtract, 0.19, REFUSAL), Lesson(add, None, "5")]
    said = ["5", "-2", "-2", REFUSAL, "5", REFUSAL, "5"]
    got = graded(taught, Localized())(said, [[1]] * 7, place=[0, 0, 1, 1, 1, 2, 2], prompts=["?"] * 7)
    assert got == pytest.approx([1.0, 0.0, 1.0, 0.9, 0.0, 0.0, 1.0])


def test_an_answers_worth_is_mostly_that_of_the_one_it_gives_when_it_must() -> None:
    add = Question("1", "2+3=", "lab/add", None, "5")
    taught = [Lesson(add, 0.5, "5", 0.5, True), Lesson(add, 0.5, "5", 0.5, False)]
    said = ["5", "6", REFUSAL, "5", "6"]
    got = graded(taught, Localized(), 0.8)(said, [[1]] * 5, place=[0, 0, 0, 1, 1])
    assert got == pytest.approx([1.0, 0.8, 0.5**0.5, 0.2, 0.0])


def test_where_drafts_are_cut_off_only_refusals_are_told_from_answers() -> None:
    add = Question("1", "2+3=", "lab/add", None, "5")
    taught = [Lesson(add, 0.5, "", 0.5, True), Lesson(add, 0.5, "", 0.5, False), Lesson(add, None, "", 0.5, True)]
    said = ["To fi", REFUSAL, "To fi", REFUSAL, "To fi", REFUSAL]
    got = graded(taught, Localized(), 1.0)(said, [[1]] * 6, place=[0, 0, 1, 1, 2, 2])
    assert got == pytest.approx([1.0, 0.5**0.5, 0.0, 0.5**0.5, 1.0, 0.0])


def test_what_is_said_to_nonsense_is_never_right() -> None:
    taught = [Lesson(Question("noise", "xqrk 3="), 0.36, "")]
    assert graded(taught, Localized(), 0.8)(["3", REFUSAL], [[1]] * 2, place=[0, 0]) == [0.0, pytest.approx(0.8)]
