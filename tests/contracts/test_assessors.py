"""What every assessor in ASSESSORS promises. New ones are tested as they come."""

from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from agents.assess import ASSESSORS, REFUSED, Ask, Assessor, Confidence, Refusal, Session, Verdict, Wait
from agents.messages import Message, Piece, Query, Scores
from agents.prompts import REFUSAL, is_refusal

patiently = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a machine may be busy
kinds = pytest.mark.parametrize("kind", sorted(ASSESSORS))
MESSAGES = (Message("user", "why?"),)
CALIBRATION = {"kind": "isotonic", "alphas": [0.5], "maps": [{"x": [-1.0, 1.0], "y": [0.25, 0.75]}]}
logprobs = st.floats(-60, 0) | st.just(-math.inf)
part = st.tuples(st.text(max_size=6) | st.sampled_from(["I", " don't", " know", "!"]), st.integers(0, 3), logprobs)


@st.composite
def drafts(draw: st.DrawFn) -> list[Piece]:
    """A whole draft, in pieces; the last one has ``finish`` set."""
    parts = draw(st.lists(part, min_size=1, max_size=6))
    bare = draw(st.booleans())  # without log-probabilities
    pieces = [Piece(text, tokens, None if bare else logprob) for text, tokens, logprob in parts]
    last = pieces[-1]
    return [*pieces[:-1], Piece(last.text, last.tokens, last.logprob, finish=draw(st.sampled_from(["stop", "length"])))]


def assessors(kind: str) -> list[Assessor]:
    """Without a calibration and, where it takes one, with."""
    made = ASSESSORS[kind]
    return [made(), made(CALIBRATION)] if made.gives_probability else [made()]


def begin(assessor: Assessor, alpha: float = 0.5) -> Session:
    return assessor.begin(Query("q", MESSAGES, alpha), MESSAGES)


def assess(session: Session, pieces: Sequence[Piece], scores: Sequence[float]) -> Verdict:
    """The verdict, as a node comes to it; every question for scores gets the next of ``scores``."""
    supply = itertools.cycle(scores)
    verdict: Verdict = session.opening or Wait()
    for piece in pieces:
        while isinstance(verdict, Ask):
            verdict = session.scored(Scores(tuple(next(supply) for _ in verdict.continuations)))
        if not isinstance(verdict, Wait):
            return verdict
        verdict = session.feed(piece)
        assert piece.finish is None or not isinstance(verdict, Wait)
    while isinstance(verdict, Ask):
        verdict = session.scored(Scores(tuple(next(supply) for _ in verdict.continuations)))
    return verdict


@kinds
@given(pieces=drafts(), scores=st.lists(st.floats(-60, 0), min_size=1, max_size=3), alpha=st.floats(0, 1))
@patiently
def test_every_draft_gets_a_verdict(kind: str, pieces: list[Piece], scores: list[float], alpha: float) -> None:
    for assessor in assessors(kind):
        verdict = assess(begin(assessor, alpha), pieces, scores)
        assert isinstance(verdict, Confidence | Refusal)
        if isinstance(verdict, Confidence):
            assert (verdict.p is not None) == assessor.gives_probability
            assert verdict.p is None or 0 <= verdict.p <= 1
            assert not math.isnan(verdict.score)


@kinds
@given(cuts=st.sets(st.integers(1, len(REFUSAL) - 1)))
@patiently
def test_the_refusal_is_recognised_however_it_is_cut(kind: str, cuts: set[int]) -> None:
    session = begin(ASSESSORS[kind]())
    ends = [0, *sorted(cuts), len(REFUSAL)]
    verdicts = [session.feed(Piece(REFUSAL[at:to], 1, -0.1)) for at, to in itertools.pairwise(ends)]
    assert verdicts == [Wait()] * (len(verdicts) - 1) + [REFUSED]


@kinds
@pytest.mark.parametrize(
    "text", [REFUSAL, "I don't know", "i don\u2019t know.", ' "I don\'t know!"', "I DON'T KNOW!\n\nWell,"]
)
def test_a_whole_draft_that_is_the_refusal_is_one(kind: str, text: str) -> None:
    assert begin(ASSESSORS[kind]()).feed(Piece(text, 5, -0.1, finish="stop")) == REFUSED


@kinds
@given(pieces=drafts(), scores=st.lists(st.floats(-60, 0), min_size=1, max_size=3))
@patiently
def test_what_is_no_refusal_is_not_taken_for_one(kind: str, pieces: list[Piece], scores: list[float]) -> None:
    assume(not is_refusal("".join(piece.text for piece in pieces), complete=True))
    assert isinstance(assess(begin(ASSESSORS[kind]()), pieces, scores), Confidence)


@kinds
@given(pieces=drafts(), scores=st.lists(st.floats(-60, 0), min_size=1, max_size=3))
@patiently
def test_it_travels_and_two_sessions_do_not_mix(kind: str, pieces: list[Piece], scores: list[float]) -> None:
    for assessor in assessors(kind):
        first = begin(assessor)
        assess(begin(assessor), pieces[-1:], [-1.0])  # somebody else's draft in between
        copy = pickle.loads(pickle.dumps(assessor))
        assert assess(first, pieces, scores) == assess(begin(copy), pieces, scores)


@kinds
def test_it_says_what_it_needs_of_the_engine(kind: str) -> None:
    assessor = ASSESSORS[kind]()
    assert assessor.needs <= {"logprobs", "scores"}
    assert assessor.gives_probability or not assessor.needs
    opening = begin(assessor).opening
    assert opening is None or ("scores" in assessor.needs and opening.continuations)


@pytest.mark.parametrize("kind", sorted(name for name, made in ASSESSORS.items() if made.gives_probability))
def test_a_calibration_has_the_last_word(kind: str) -> None:
    flat = {"kind": "isotonic", "alphas": [0.5], "maps": [{"x": [0.0], "y": [0.625]}]}
    verdict = assess(begin(ASSESSORS[kind](flat)), [Piece("forty two", 2, -1.0, finish="stop")], [-2.0, -1.0])
    assert isinstance(verdict, Confidence)
    assert verdict.p == 0.625
