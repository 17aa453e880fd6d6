"""Bars that are learnt, against all that could have been tried."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from agents.errors import ConfigError
from agents.messages import Card
from agents.policies import Answer, Bar, Forward, View
from training.bars import best_bars


def view(p: float | None, alpha: float) -> View:
    return View(Card("a", 0.1), alpha, p, p is None, (Card("b", 0.9),))


def test_a_bar_is_interpolated_between_alphas() -> None:
    policy = Bar({0.6: 0.5, 0.2: 0.9})
    for alpha, bar in ((0.0, 0.9), (0.2, 0.9), (0.3, 0.8), (0.5, 0.6), (0.6, 0.5), (1.0, 0.5)):
        assert policy.decide(view(bar + 0.01, alpha)) == Answer()
        assert policy.decide(view(bar - 0.01, alpha)) == Forward("b")
    assert policy.decide(view(None, 0.5)) == Forward("b")
    assert (Bar().decide(view(0.71, 0.3)), Bar().decide(view(0.69, 0.3))) == (Answer(), Forward("b"))


@pytest.mark.parametrize("bars", [{}, [[0.5, 0.1]], {0.5: 2.0}, {0.5: "x"}, {"a": 1}, {-0.1: 0.5}, None])
def test_bars_that_are_none_are_told(bars: object) -> None:
    with pytest.raises(ConfigError, match="a mapping of alphas to bars, all in"):
        Bar(bars)  # type: ignore[arg-type]


def gained(p: np.ndarray, worth: np.ndarray, passing: np.ndarray, bars: tuple[float, ...]) -> float:
    """By hand: question by question, agent by agent."""
    total = 0.0
    for question in range(p.shape[1]):
        for agent, bar in enumerate((*bars, -1.0)):
            if agent == len(p) - 1 or p[agent, question] > bar:
                total += worth[agent, question]
                break
            total -= passing[agent, question]
    return total / p.shape[1]


@pytest.mark.parametrize("seed", range(8))
def test_no_bars_of_a_line_gain_more(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hard = rng.random(60)
    p = np.clip(np.array([1 - hard, 1.2 - hard, 1.5 - hard]) + rng.normal(0, 0.2, (3, 60)), 0, 1)
    p[0, :5] = np.nan
    worth = (rng.random((3, 60)) < np.nan_to_num(p)) - np.array([[0.05], [0.2], [0.45]])
    passing = np.full((3, 60), 0.01)
    bars, gain = best_bars(p, worth, passing)
    assert gain == pytest.approx(gained(p, worth, passing, tuple(bars[:2])))
    grid = [np.unique(np.concatenate([[0.0, 1.0], row[~np.isnan(row)] + 1e-9])) for row in p[:2]]
    most = max(gained(p, worth, passing, tried) for tried in itertools.product(*grid))
    assert gain > most - 0.011  # found one by one, they may miss the best pair by a question in a hundred
    single = max(float(row.mean()) for row in worth)
    assert gain > single + 0.02


def test_a_line_of_one_has_no_choice() -> None:
    bars, gain = best_bars(np.array([[0.1, 0.9]]), np.array([[0.0, 1.0]]), np.zeros((1, 2)))
    assert (bars.tolist(), gain) == ([0.0], 0.5)
