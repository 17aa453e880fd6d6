"""Rewards, by hand: what answering and refusing earn, and that a batch is graded row by row."""

from __future__ import annotations

import pytest

from agents.prompts import REFUSAL
from mesh.questions import Question
from training.rewards import REWARDS, Localized
from training.rl import graded


@pytest.mark.parametrize(
    ("right", "refused", "alpha", "earned"),
    [
        (True, False, 0.2, 1.0),
        (False, False, 0.2, 0.0),
        (False, True, 0.2, 0.894427191),  # the square root of 0.8
        (False, True, 0.5, 0.707106781),
        (False, True, 0.8, 0.447213595),
        (False, True, 0.0, 1.0),
        (False, True, 1.0, 0.0),
    ],
)
def test_localized(right: bool, refused: bool, alpha: float, earned: float) -> None:
    assert REWARDS["localized"]()(right, refused, alpha) == pytest.approx(earned)


def test_gamma_moves_the_point_where_answering_pays() -> None:
    reward = Localized(gamma=1.0)
    for p in (0.3, 0.7):
        answering = p * reward(True, False, 0.5) + (1 - p) * reward(False, False, 0.5)
        assert (answering > reward(False, True, 0.5)) is (p > 0.5)


def test_a_batch_is_graded_row_by_row() -> None:
    asked = [Question("1", "2+3=", "lab/add", None, "5"), Question("2", "7-9=", "lab/subtract", None, "-2")]
    said = ["5", "-2", "-2", REFUSAL, "5"]
    got = graded(asked, Localized())(said, place=[0, 0, 1, 1, 1], alpha=[0.5, 0.5, 0.5, 0.19, 0.5], prompts=["?"] * 5)
    assert got == pytest.approx([1.0, 0.0, 1.0, 0.9, 0.0])
