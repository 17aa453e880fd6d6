"""The choice of gamma, on a cascade of two worked out by hand."""

from __future__ import annotations

import pytest

from training.threshold import GAMMAS, Judged, best_gamma, utility

SMALL = (0.1, {"x": Judged(0.3, True), "y": Judged(0.3, False), "z": Judged(None, True)})
LARGE = (0.9, {"x": Judged(0.9, True), "y": Judged(0.1, True), "z": Judged(0.5, False), "more": Judged(0.9, True)})


def test_utility_by_hand() -> None:
    # the bar at alpha .5 is .5 with gamma 1: all three go to the large one, which gets two of them
    assert utility([SMALL, LARGE], 0.5, 1.0) == pytest.approx(2 / 3 - 0.5 * 0.9)
    # it is .25 with gamma 2: the small one answers x and y (one right), and has refused z
    assert utility([SMALL, LARGE], 0.5, 2.0) == pytest.approx(1 / 3 - 0.5 * (0.1 + 0.1 + 0.9) / 3)


def test_the_best_gamma_and_its_table() -> None:
    gamma, table = best_gamma([SMALL, LARGE])
    assert list(table) == list(GAMMAS)
    means = {each: sum(by_alpha.values()) for each, by_alpha in table.items()}
    assert means[gamma] == pytest.approx(max(means.values()))
    assert table[1.0][0.5] == pytest.approx(2 / 3 - 0.5 * 0.9)


def test_no_row_in_common() -> None:
    with pytest.raises(ValueError, match="no row that every agent has answered"):
        utility([(0.1, {"x": Judged(0.5, True)}), (0.9, {"y": Judged(0.5, True)})], 0.5, 1.0)
