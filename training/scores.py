"""How good probabilities are: Brier score, log loss, expected calibration error, AUROC; and the bootstrap, which says
how sure one can be of such a figure. Small and pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
Places = np.ndarray[Any, np.dtype[np.int64]]
RESAMPLES = 200  # where nobody says how many


def brier(probabilities: Sequence[float], right: Sequence[bool]) -> float:
    """Mean squared distance of the probability from what happened (Brier, 1950); 0 is best."""
    p, r = _checked(probabilities, right)
    return float(np.mean((p - r) ** 2))


def log_loss(probabilities: Sequence[float], right: Sequence[bool]) -> float:
    """Mean of ``-ln`` of the probability given to what happened; infinite where that was 0."""
    p, r = _checked(probabilities, right)
    with np.errstate(divide="ignore"):
        return float(np.mean(-np.log(np.where(r > 0, p, 1 - p))))


def soft_log_loss(p: Array, right: Array) -> float:
    """Log loss of arrays of any shape, ``right`` in [0, 1]; no probability counts as nearer to 0 or 1 than 1e-6."""
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return float(-np.mean(right * np.log(p) + (1 - right) * np.log(1 - p)))


def ece(probabilities: Sequence[float], right: Sequence[bool], bins: int = 15) -> float:
    """Expected calibration error over bins of equal mass: the mean gap between probability and accuracy.

    Rows of one probability share their accuracy, so that it does not matter how ties fall into bins.
    """
    p, r = _checked(probabilities, right)
    _, group, size = np.unique(p, return_inverse=True, return_counts=True)
    r = (np.bincount(group, weights=r) / size)[group]
    order = np.argsort(p, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return float(sum(abs(np.sum(p[part] - r[part])) for part in parts) / len(p))


def auroc(scores: Sequence[float], right: Sequence[bool]) -> float | None:
    """Probability that a right answer scores above a wrong one, ties counting half; None without one of the two."""
    s, r = _checked(scores, right)
    good = int(r.sum())
    if good in (0, len(r)):
        return None
    _, group, size = np.unique(s, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(size) - (size - 1) / 2)[group]
    return float((ranks[r > 0].sum() - good * (good + 1) / 2) / (good * (len(r) - good)))


def resampled(count: int, seed: int, times: int | None = None) -> Iterator[Places]:
    """Bootstrap: the places of ``count`` rows drawn with replacement, ``times`` over."""
    rng = np.random.default_rng(seed)
    return (rng.integers(count, size=count) for _ in range(RESAMPLES if times is None else times))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The middle 95 % of bootstrap values (percentile method; Efron, 1979)."""
    low, high = np.quantile(np.asarray(values, dtype=float), [0.025, 0.975])
    return float(low), float(high)


def _checked(values: Sequence[float], right: Sequence[bool]) -> tuple[Array, Array]:
    """Both as float arrays of shape (n,). Raises ValueError where they are empty, of two lengths, or hold NaN."""
    v, r = np.asarray(values, dtype=float), np.asarray(right, dtype=float)
    if v.shape != r.shape or v.ndim != 1 or not len(v):
        raise ValueError(f"{v.shape} values for {r.shape} outcomes; there must be one for each, and at least one")
    if np.isnan(v).any():
        raise ValueError(f"value {int(np.isnan(v).argmax())} is NaN; every value must be a number")
    return v, r
