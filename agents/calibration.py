"""Calibration: p = g(score, alpha), the probability that an answer of this score is right. Pure.

A document is ``{"kind": "isotonic" | "platt" | "identity" | "score", "alphas": [...], "maps": [...], "meta": {...}}``
with one map for every alpha: ``{"x": [...], "y": [...]}`` are knots of a rising curve, ``{"a": ., "b": .}``
means ``1 / (1 + exp(-(a * score + b)))`` (Platt, 1999). Between two alphas p is interpolated linearly. Where it has
``"told": alpha``, scores are to be taken from an agent that was told this preference, whatever the query's is.
``identity`` gives the score clamped to [0, 1], ``score`` the raw score itself: it is for fitting, no probability.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.errors import ConfigError
from agents.profile import Curve, between, height

KEYS = {"isotonic": ("x", "y"), "platt": ("a", "b"), "identity": (), "score": ()}


@dataclass(frozen=True, slots=True)
class Calibration:
    """A calibration map, rising in the score; without arguments the score itself, clamped to [0, 1]."""

    kind: str = "identity"
    alphas: tuple[float, ...] = ()
    maps: tuple[Curve, ...] = ()  # knots (x, y), or ((a,), (b,))
    meta: str = "{}"  # how it was fitted: JSON text, so that nobody can change it
    told: float | None = None

    def __call__(self, score: float, alpha: float) -> float:
        """Probability in [0, 1]. A score of -inf is the lowest there is. Raises ValueError for NaN."""
        if math.isnan(score) or math.isnan(alpha):
            raise ValueError(f"score {score} at alpha {alpha} has no probability; both must be numbers")
        if self.kind == "score":
            return float(score)
        if self.kind == "identity":
            return min(max(float(score), 0.0), 1.0)
        value = knots if self.kind == "isotonic" else _sigmoid
        return min(max(between(self.alphas, self.maps, alpha, lambda curve: value(curve, score)), 0.0), 1.0)

    @classmethod
    def from_json(cls, document: Any) -> Calibration:
        """Check a document. Raises ConfigError that names the key."""
        fields = {"alphas": [], "maps": [], "meta": {}, "told": None} | _object(document, "a calibration")
        kind, maps, told = fields.pop("kind", None), fields.pop("maps"), fields.pop("told")
        alphas = _numbers(fields.pop("alphas"), "alphas", 0, 1)
        meta = json.dumps(_object(fields.pop("meta"), "meta"))
        _need(not fields, "keys", "kind, alphas, maps, meta, told", [*fields])
        told = None if told is None else _numbers([told], "told", 0, 1)[0]
        _need(isinstance(kind, str) and kind in KEYS, "kind", f"one of {', '.join(KEYS)}", kind)
        _need(bool(alphas) == bool(KEYS[kind]), "alphas", "empty for identity and score, and only for these", alphas)
        _need(sorted({*alphas}) == [*alphas], "alphas", "strictly rising", alphas)
        _need(isinstance(maps, list) and len(maps) == len(alphas), "maps", f"a list of {len(alphas)}", maps)
        return cls(kind, alphas, tuple(_curve(kind, m, f"maps[{i}]") for i, m in enumerate(maps)), meta, told)

    def to_json(self) -> dict[str, Any]:
        """The document that ``from_json`` reads."""
        pairs = [([*x], [*y]) if self.kind == "isotonic" else (x[0], y[0]) for x, y in self.maps]
        maps = [dict(zip(KEYS[self.kind], pair, strict=True)) for pair in pairs]
        told = {} if self.told is None else {"told": self.told}
        return {"kind": self.kind, **told, "alphas": [*self.alphas], "maps": maps, "meta": json.loads(self.meta)}

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a file. Raises ConfigError that names it, and the key or the line."""
        try:
            return cls.from_json(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise ConfigError(f"calibration {path}: {error}") from error


def knots(curve: Curve, x: float) -> float:
    """The height at ``x`` of a line through knots, flat beyond its ends, in [0, 1]."""
    return min(max(height(curve, x), 0.0), 1.0)


def _sigmoid(curve: Curve, score: float) -> float:
    (slope,), (shift,) = curve
    return 0.5 + 0.5 * math.tanh(0.5 * ((slope * score if slope else 0.0) + shift))  # 0 * inf would be NaN


def _curve(kind: str, value: Any, key: str) -> Curve:
    _need({*_object(value, key)} == {*KEYS[kind]}, key, f"an object with {' and '.join(KEYS[kind])}", value)
    if kind == "platt":
        return _numbers([value["a"]], f"{key}.a", 0), _numbers([value["b"]], f"{key}.b")
    xs, ys = _numbers(value["x"], f"{key}.x"), _numbers(value["y"], f"{key}.y", 0, 1)
    _need(0 < len(xs) == len(ys), key, "x and y of one length, not empty", value)
    _need(sorted({*xs}) == [*xs], f"{key}.x", "strictly rising", xs)
    _need(sorted(ys) == [*ys], f"{key}.y", "never falling", ys)
    return xs, ys


def _object(value: Any, key: str) -> dict[str, Any]:
    _need(isinstance(value, dict), key, "an object", value)
    return dict(value)


def _numbers(value: Any, key: str, low: float = -1e100, high: float = 1e100) -> tuple[float, ...]:
    fine = isinstance(value, list) and all(type(n) in (int, float) and low <= n <= high for n in value)
    _need(fine, key, f"numbers from {low:g} to {high:g}", value)
    return tuple(float(n) for n in value)


def _need(fine: bool, key: str, right: str, value: object) -> None:
    if not fine:
        raise ConfigError(f"{key} must be {right}, not {value!r:.80}")
