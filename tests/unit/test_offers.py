"""What drafts tell of each other: by hand, and how a query goes by it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from msgspec.structs import replace

from agents.messages import Card
from agents.offers import LEAST, Ballots, Offer, comes_to, evidence, logit, sigmoid
from agents.policies import Answer, Decline, Draft, Forward, Reservation, View
from agents.profile import Profile
from tests.unit.test_profile import profile
from training.profiles import learn_agreement

WEIGHTS = (-0.5, 1.0, 0.25, 0.75)


def agreeing(value: float, price: float, work: float, prior: float = 0.5) -> Profile:
    """Of an agent that knows what drafts tell of each other."""
    return replace(profile(value, price=price), work=work, agreed=WEIGHTS, bias=logit(prior))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (" 42\n", "42"),
        ("So 6 * 7 is 42.\n#### 42", "42"),
        ("The answer is **Paris**.", "paris"),
        ("B", "b"),
        ("(B) since it is so", "b"),
        ("B. since", "b"),
        ("Because", "because"),
        ("", ""),
        ("...", ""),
        ("x" * 99, "x" * 40),
    ],
)
def test_what_an_answer_comes_to(text: str, said: str) -> None:
    assert comes_to(text) == said


def test_how_likely_an_answer_is_by_hand() -> None:
    one, two, other = Offer("a", 0.8, 0.2, "42"), Offer("b", 0.6, 0.5, "42"), Offer("c", 0.9, 0.1, "7")
    ballots = Ballots(WEIGHTS, (one, two, other))
    odds = -0.5 + logit(0.8) - 0.25 * (math.log(0.2) + math.log(0.4)) + 0.75 * math.log(0.1)
    assert ballots.worth(one, 0.5) == pytest.approx(sigmoid(odds) - 0.1)
    assert ballots.worth(two, 0.5) == pytest.approx(sigmoid(odds) - 0.25)
    rival = -0.5 + logit(0.9) - 0.25 * math.log(0.1) + 0.75 * (math.log(0.2) + math.log(0.4))
    assert ballots.worth(other, 1.0) == pytest.approx(sigmoid(rival) - 0.1)
    assert ballots.worth(Offer("d", 0.3), 0.5) == 0.3
    assert Ballots((), (one, other)).worth(one, 0.5) == pytest.approx(0.7)
    assert evidence(1.0) == pytest.approx(-math.log(LEAST))


def test_what_one_more_draft_adds_by_hand() -> None:
    held = Offer("a", 0.8, 0.1, "42")
    ballots = Ballots(WEIGHTS, (held,))
    now = ballots.worth(held, 0.5)
    agreed = Ballots(WEIGHTS, (held, Offer("b", 0.7, 0.6, "42"))).worth(held, 0.5)
    parted = Ballots(WEIGHTS, (held, Offer("b", 0.7, 0.6, "7")))
    kept, other = (parted.worth(offer, 0.5) for offer in (held, Offer("b", 0.7, 0.6, "7")))
    both = (now + 0.05) * 0.7
    assert ballots.gain(held, 0.7, 0.6, 0.02, 0.5) == pytest.approx(
        both * agreed + (1 - both) * max(kept, other) - now - 0.01
    )
    assert Ballots((), (held,)).gain(held, 0.7, 0.6, 0.02, 0.5) == -math.inf
    assert ballots.gain(Offer("z", 0.5), 0.7, 0.6, 0.02, 0.5) == -math.inf


def test_a_cheap_draft_is_confirmed_and_answers() -> None:
    """Unsure, it has a dear agent draft too, which finds the same and hands back to the cheap one."""
    cheap = Card("cheap", 0.1, profile=agreeing(0.5, 0.1, 0.002))
    dear = Card("dear", 0.9, profile=agreeing(0.3, 0.9, 0.018, 0.9))
    rule = Reservation()
    first = View(cheap, 0.5, None, False, (dear,), looked=False, draft="42", text="?", drafted=0.6)
    mine = Offer("cheap", pytest.approx(0.6), 0.1, "42")
    assert rule.decide(first) == Forward("dear", (mine,))
    held = (Offer("cheap", 0.6, 0.1, "42"),)
    second = View(dear, 0.5, None, False, (), looked=False, text="?", offers=held)
    assert rule.decide(second) == Draft()
    agreed = rule.decide(replace(second, draft="42", drafted=0.9))
    assert agreed == Decline((*held, Offer("dear", pytest.approx(0.9), 0.9, "42")))
    assert isinstance(agreed, Decline)
    assert rule.decide(replace(first, neighbours=(), offers=agreed.offers)) == Answer()
    parted = rule.decide(replace(second, alpha=0.2, draft="7", drafted=0.98))
    assert parted == Answer()


def test_who_came_after_cannot_be_gone_back_to() -> None:
    """Its draft counts, but it has let go of the query; a third agent that promises enough is asked."""
    rule, third = Reservation(), Card("third", 0.2, profile=agreeing(0.7, 0.2, 0.004))
    offers = (Offer("me", 0.4, 0.1, "42"), Offer("b", 0.95, 0.1, "7"))
    seen = View(
        Card("me", 0.1, profile=agreeing(0.5, 0.1, 0.002)), 0.5, None, False, (third,), looked=False, draft="42"
    )
    decision = rule.decide(replace(seen, text="?", offers=offers, drafted=0.4))
    assert decision == Forward("third", (Offer("me", pytest.approx(0.4), 0.1, "42"), offers[1]))


def test_what_drafts_tell_of_each_other_is_learnt() -> None:
    """Three agents of which each is right in half, and wrong in its own way: whoever is confirmed is right."""
    rng = np.random.default_rng(0)
    right = rng.random((3, 900)) < 0.5
    offers = [
        [Offer(str(at), 0.5, said="right" if one else f"{at} wrong") for one in row] for at, row in enumerate(right)
    ]
    told = learn_agreement(profile(0.5), right[0].astype(float), offers[0], offers[1:])
    alone, confirmed, denied = (
        Ballots(told.agreed, (offers[0][0], *others)).worth(replace(offers[0][0]), 0.0)
        for others in (
            (),
            (replace(offers[0][0], agent="1"),),
            (Offer("1", 0.5, said="?"), Offer("2", 0.5, said="!")),
        )
    )
    assert denied < alone < confirmed
    assert confirmed > 0.95
    assert learn_agreement(profile(0.5), np.ones(900), offers[0], offers[1:]).agreed == ()
    assert learn_agreement(profile(0.5), right[0].astype(float), offers[0], offers[1:]) == told
