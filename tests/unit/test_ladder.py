"""The ladder's shares and intervals."""

from __future__ import annotations

import pytest

from benchmarks.ladder import rows, share


def test_wilsons_interval() -> None:
    half = share([True] * 5 + [False] * 5)
    # (5 + z2/2) / (10 + z2) = 0.5, and z / (10 + z2) * sqrt(10/4 + z2/4) = 0.2634 with z2 = 3.8415
    assert (half["n"], half["accuracy"]) == (10, 0.5)
    assert half["low"] == pytest.approx(0.2366, abs=1e-4)
    assert half["high"] == pytest.approx(0.7634, abs=1e-4)
    assert share([True] * 4)["high"] == 1.0
    assert share([False] * 4)["low"] == 0.0


def test_a_row_an_agent() -> None:
    figures = {"cost": 0.1, "all": share([True, False]), "tasks": {"add": share([True])}, "unseen": share([False])}
    (row,) = rows({"agents": {"nano": figures}})
    right = {"right (95 %)": "0.500 (0.09 to 0.91)", "unseen": "0.000", "add": "1.00"}
    assert row == {"agent": "nano", "cost": 0.1, **right}
