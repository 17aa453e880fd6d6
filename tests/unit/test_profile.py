"""Profiles and routing by them: values by hand, files, and what agents learn of themselves."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from agents.errors import ConfigError
from agents.messages import Card
from agents.offers import Offer, logit, sigmoid
from agents.policies import Answer, Decision, Decline, Draft, Forward, Look, Reservation, View
from agents.profile import BUCKETS, MOST, Profile, basis, features, mixed
from training.profiles import GRID, Record, learn_prior, learn_values

UNDRAFTED = (Offer("me", 0.3),)
STEP = float(GRID[1] - GRID[0])


def flat(value: float) -> tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]:
    """The same value at any probability and preference."""
    return (((0.5,), (value,)),)


def profile(value: float, look: float | None = None, after: float = 0.0, price: float = 0.0) -> Profile:
    """Of an agent that is asked for this much; which believes what it says of its draft, whatever came before."""
    trusting = (0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)
    both = (0.0, *[0.0] * 8, 1.0, 0.0, 0.0, 0.0)
    looking = () if look is None else flat(look)
    return Profile(
        bytes([128] * BUCKETS), 1.0, 0.0, trusting, trusting, both, (0.5,), flat(value), looking, flat(after), price
    )


def view(own: Profile | None, others: dict[str, Profile | None], before: float | None = None, **seen: object) -> View:
    cards = tuple(Card(name, 0.5, profile=told) for name, told in others.items())
    given = {"confidence": None, "looked": False, **seen}
    offers = () if before is None else (Offer("z", before),)
    return View(Card("me", 0.5, profile=own), 0.5, given.pop("confidence"), False, cards, **{"offers": offers} | given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seen", "decision"),
    [
        (view(profile(0.4), {"a": profile(0.3), "b": profile(0.2)}), Draft()),
        (view(profile(0.4, 0.45), {"a": profile(0.3)}), Look()),
        (view(profile(0.4, 0.35), {"a": profile(0.3)}), Draft()),
        (view(profile(0.4), {"a": profile(0.5), "b": profile(0.6)}), Forward("b", (Offer("me", 0.4),))),
        (view(profile(0.4), {"a": profile(0.5)}, 0.45), Forward("a", (Offer("z", 0.45), Offer("me", 0.4)))),
        (view(profile(0.4), {"a": profile(0.5)}, 0.7), Decline((Offer("z", 0.7), Offer("me", 0.4)))),
        (view(profile(0.4), {}, 0.7), Decline((Offer("z", 0.7), Offer("me", 0.4)))),
        (view(profile(0.4), {}, 0.3), Draft()),
        (view(profile(0.4), {"a": None}), Draft()),
        (view(None, {"a": profile(-0.5)}), Forward("a")),
        (view(profile(0.4, after=0.6), {"a": profile(0.5)}, looked=True, confidence=0.8), Draft()),
        (
            view(profile(0.4, after=0.4), {"a": profile(0.5)}, looked=True, confidence=0.8),
            Forward("a", (Offer("me", 0.4),)),
        ),
    ],
)
def test_a_query_goes_to_whom_it_is_worth_most_to_ask(seen: View, decision: Decision) -> None:
    assert Reservation().decide(seen) == decision


def test_a_draft_is_kept_against_what_others_promise() -> None:
    for looked in (False, True):
        drafted = view(profile(0.9), {"a": profile(0.5)}, looked=looked, confidence=0.9, draft="42", drafted=0.6)
        assert Reservation().decide(drafted) == Answer()
        unsure = view(profile(0.9), {"a": profile(0.7)}, looked=looked, confidence=0.9, draft="42", drafted=0.6)
        assert Reservation().decide(unsure) == Forward("a", (Offer("me", pytest.approx(0.6), 0.0, "42"),))
    dear = view(profile(0.9, price=0.4), {"a": profile(0.5)}, draft="42", drafted=0.6)
    assert Reservation().decide(dear) == Forward("a", (Offer("me", pytest.approx(0.6), 0.4, "42"),))


def test_values_lie_between_those_of_two_alphas_and_two_probabilities() -> None:
    line = ((0.2, 0.6), (0.0, 0.4))
    told = replace(profile(0), alphas=(0.2, 0.6), drafting=(line, flat(0.8)[0]))
    found = [told.value(p, a)[0] for p, a in ((0.2, 0.2), (0.4, 0.2), (0.9, 0.1), (0.4, 0.6), (0.4, 0.4), (0, 1))]
    assert found == pytest.approx([0.0, 0.2, 0.4, 0.8, 0.5, 0.8])


def test_a_prior_is_logistic_in_what_stands_in_the_text() -> None:
    for text in ("", "7", "reverse mesh=", "Why? " * 9999):
        found = features(text)
        assert found == tuple(sorted({*found}))
        assert 0 <= found[0] <= found[-1] < BUCKETS
        weights = bytearray([128] * BUCKETS)
        weights[found[0]] = 131
        told = replace(profile(0), weights=bytes(weights), scale=0.5, bias=-1.0)
        assert told.prior(text) == pytest.approx(sigmoid(-1 + 0.5 * 3 / math.sqrt(len(found))))
    assert features("a" * MOST + "b" + "a" * MOST) == features("a" * 2 * MOST)


def test_probabilities_are_mixed_by_their_log_odds() -> None:
    assert basis(0.5, None) == [1, 0, 0, 0, 0, 0, 0, 0, 1]
    assert basis(sigmoid(4)) == pytest.approx([1, 4, 4, 1, 0])
    assert mixed((0.5, 1, 0, 0, 0), 0.2) == pytest.approx(sigmoid(0.5 + logit(0.2)))
    assert basis(0.0)[1] == logit(0.0) == pytest.approx(-basis(1.0)[1])


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    told = replace(profile(0.3, 0.4), alphas=(0.2, 0.6), **dict.fromkeys(("drafting", "looking", "after"), flat(1) * 2))
    file.write_bytes(told.written())
    assert Profile.load(file) == told
    for broken, message in (
        (b"{", "truncated"),
        (b"{}", "missing required field `weights`"),
        (replace(told, weights=b"abc").written(), "8192 weights"),
        (replace(told, after=flat(1)).written(), "a curve of each kind for each alpha"),
        (replace(told, agreed=(1.0,)).written(), "four weights or none"),
    ):
        file.write_bytes(broken)
        with pytest.raises(ConfigError, match=f"profile .*x.json: .*{message}"):
            Profile.load(file)
    with pytest.raises(ConfigError, match="none"):
        Profile.load(tmp_path / "none.json")


def rows(count: int, seed: int, sure: bool = True) -> Record:
    """Of sums the agent knows all, of riddles half; its drafts (if ``sure``) tell which, and its looks a little."""
    rng = np.random.default_rng(seed)
    easy, luck = rng.random(count) < 0.5, rng.random(count) < 0.5
    texts = tuple(f"{'sum' if one else 'riddle'} {number}" for number, one in enumerate(easy))
    right = (easy | luck).astype(float)
    drafted = np.where(right, -0.01, -4.0) if sure else None
    return Record(texts, right, None, drafted, None, np.full(count, 0.4))


def test_what_it_is_worth_to_ask_by_hand() -> None:
    """An agent that is right in half, and then knows it, for a price of k: 0.5 * (1 - z) = k, so z = 1 - 2 k."""
    begun = learn_prior(rows(2000, 1), rows(1000, 2))
    easy, hard = begun.prior("sum 12"), begun.prior("riddle 12")
    assert (easy, hard) == (pytest.approx(0.98, abs=0.03), pytest.approx(0.5, abs=0.06))
    told = learn_values(begun, rows(1000, 3), 0.3, (0.25, 0.5), full=True)
    assert told.value(hard, 0.5) == (pytest.approx(1 - 2 * 0.2, abs=0.05), False)
    assert told.value(hard, 0.25) == (pytest.approx(1 - 2 * 0.1, abs=0.05), False)
    assert told.value(easy, 0.5)[0] == pytest.approx(1 - 0.2, abs=0.03)
    blind = learn_values(begun, rows(1000, 3, sure=False), 0.3, (0.5,), full=True)
    assert blind.value(hard, 0.5)[0] == pytest.approx(0.5 - 0.2, abs=0.06)  # it must take what comes
    priced = learn_values(begun, rows(1000, 3), 0.3, (0.5,), full=False)
    assert priced.value(easy, 0.5)[0] == pytest.approx(1 - 0.15, abs=0.03)
    assert (priced.price, priced.once_drafted(hard, 0.99)) == (0.3, pytest.approx(1, abs=0.03))


@pytest.mark.parametrize(("right", "prior"), [(0.0, 1 / 22), (1.0, 21 / 22)])
def test_who_was_never_right_or_never_wrong_is_believed_to_stay_so(right: float, prior: float) -> None:
    """By Laplace's rule of succession: (20 * right + 1) / (20 + 2), whatever the text."""
    record = Record(tuple(f"why {n}" for n in range(20)), np.full(20, right))
    assert learn_prior(record, record).prior("whatever") == pytest.approx(prior)


def test_a_look_pays_where_it_may_save_a_draft() -> None:
    """It sees beforehand what it knows, for a quarter of a draft's price: 0.5 * (1 - k - z) = k / 4, z = 1 - 1.5 k."""
    seen = rows(2000, 3)
    looking = Record(seen.texts, seen.right, np.where(seen.right, 0.99, 0.01), None, np.full(2000, 0.1), seen.work)
    begun = learn_prior(rows(2000, 1), rows(1000, 2))
    told = learn_values(begun, looking, 0.3, (0.5,), full=True)
    hard = begun.prior("riddle 12")
    assert told.value(hard, 0.5) == (pytest.approx(1 - 1.5 * 0.2, abs=0.05), True)
    worth, sure = told.once_looked(hard, 0.99, 0.5)
    assert (sure, worth) == (pytest.approx(1, abs=0.03), pytest.approx(1 - 0.2, abs=0.03))
    assert told.once_looked(hard, 0.01, 0.5)[0] < 0


def test_one_record_gives_one_profile() -> None:
    begun = [learn_prior(rows(400, 1), rows(200, 2)) for _ in "ab"]
    assert begun[0] == begun[1]
    assert len({learn_values(each, rows(200, 2), 0.3, (0.5,), True).written() for each in begun}) == 1
