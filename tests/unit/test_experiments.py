"""Agents that leave and join, easy and hard questions, shares: on a made-up pool, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from agents.policies import Reservation
from benchmarks.experiments import comings_and_goings, easy_and_hard, shares
from benchmarks.ours import priors, profiles
from benchmarks.outcomes import Asked, routed
from benchmarks.walking import Way
from tests.unit.test_routing import ALPHAS, TEST, TRAIN, VALIDATION

TOLD = profiles(priors(TRAIN, VALIDATION), VALIDATION, ALPHAS, True, "looks")
RESERVATION = Way(dict.fromkeys(TEST.agents, Reservation()), TOLD)


def test_nobody_learns_anew_when_others_come_and_go() -> None:
    begun, fewer, again, more = comings_and_goings(TEST, RESERVATION, ["large"], "words", 0.5)
    assert [row["agents"] for row in (begun, fewer, again, more)] == [
        ["small", "large"],
        ["small"],
        ["small", "large"],
        ["small", "words", "large"],
    ]
    assert [row["step"] for row in (fewer, more)] == ["large leave", "words joins"]
    assert fewer["utility"] == pytest.approx(TEST.right[0].mean() - 0.5 * 0.1)
    assert fewer["oracle"] == pytest.approx(fewer["utility"])  # there is nobody else to take
    assert begun == {**again, "step": begun["step"]}
    assert begun["utility"] - fewer["utility"] < begun["oracle"] - fewer["oracle"] + 0.02
    assert more["utility_full"] > again["utility_full"] + 0.02  # whoever joins is good at what the others are not


def test_who_is_not_there_cannot_leave() -> None:
    with pytest.raises(ValueError, match="agent 'nobody' is not recorded; there are small, words, large"):
        comings_and_goings(TEST, RESERVATION, ["nobody"], "words", 0.5)
    with pytest.raises(ValueError, match="nobody is left without small, large, words"):
        comings_and_goings(TEST, RESERVATION, ["small", "large"], "words", 0.5)


def test_easy_and_hard() -> None:
    everybody = np.zeros(len(TEST), dtype=int)
    found = easy_and_hard(TEST, {"smallest": routed(TEST, everybody, Asked(TEST))})["smallest"]
    easy = TEST.right.sum(axis=0) >= 2  # of three
    assert (found["easy"]["n"], found["hard"]["n"]) == (easy.sum(), (~easy).sum())
    assert found["hard"]["accuracy"] == pytest.approx(TEST.right[0][~easy].mean())
    assert found["easy"]["cost"] == pytest.approx(0.1)


def test_shares() -> None:
    answering = np.array([0, 1] * (len(TEST) // 2))
    told = shares({0.5: routed(TEST, answering, Asked(TEST))}, TEST.agents)
    assert told == {"0.5": {"small": 0.5, "words": 0.5, "large": 0.0}}
