"""Fitting a calibration map on validation rows: isotonic or Platt, whichever does better on held-out folds."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agents.calibration import Calibration, Curve
from agents.errors import ConfigError
from training.scores import Array, auroc, brier, ece, interval, log_loss, resampled

KNOTS = 64
FOLDS = 5
MEASURES = {"brier": brier, "log_loss": log_loss, "ece": ece, "auroc": auroc}
Rows = Sequence[tuple[float, bool]]


def fit(scores_by_alpha: Mapping[float, Rows], kind: str = "auto", seed: int = 0) -> Calibration:
    """The map from an agent's scores to the probability that it is right.

    Args:
        scores_by_alpha: for every alpha asked at, rows of (score, was it right). A score may be infinite.
        kind: isotonic, platt, or auto: the one with the lower Brier score on held-out folds (ties: platt).
        seed: decides which row is in which fold.

    Returns:
        The map, p never nearer to 0 or 1 than ``1 / (n + 2)`` for the n rows of an alpha. Its ``meta`` holds
        n, accuracy, and brier, log_loss, ece and auroc of held-out predictions (None where rows are too few), and
        between which values 95 % of bootstraps of the rows have these (``ci``).

    Raises:
        ConfigError: unknown kind, no alpha, an alpha outside [0, 1] or without rows, a score that is NaN.
    """
    if kind not in ("auto", *FITTERS):
        raise ConfigError(f"kind is {kind!r}; use auto or one of {', '.join(FITTERS)}")
    data = {float(alpha): _arrays(alpha, scores_by_alpha[alpha]) for alpha in sorted(scores_by_alpha)}
    if not data:
        raise ConfigError("there are no rows to fit; give (score, right) rows for at least one alpha")
    held_out = {name: _held_out(data, name, seed) for name in (FITTERS if kind == "auto" else (kind,))}
    tried = {name: _figures(predicted, right) for name, (predicted, right, _) in held_out.items()}
    chosen = min(tried, key=lambda name: (tried[name]["brier"] or 0.0, name == "isotonic"))
    meta = {
        "n": sum(len(right) for _, right in data.values()),
        "accuracy": float(np.mean(np.concatenate([right for _, right in data.values()]))),
        "by_alpha": [{"alpha": a, "n": len(right), "accuracy": float(right.mean())} for a, (_, right) in data.items()],
        **{"kind": chosen, "asked": kind, "seed": seed, **tried[chosen], "ci": _intervals(*held_out[chosen], seed)},
        "held_out": {name: {key: scores[key] for key in ("brier", "log_loss")} for name, scores in tried.items()},
    }
    curves = tuple(FITTERS[chosen](scores, right) for scores, right in data.values())
    return Calibration(chosen, tuple(data), curves, json.dumps(meta))


def _arrays(alpha: float, rows: Rows) -> tuple[Array, Array]:
    """Scores and outcomes, shape (n,) each; infinite scores become the lowest or highest finite one."""
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha is {alpha}; it must be between 0 and 1")
    if not rows:
        raise ConfigError(f"alpha {alpha} has no rows; give at least one (score, right)")
    scores = np.asarray([score for score, _ in rows], dtype=float)
    if np.isnan(scores).any():
        raise ConfigError(f"alpha {alpha}: score of row {int(np.isnan(scores).argmax())} is NaN; it must be a number")
    finite = scores[np.isfinite(scores)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
    return np.clip(scores, low, high), np.asarray([bool(right) for _, right in rows], dtype=float)


def _held_out(data: Mapping[float, tuple[Array, Array]], kind: str, seed: int) -> tuple[Array, Array, Array]:
    """Predictions for rows that the fit has not seen, what was right, and the number of the row at its alpha."""
    parts: list[tuple[list[float], Array, Array]] = [([], np.zeros(0), np.zeros(0))]
    for alpha, (scores, right) in data.items():
        fold = np.asarray([_fold(f"{seed}:{alpha}:{i}") for i in range(len(scores))]) % max(min(FOLDS, len(scores)), 1)
        for k in np.unique(fold):
            seen, unseen = fold != k, fold == k
            if seen.any():
                curve = Calibration(kind, (alpha,), (FITTERS[kind](scores[seen], right[seen]),))
                parts.append(([curve(score, alpha) for score in scores[unseen]], right[unseen], np.flatnonzero(unseen)))
    predicted, truth, row = (np.concatenate([part[place] for part in parts]) for place in range(3))
    return predicted, truth, row


def _figures(predicted: Array, right: Array) -> dict[str, float | None]:
    p, r = predicted.tolist(), right.tolist()
    return {name: measure(p, r) if p else None for name, measure in MEASURES.items()}


def _intervals(predicted: Array, right: Array, row: Array, seed: int) -> dict[str, tuple[float, float]]:
    """Rows of one number are one question asked at several alphas: they are drawn together."""
    if not len(row):
        return {}
    found: dict[str, list[float]] = {}
    order = np.argsort(row, kind="stable")
    together = np.split(order, np.flatnonzero(np.diff(row[order])) + 1)
    for drawn in resampled(len(together), seed):
        at = np.concatenate([together[place] for place in drawn])
        for name, value in _figures(predicted[at], right[at]).items():
            if value is not None and math.isfinite(value):
                found.setdefault(name, []).append(value)
    return {name: interval(values) for name, values in found.items()}


def _fold(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big")


def _isotonic(scores: Array, right: Array) -> Curve:
    """A rising step curve through at most 64 knots (pool adjacent violators)."""
    if len(np.unique(right)) < 2:
        return (float(scores.mean()),), (_smoothed(right),)
    from sklearn.isotonic import IsotonicRegression

    floor = 1 / (len(scores) + 2)
    model = IsotonicRegression(y_min=floor, y_max=1 - floor).fit(scores, right)
    x, y = model.X_thresholds_, model.y_thresholds_
    keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), KNOTS)).round().astype(int))
    return tuple(x[keep].tolist()), tuple(y[keep].tolist())


def _platt(scores: Array, right: Array) -> Curve:
    """A logistic curve fitted to smoothed targets (Platt, 1999); flat where it would fall."""
    n, good = len(scores), float(right.sum())
    spread = float(scores.std())
    flat: Curve = (0.0,), (_logit(_smoothed(right)),)
    if good in (0, n) or spread < 1e-12:
        return flat
    from sklearn.linear_model import LogisticRegression

    z = ((scores - scores.mean()) / spread)[:, None]
    target = np.where(right > 0, (good + 1) / (good + 2), 1 / (n - good + 2))
    model = LogisticRegression(C=1e6).fit(
        np.concatenate([z, z]), np.repeat([1, 0], n), sample_weight=np.concatenate([target, 1 - target])
    )
    slope = float(model.coef_[0, 0]) / spread
    return ((slope,), (float(model.intercept_[0]) - slope * float(scores.mean()),)) if slope > 0 else flat


def _smoothed(right: Array) -> float:
    """Laplace's rule of succession: ``(k + 1) / (n + 2)``."""
    return (float(right.sum()) + 1) / (len(right) + 2)


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


FITTERS: dict[str, Any] = {"platt": _platt, "isotonic": _isotonic}
