"""What every rule in POLICIES promises, and where the paper's own draw the line. New ones are tested as they come."""

from __future__ import annotations

import math
import pickle

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agents.errors import ConfigError
from agents.messages import Card, Hop, Outcome
from agents.offers import Offer
from agents.policies import (
    POLICIES,
    Answer,
    Ask,
    Decline,
    Draft,
    Forward,
    Look,
    Policy,
    Reliability,
    View,
    Wait,
)

patiently = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a machine may be busy
rules = pytest.mark.parametrize("rule", sorted(POLICIES))
shares = st.floats(0, 1)
cards = st.builds(Card, st.text("abcdef", min_size=1, max_size=3), st.floats(0.01, 1))
views = st.builds(
    View,
    agent=st.just(Card("self", 0.5)),
    alpha=shares,
    confidence=st.none() | shares,
    refused=st.booleans(),
    neighbours=st.lists(cards, max_size=5, unique_by=lambda card: card.name).map(tuple),
    budget=st.none() | st.floats(0, 10),
    seed=st.integers(0, 9),
)


@st.composite
def companies(draw: st.DrawFn) -> View:
    """An agent that has asked some of its neighbours at once, or is asked beside others itself."""
    seen = draw(views)
    if draw(st.booleans()):
        return replace(seen, aside=True)
    names = [card.name for card in seen.neighbours]
    voted = draw(st.sets(st.sampled_from(names))) if names else set()
    votes = tuple(Offer(name, draw(shares), draw(shares), draw(st.sampled_from("xy"))) for name in sorted(voted))
    asked = tuple(name for name in names if name not in voted and draw(st.booleans()))
    return replace(seen, together=True, asked=asked, votes=votes, draft=draw(st.none() | st.just("so")))


def view(alpha: float, confidence: float | None, refused: bool = False, neighbours: str = "bc") -> View:
    others = tuple(Card(name, 0.9) for name in neighbours)
    return View(Card("a", 0.1), alpha, confidence, refused, others)


# ---------------------------------------------------------------------------------- all of them


@rules
@given(seen=views)
@patiently
def test_forwards_only_to_who_is_in_view(rule: str, seen: View) -> None:
    decision = POLICIES[rule]().decide(seen)
    staged = (Draft, Ask) if POLICIES[rule].staged else ()
    assert isinstance(decision, (Answer, Forward, Decline, *staged))
    asked = {decision.peer} if isinstance(decision, Forward) else set()
    if isinstance(decision, Ask):
        asked = set(decision.peers)
        assert len(asked) == len(decision.peers) > 0
        assert decision.within_s > 0
    assert asked <= {card.name for card in seen.neighbours}


@rules
@given(seen=companies())
@patiently
def test_waits_only_for_those_who_work(rule: str, seen: View) -> None:
    policy = POLICIES[rule]()
    decision = policy.decide(seen)
    assert POLICIES[rule]().decide(seen) == decision
    assert not isinstance(decision, Look)
    assert seen.asked or not isinstance(decision, Wait)
    assert not seen.aside or not (isinstance(decision, Wait) or (isinstance(decision, Ask) and decision.vote))
    if isinstance(decision, Forward):
        assert decision.peer in {card.name for card in seen.neighbours}


@rules
@given(seen=views)
@patiently
def test_the_same_view_gives_the_same_decision(rule: str, seen: View) -> None:
    policy = POLICIES[rule]()
    first = policy.decide(seen)
    assert policy.decide(seen) == first
    assert POLICIES[rule]().decide(seen) == first
    assert pickle.loads(pickle.dumps(policy)).decide(seen) == first


@rules
@given(seen=views.map(lambda seen: replace(seen, neighbours=())))
@patiently
def test_with_nobody_in_view_it_answers_or_declines(rule: str, seen: View) -> None:
    assert isinstance(POLICIES[rule]().decide(seen), Answer | Decline)


@rules
def test_says_what_it_needs(rule: str) -> None:
    policy = POLICIES[rule]()
    assert {type(flag) for flag in (policy.assesses, policy.needs_probability, policy.learns)} == {bool}
    assert policy.assesses or not policy.needs_probability
    assert (POLICIES[rule].__doc__ or "").strip() != (Policy.__doc__ or "").strip()


@rules
@pytest.mark.parametrize("right", [None, True, False])
def test_hears_what_became_of_a_query(rule: str, right: bool | None) -> None:
    policy = POLICIES[rule]()
    path = (Hop("self", "refused", 0.3), Hop("a", "answered", 0.9))
    policy.learn(Outcome("q", 0.5, path, 0.9, 1.0, right))
    assert isinstance(policy.decide(view(0.5, 0.6)), Answer | Forward | Draft | Ask)


# ---------------------------------------------------------------------------------- reliability

# (1 - alpha) ** gamma, computed by hand
THRESHOLDS = [(0.2, 0.5, 0.894427191), (0.5, 0.5, 0.707106781), (0.8, 0.5, 0.447213595), (0.5, 2.0, 0.25), (0, 1, 1)]


@pytest.mark.parametrize(("alpha", "gamma", "threshold"), THRESHOLDS)
def test_reliability_answers_above_its_threshold(alpha: float, gamma: float, threshold: float) -> None:
    policy = Reliability(gamma)
    assert policy.decide(view(alpha, threshold - 1e-6)) == Forward("b")
    if threshold < 1:
        assert policy.decide(view(alpha, threshold + 1e-6)) == Answer()


def test_reliability_at_its_threshold_forwards() -> None:
    assert Reliability().decide(view(0.75, 0.5)) == Forward("b")  # (1 - 0.75) ** 0.5 is 0.5 exactly
    assert Reliability().decide(view(0.75, math.nextafter(0.5, 1))) == Answer()
    assert Reliability().decide(view(0, 1.0)) == Forward("b")


@given(p=st.floats(0, 1, exclude_min=True), gamma=st.floats(0.01, 10))
@patiently
def test_reliability_at_alpha_1_answers_whatever_has_a_chance(p: float, gamma: float) -> None:
    assert Reliability(gamma).decide(view(1, p)) == Answer()
    assert Reliability(gamma).decide(view(1, 0.0)) == Forward("b")


@given(low=shares, high=shares, p=shares)
@patiently
def test_reliability_forwards_less_as_alpha_rises(low: float, high: float, p: float) -> None:
    low, high = sorted((low, high))
    if Reliability().decide(view(low, p)) == Answer():
        assert Reliability().decide(view(high, p)) == Answer()


@pytest.mark.parametrize("gamma", [0, -1, math.nan, True, "0.5"])
def test_gamma_is_a_positive_number(gamma: object) -> None:
    with pytest.raises(ConfigError, match=r"gamma is .*, it must be a number above 0"):
        Reliability(gamma)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------- the verdict alone


@pytest.mark.parametrize("rule", ["refusal", "reliability"])
def test_who_refused_forwards_to_the_first_in_view(rule: str) -> None:
    assert POLICIES[rule]().decide(view(1, 1.0, refused=True)) == Forward("b")
    assert POLICIES[rule]().decide(view(1, 1.0, refused=True, neighbours="")) == Decline()


def test_refusal_goes_by_nothing_else() -> None:
    assert POLICIES["refusal"]().decide(view(0, 0.0)) == Answer()
    assert POLICIES["refusal"]().decide(view(0, None)) == Answer()


def test_always_answers() -> None:
    assert POLICIES["always"]().decide(view(0, 0.0, refused=True)) == Answer()
    assert not POLICIES["always"].assesses
