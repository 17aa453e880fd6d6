"""Numbers that stand in a pool's file as a policy's options."""

from __future__ import annotations

import math

from agents.errors import ConfigError


def number(what: str, value: object, low: float = -math.inf, high: float = math.inf, above: bool = False) -> float:
    """``value``, where it is a number from ``low`` (``above``: above it) to ``high``.

    Args:
        what: policy and option, as an error names them.

    Raises:
        ConfigError: it is none, or out of bounds; says what it must be.
    """
    fits = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    if not fits or (above and value == low):
        if math.isfinite(high):
            bounds = f"in {'(' if above else '['}{low:g}, {high:g}]"
        else:
            bounds = f"{'above' if above else '>='} {low:g}"
        raise ConfigError(f"policy {what} is {value!r}, it must be a number {bounds}")
    return value  # type: ignore[return-value]
