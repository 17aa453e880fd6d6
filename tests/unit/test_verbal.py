"""Verbalised confidence, from made-up scores of its eleven percentages."""

from __future__ import annotations

import math

import pytest

from agents.assess import Ask, Confidence
from agents.messages import Message, Piece, Query, Scores
from benchmarks.verbal import LEVELS, Verbal

ASKED = (Message("user", "what is 2 + 2?"),)


def session() -> object:
    one = Verbal().begin(Query("q", ASKED, 0.5), ASKED)
    asked = one.feed(Piece("4", 1, -0.1, 5, "stop"))
    assert isinstance(asked, Ask)
    assert "what is 2 + 2?" in asked.messages[0].content
    assert "\n4\n" in asked.messages[0].content
    assert asked.continuations == LEVELS
    return one


@pytest.mark.parametrize(
    ("logprobs", "p"),
    [
        ([-50.0] * 10 + [0.0], 1.0),  # it would say 100%
        ([0.0] + [-50.0] * 10, 0.0),
        ([-1.0] * 11, 0.5),
        ([-math.inf] * 11, 0.5),  # it would say nothing of the kind
        ([math.log(0.5)] + [-math.inf] * 9 + [math.log(0.5)], 0.5),
    ],
)
def test_the_mean_of_what_it_might_say(logprobs: list[float], p: float) -> None:
    said = session().scored(Scores(tuple(logprobs), 1))  # type: ignore[attr-defined]
    assert isinstance(said, Confidence)
    assert said.p == pytest.approx(p)
