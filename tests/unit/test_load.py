"""What an agent makes of its own load and of its neighbours', against values computed by hand."""

from __future__ import annotations

import pytest

from agents.messages import Card
from agents.overload import FRESH_S, FULL_S, Load, browned

CARDS = (Card("b", 0.50), Card("c", 0.46), Card("d", 0.51), Card("e", 0.9))


def load(*seconds: float, at: float = 0.0) -> Load:
    made = Load()
    for each in seconds:
        made.held(each, at)
    return made


def test_nobody_is_late_where_nothing_is_known() -> None:
    assert Load().late(0.001, 100, 1, 5.0) == ""


def test_what_a_query_needs() -> None:
    known = load(1.0, 3.0)  # the mean is 2; a tenth is to spare
    assert known.late(1.11, 0, 4, 1.0) == ""
    assert known.late(1.09, 0, 4, 1.0) == "it would take 1.1 s here, and 1.09 s are left"
    assert known.late(4.3, 6, 4, 1.0) == "it would take 4.4 s here, and 4.3 s are left"  # 1.1 * (1 + 6 / 4 * 2)
    assert known.late(4.41, 6, 4, 1.0) == ""


def test_what_was_long_ago_counts_no_more() -> None:
    """An agent that refuses everything would else never learn that it has become faster."""
    assert load(5.0).late(1.0, 0, 1, FRESH_S)
    assert load(5.0).late(1.0, 0, 1, FRESH_S + 0.1) == ""


def test_who_was_full_is_passed_over_for_the_nearest_of_like_quality() -> None:
    known = Load()
    assert known.instead("b", CARDS, 0.0) == "b"
    known.refused("b", 0.0)
    assert known.instead("b", CARDS, 0.5) == "d"
    known.refused("d", 0.5)
    assert known.instead("b", CARDS, 0.6) == "c"
    known.refused("c", 0.6)
    assert known.instead("b", CARDS, 0.7) == "b"  # e is another quality: then whom the policy named
    assert known.instead("b", CARDS, FULL_S) == "b"


@pytest.mark.parametrize(
    ("alpha", "most", "more", "waiting", "used"),
    [(0.5, 0.0, 9, 10, 0.5), (0.5, 0.8, -3, 10, 0.5), (0.5, 0.8, 5, 10, 0.7), (0.2, 1.0, 12, 10, 1.0)],
)
def test_browned(alpha: float, most: float, more: int, waiting: int, used: float) -> None:
    assert browned(alpha, most, more, waiting) == pytest.approx(used)
