"""Figures of self-assessment, each against a case computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.assessment import (
    auroc_in_cells,
    choices,
    f1,
    reward_share,
    rewards,
    risk_coverage,
    switch_point,
    verdicts,
)
from training.scores import interval

RIGHT = np.array([True, True, False, False])
P = np.array([0.9, 0.4, 0.6, 0.1])


def test_verdicts_of_four_questions() -> None:
    found = verdicts(P, RIGHT, ["a"] * 4)
    assert found["accuracy"] == 0.5  # .4 and .6 are on the wrong side
    assert found["f1"] == 0.5  # one hit of two said and two right
    assert found["auroc"] == 0.75  # three of four pairs
    assert found["auroc_cell"] is None  # four questions are too few
    assert found["brier"] == pytest.approx((0.01 + 0.36 + 0.36 + 0.01) / 4)


def test_f1_of_nothing_is_nothing() -> None:
    assert f1(np.zeros(4, dtype=bool), np.zeros(4, dtype=bool)) == 0
    assert f1(RIGHT, RIGHT) == 1


def test_within_cells_only_pairs_of_one_cell_count() -> None:
    """Cell a: 5 of 10 right and ranked perfectly, 25 pairs. Cell b: 1 of 10, ranked last, 9 pairs. Cell c is all
    right. Over all, the cells' levels would help: b is lower than a.
    """
    cells = ["a"] * 10 + ["b"] * 10 + ["c"] * 10
    right = np.array([True] * 5 + [False] * 5 + [True] + [False] * 9 + [True] * 10)
    p = np.array([0.9] * 5 + [0.8] * 5 + [0.1] + [0.2] * 9 + [0.5] * 10)
    assert auroc_in_cells(p, right, cells) == pytest.approx(25 / 34)


def test_choices() -> None:
    assert choices(np.array([True, False, True, False]), RIGHT) == {"answer_rate": 0.5, "wrong_among_answered": 0.5}
    assert choices(np.zeros(4, dtype=bool), RIGHT)["wrong_among_answered"] is None


def test_rewards_and_their_share() -> None:
    """At alpha .75 a refusal earns .5. Always answering earns .5, always refusing .5, clairvoyance .75."""
    chosen = np.array([True, False, True, False])  # one right, one wrong, two refusals
    assert rewards(chosen, RIGHT, 0.75).tolist() == [1.0, 0.5, 0.0, 0.5]
    assert reward_share(chosen, RIGHT, 0.75) == pytest.approx(0.0)
    assert reward_share(RIGHT, RIGHT, 0.75) == pytest.approx(1.0)
    assert reward_share(~RIGHT, RIGHT, 0.75) == pytest.approx((0.25 - 0.5) / 0.25)
    assert reward_share(chosen, np.ones(4, dtype=bool), 0.75) is None  # always answering is perfect


def test_the_switch_point_is_the_competence_next_to_the_threshold() -> None:
    scores = np.linspace(0, 1, 1001)
    assert switch_point(scores, scores**2, 0.5) == pytest.approx(0.25, abs=0.01)
    assert switch_point(scores, scores, 2.0, 100) == pytest.approx(0.975, abs=0.001)  # it never answers: the surest


def test_risk_falls_with_coverage() -> None:
    assert risk_coverage(P, RIGHT).tolist() == [0.0, 0.5, pytest.approx(1 / 3), 0.5]


def test_interval() -> None:
    assert interval([float(n) for n in range(1001)]) == (25.0, 975.0)
