"""Scores of probabilities and the summary of replies, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.messages import Hop, Reply
from benchmarks.metrics import Row, auroc, brier, ece, log_loss, oracle, summarise

ROWS = [
    Row(True, 0.1, 0.2, "small", 0.5),
    Row(False, 0.1, 0.1, "small", 0.5),
    Row(True, 0.9, 1.2, "large", 0.5, hops=2, refused=1),
    Row(True, 0.5, 0.8, "middle", 1.0, hops=3, refused=2),
]


def test_brier_and_log_loss() -> None:
    assert brier([0.9, 0.2, 0.5], [True, False, True]) == pytest.approx((0.01 + 0.04 + 0.25) / 3)
    assert log_loss([0.5, 0.25], [True, False]) == pytest.approx((math.log(2) - math.log(0.75)) / 2)
    assert log_loss([0.0], [True]) == math.inf


def test_ece() -> None:
    # two bins of two: mean p .2 against accuracy .5, and .8 against 1
    assert ece([0.1, 0.3, 0.7, 0.9], [True, False, True, True], bins=2) == pytest.approx((0.3 + 0.2) / 2)
    assert ece([0.0, 1.0], [False, True]) == 0
    assert ece([1.0, 0.0], [False, True]) == 1
    # bins need not be full: 3 rows, 15 bins, one row a bin
    assert ece([0.2, 0.4, 0.9], [False, True, True]) == pytest.approx((0.2 + 0.6 + 0.1) / 3)


def test_ties_do_not_depend_on_their_order() -> None:
    right = [True] * 15 + [False] * 15
    assert ece([0.5] * 30, right) == ece([0.5] * 30, right[::-1]) == pytest.approx(0)


def test_auroc() -> None:
    assert auroc([0.1, 0.4, 0.35, 0.8], [False, False, True, True]) == 0.75
    assert auroc([1, 1, 2], [True, False, True]) == 0.75  # one pair tied: (1/2 + 1) / 2
    assert auroc([-math.inf, 3], [False, True]) == 1
    assert auroc([1, 2], [True, True]) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_auroc_counts_pairs(rows: list[tuple[int, bool]]) -> None:
    pairs = [(good, bad) for good, a in rows if a for bad, b in rows if not b]
    wins = sum(1.0 if good > bad else 0.5 if good == bad else 0.0 for good, bad in pairs)
    naive = wins / len(pairs) if pairs else None
    assert auroc([s for s, _ in rows], [r for _, r in rows]) == (None if naive is None else pytest.approx(naive))


@pytest.mark.parametrize("measure", [brier, log_loss, ece, auroc])
def test_scores_need_matching_numbers(measure: object) -> None:
    assert callable(measure)
    for values, right in (([], []), ([0.5], [True, False])):
        with pytest.raises(ValueError, match="there must be one for each"):
            measure(values, right)
    with pytest.raises(ValueError, match="value 1 is NaN"):
        measure([0.5, math.nan], [True, False])


def test_a_summary_by_hand() -> None:
    summary = summarise(ROWS)
    assert (summary.n, summary.accuracy) == (4, 0.75)
    assert summary.cost == pytest.approx(1.6 / 4)
    assert summary.full_cost == pytest.approx(2.3 / 4)
    # utilities .95, -.05, .55, .5; with the full cost .9, -.05, .4, .2
    assert summary.utility == pytest.approx(1.95 / 4)
    assert summary.utility_full == pytest.approx(1.45 / 4)
    assert (summary.hops, summary.refused) == (1.75, 0.75)
    assert summary.shares == {"large": 25, "middle": 25, "small": 50}


def test_the_bootstrap_interval() -> None:
    # 100 rows of utility 1 or 0 in halves: the standard error of the mean is .05, so +- 1.96 * .05 = .098
    halves = [Row(i % 2 == 0, 0.0, 0.0, "a", 0.5) for i in range(100)]
    summary = summarise(halves)
    assert summary.utility_ci == pytest.approx((0.402, 0.598), abs=0.02)
    assert summarise(halves) == summary
    assert summarise(ROWS, resamples=1, seed=1).utility_ci != summarise(ROWS, resamples=1, seed=2).utility_ci
    low, high = summarise([ROWS[0]] * 3).utility_ci
    assert (low, high) == pytest.approx((0.95, 0.95))


def test_no_rows_no_summary() -> None:
    with pytest.raises(ValueError, match="no rows to summarise"):
        summarise([])


def test_a_row_of_a_reply() -> None:
    path = (Hop("small", "refused"), Hop("middle", "failed", reason="died"), Hop("large", "answered", 0.9))
    reply = Reply("q", "B", "large", 0.2, 0.9, 1.1, path, 1.0)
    assert Row.of(reply, True) == Row(True, 0.9, 1.1, "large", 0.2, hops=3, refused=1)
    declined = Reply("q", "", "small", 0.2, 0.1, 0.1, (Hop("small", "declined"),), 1.0, finish="declined")
    assert Row.of(declined, True) == Row(False, 0.1, 0.1, "small", 0.2, hops=1, refused=0)


def test_oracle() -> None:
    alone = {"small": [True, False, False], "large": [True, True, False]}
    costs = {"small": 0.1, "large": 0.9}
    # small is right and cheap; only large is right; nobody is right, and small wastes least
    assert oracle(alone, costs, 0.5) == pytest.approx(((1 - 0.05) + (1 - 0.45) + (0 - 0.05)) / 3)
    assert oracle(alone, costs, 0.0) == pytest.approx(2 / 3)
    assert oracle({"small": [False]}, costs, 1.0) == pytest.approx(-0.1)
