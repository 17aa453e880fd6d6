"""What is missing to the oracle, on cases where it is known which of the three it is."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from agents.offers import Ballots, Offer
from agents.profile import mixed
from benchmarks.missing import missing, sureness
from benchmarks.outcomes import Asked, routed
from tests.baselines import COSTS, SURE, outcomes
from tests.unit.test_profile import profile

TEST = outcomes(3000, 5)
WORDS = {"add": "sums", "spell": "words", "why": "riddles"}
P = np.array([SURE[WORDS[question.text.split()[0]]] for question in TEST.questions]).T
ALPHA = 0.5


def told(p: np.ndarray, chosen: np.ndarray) -> dict[str, float]:  # type: ignore[type-arg]
    return missing(TEST, p, routed(TEST, chosen, Asked(TEST)), ALPHA)


def test_who_knows_as_much_as_can_be_known_lacks_information_only() -> None:
    found = told(P, (P - ALPHA * COSTS[:, None]).argmax(axis=0))
    assert (found["calibration"], found["policy"]) == (pytest.approx(0, abs=0.01), 0)
    assert found["information"] == pytest.approx(found["oracle"] - found["got"], abs=0.01)
    assert found["information"] > 0.02
    assert found["oracle"] == pytest.approx(TEST.utilities(ALPHA).max(axis=0).mean())


def test_a_bad_choice_is_policy() -> None:
    found = told(P, np.full(3000, 2))
    assert found["policy"] == pytest.approx(found["all at once"] - (TEST.right[2].mean() - ALPHA * COSTS[2]))
    assert found["policy"] > 0.05


def test_what_is_said_wrongly_is_calibration() -> None:
    """The cheapest doubts itself where it should not, and the reverse; read well, it says as much as before."""
    wrong = P.copy()
    wrong[0] = 1 - wrong[0]
    chosen = (wrong - ALPHA * COSTS[:, None]).argmax(axis=0)
    found = told(wrong, chosen)
    assert found["calibration"] == pytest.approx(told(P, chosen)["all at once"] - found["got"], abs=0.01)
    assert found["calibration"] > 0.05
    assert found["information"] == pytest.approx(told(P, chosen)["information"], abs=0.01)


def test_who_knows_nothing_lacks_all_information() -> None:
    nothing = replace(TEST, right=np.random.default_rng(0).integers(0, 2, TEST.right.shape).astype(float))
    half = np.full(TEST.right.shape, 0.5)
    found = missing(nothing, half, routed(nothing, np.zeros(3000, dtype=int), Asked(nothing)), ALPHA)
    assert found["information"] == pytest.approx(
        found["oracle"] - (nothing.right[0].mean() - ALPHA * COSTS[0]), abs=0.02
    )


def test_what_everybody_drafted_is_known_too() -> None:
    two = TEST.at(np.array([0, 1]))
    looked = {ALPHA: np.full((3, 2), 0.5)}
    two = replace(two, texts=(("4", "5"), ("4", "6"), ("7", "6")), beliefs=looked)
    alone = {name: profile(0.5) for name in two.agents}
    own = sureness(two, alone, ALPHA)
    trusting = alone["small"].drafted
    assert own[0, 0] == pytest.approx(mixed(trusting, 0.5, two.drafted(0, 0)))
    weights = (-0.5, 1.0, 0.25, 0.75)
    joint = sureness(two, {name: msgspec.structs.replace(told, agreed=weights) for name, told in alone.items()}, ALPHA)
    for number, said in enumerate(zip(*two.texts, strict=True)):
        offers = [Offer(name, p, said=text) for name, p, text in zip(two.agents, own[:, number], said, strict=True)]
        expected = [Ballots(weights, offers).worth(offer, ALPHA) for offer in offers]
        assert joint[:, number] == pytest.approx(expected)
