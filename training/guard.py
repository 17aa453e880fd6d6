"""Learning what a pool can and may answer, from what it is asked and from what it should not be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agents.policies.guard import Screen
from training.profiles import Record, learn_prior
from training.scores import Array


def learn(
    inside: Sequence[str], outside: Sequence[str], held_inside: Sequence[str], held_outside: Sequence[str]
) -> Screen:
    """By logistic regression on the first two; its strength, and the bar from which a text is let in, are those that do
    best on the others: for the bar, by ``score``.
    """
    train, held = (
        Record((*one, *other), np.repeat([1.0, 0.0], [len(one), len(other)]))
        for one, other in ((inside, outside), (held_inside, held_outside))
    )
    known = learn_prior(train, held)
    screen = Screen(known.weights, known.scale, known.bias, 0.5)
    kept, out = (np.array([screen.inside(text) for text in texts]) for texts in (held_inside, held_outside))
    return Screen(known.weights, known.scale, known.bias, _bar(kept, out))


def _bar(inside: Array, outside: Array) -> float:
    """In the middle of the bars that score best."""
    found = np.unique(np.concatenate([inside, outside, [0.0, 1.0]]))
    bars = (found[1:] + found[:-1]) / 2
    scores = np.array([score(float((inside >= bar).mean()), float((outside < bar).mean())) for bar in bars])
    best = bars[scores >= scores.max() - 1e-12]
    return float((best[0] + best[-1]) / 2)


def score(inside: float, outside: float) -> float:
    """GQR score: the harmonic mean of the share that is let in of what should be, and kept out of what should not."""
    return 0.0 if inside + outside == 0 else 2 * inside * outside / (inside + outside)
