"""Points of cost and accuracy, by hand."""

from __future__ import annotations

import pytest

from benchmarks.frontier import aiq, cost_save, hull, pareto, pareto_dist, perf_gain

POINTS = [(0.1, 0.2), (0.3, 0.6), (0.2, 0.3), (0.5, 0.5), (0.7, 0.8), (0.3, 0.4)]


def test_a_hull_never_falls_and_is_convex() -> None:
    assert hull(POINTS) == [(0.1, 0.2), (0.3, 0.6), (0.7, 0.8)]  # (.2, .3) is below the line, (.5, .5) below both
    assert hull([(0.4, 0.5)]) == [(0.4, 0.5)]
    assert hull([(0.1, 0.5), (0.2, 0.5), (0.3, 0.4)]) == [(0.1, 0.5)]
    assert hull([(0.0, 0.0), (1.0, 0.5), (2.0, 1.0)]) == [(0.0, 0.0), (2.0, 1.0)]


def test_aiq_is_the_mean_height() -> None:
    area = 0.2 * 0.4 + 0.4 * 0.7  # of .1 to .3, and of .3 to .7
    assert aiq(POINTS, 0.1, 0.7) == pytest.approx(area / 0.6)
    assert aiq(POINTS, 0.0, 0.7) == pytest.approx(area / 0.7)  # nothing below .1
    assert aiq(POINTS, 0.1, 0.9) == pytest.approx((area + 0.2 * 0.8) / 0.8)  # as good beyond .7
    assert aiq(POINTS, 0.2, 0.3) == pytest.approx(0.5)
    assert aiq([(0.4, 0.5)], 0.2, 0.6) == pytest.approx(0.25)
    assert aiq([(0.4, 0.5)], 0.4, 0.6) == pytest.approx(0.5)
    for low, high in ((0.3, 0.3), (0.5, 0.2)):
        with pytest.raises(ValueError, match="no area"):
            aiq(POINTS, low, high)


def test_against_the_best_single_agent() -> None:
    assert perf_gain(POINTS, (0.9, 0.64)) == pytest.approx(0.25)
    assert cost_save(POINTS, (0.9, 0.6)) == pytest.approx(1 - 0.3 / 0.9)
    assert cost_save(POINTS, (0.9, 0.81)) is None


def test_distance_to_what_anybody_reaches() -> None:
    others = [(0.2, 0.6), (1.1, 0.7)]
    assert pareto([*POINTS, *others]) == [(0.1, 0.2), (0.2, 0.6), (0.7, 0.8)]
    spans = 1.0, 0.6
    expected = (0.0 + ((0.3 / spans[0]) ** 2 + (0.1 / spans[1]) ** 2) ** 0.5) / 2
    assert pareto_dist([(0.1, 0.2), (0.5, 0.5)], [*POINTS, *others]) == pytest.approx(expected)
