"""Every assessor, piece by piece, against values computed by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from agents.assess import (
    ASSESSORS,
    REFUSED,
    WAIT,
    Ask,
    Assessor,
    Confidence,
    FirstToken,
    Likelihood,
    PTrue,
    RefusalAssessor,
    Session,
)
from agents.calibration import Calibration
from agents.messages import Message, Piece, Query, Scores
from agents.prompts import JUDGEMENTS, REFUSAL, judging

MESSAGES = (Message("user", "why?"),)
HALVED = {"kind": "isotonic", "alphas": [0.0, 1.0], "maps": [{"x": [-10.0, 10.0], "y": [0.25, 0.25]}] * 2}


def begin(assessor: Assessor, **fields: Any) -> Session:
    return assessor.begin(Query("q", MESSAGES, 0.5, **fields), MESSAGES)


def test_the_table_names_them_all() -> None:
    assert {
        "refusal": RefusalAssessor,
        "first_token": FirstToken,
        "likelihood": Likelihood,
        "p_true": PTrue,
    } == ASSESSORS
    needs = {name: sorted(kind.needs) for name, kind in ASSESSORS.items()}
    assert needs == {"refusal": [], "first_token": ["scores"], "likelihood": ["logprobs"], "p_true": ["scores"]}
    assert [name for name, kind in ASSESSORS.items() if not kind.gives_probability] == ["refusal"]


# ---------------------------------------------------------------------------------- the text


@pytest.mark.parametrize("kind", [RefusalAssessor, Likelihood, PTrue])
def test_a_refusal_is_seen_as_soon_as_it_is_one(kind: type[Assessor]) -> None:
    session = begin(kind())
    assert session.feed(Piece("I don")) == WAIT
    assert session.feed(Piece("'t know")) == WAIT  # "I don't know how tall" would be an answer
    assert session.feed(Piece("!")) == REFUSED


def test_by_its_text_an_answer_is_one_from_its_first_words_on() -> None:
    session = begin(RefusalAssessor())
    assert session.opening is None
    assert session.feed(Piece("I")) == WAIT
    assert session.feed(Piece(" think")) == Confidence(None)


def test_a_short_draft_is_decided_when_it_ends() -> None:
    assert begin(RefusalAssessor()).feed(Piece("I", finish="stop")) == Confidence(None)
    assert begin(RefusalAssessor()).feed(Piece("I don't know", finish="stop")) == REFUSED
    assert begin(RefusalAssessor()).feed(Piece("", finish="length")) == Confidence(None)


def test_who_refuses_to_continue_an_answer_has_refused() -> None:
    """The caller, who has read its beginning, must not read "I don't know!" after it."""
    session = begin(RefusalAssessor(), emitted="The answer: ")
    assert session.feed(Piece("I don't know!")) == REFUSED
    session = begin(RefusalAssessor(), emitted="The answer: ")
    assert session.feed(Piece("42")) == Confidence(None)


# ---------------------------------------------------------------------------------- the measures


def test_likelihood_is_the_mean_over_the_tokens_of_the_whole_draft() -> None:
    session = begin(Likelihood())
    assert session.feed(Piece("forty", 3, -0.5)) == WAIT
    assert session.feed(Piece(" two", 1, -0.7, finish="stop")) == Confidence(pytest.approx(math.exp(-0.3)), -0.3)


def test_likelihood_without_log_probabilities_or_tokens_is_certain() -> None:
    assert begin(Likelihood()).feed(Piece("", 0, None, finish="stop")) == Confidence(1.0, 0.0)


def test_a_likelihood_above_one_is_cut() -> None:
    assert begin(Likelihood()).feed(Piece("a", 1, 0.25, finish="stop")) == Confidence(1.0, 0.25)


def test_first_token_asks_before_any_draft() -> None:
    session = begin(FirstToken())
    assert session.opening == Ask(MESSAGES, (REFUSAL,))
    told = session.scored(Scores((math.log(0.2),), 9))
    assert told == Confidence(pytest.approx(0.8), pytest.approx(-math.log(0.2)))
    certain = session.scored(Scores((0.001,), 9))  # a probability a little above 1, from rounding
    assert (certain.p, certain.score) == (0.0, 0.0)  # type: ignore[union-attr]


def test_p_true_shows_the_draft_to_the_model_itself() -> None:
    session = begin(PTrue())
    assert session.feed(Piece("forty")) == WAIT
    assert session.feed(Piece(" two", finish="stop")) == Ask(judging(MESSAGES, "forty two"), JUDGEMENTS)
    told = session.scored(Scores((math.log(0.6), math.log(0.2)), 9))
    assert told == Confidence(pytest.approx(0.75), pytest.approx(math.log(3)))


@pytest.mark.parametrize(("scores", "p"), [((0.0, -math.inf), 1.0), ((-math.inf, 0.0), 0.0)])
def test_p_true_bears_impossible_words(scores: tuple[float, float], p: float) -> None:
    told = begin(PTrue()).scored(Scores(scores))
    assert isinstance(told, Confidence)
    assert told.p == pytest.approx(p)
    assert math.isfinite(told.score)


# ---------------------------------------------------------------------------------- calibration


@pytest.mark.parametrize("calibration", [HALVED, Calibration.from_json(HALVED)])
def test_a_calibration_replaces_the_raw_measure(calibration: Any) -> None:
    told = begin(Likelihood(calibration)).feed(Piece("a", 1, -1.0, finish="stop"))
    assert told == Confidence(0.25, -1.0)
    assert begin(FirstToken(calibration)).scored(Scores((-1.0,))) == Confidence(0.25, 1.0)
    assert begin(PTrue(calibration)).scored(Scores((-1.0, -3.0))) == Confidence(0.25, 2.0)


def test_a_calibration_knows_alpha() -> None:
    flat = [{"x": [0.0], "y": [y]} for y in (0.2, 0.6)]
    calibration = {"kind": "isotonic", "alphas": [0.0, 1.0], "maps": flat}
    assert begin(Likelihood(calibration)).feed(Piece("a", 1, -1.0, finish="stop")) == Confidence(
        pytest.approx(0.4), -1.0
    )


def test_by_its_text_there_is_nothing_to_calibrate() -> None:
    with pytest.raises(TypeError, match="calibration"):
        RefusalAssessor(calibration=HALVED)  # type: ignore[call-arg]


def test_a_session_says_how_it_measures() -> None:
    session = Session(Assessor(), Query("q", MESSAGES, 0.5), MESSAGES)
    with pytest.raises(NotImplementedError):
        session.conclude()
    with pytest.raises(NotImplementedError):
        session.scored(Scores(()))


def test_a_calibration_may_say_at_which_preference_its_scores_are_taken() -> None:
    assert FirstToken().told(0.2) == FirstToken(HALVED).told(0.2) == 0.2
    assert FirstToken({**HALVED, "told": 0.75}).told(0.2) == 0.75
