"""When an agent that has died is started again, and when it is given up; pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Restart:
    """Start the agent again after ``delay_s``."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Leave the agent out: it dies as often as it is started."""

    why: str


@dataclass(frozen=True, slots=True)
class Rules:
    """Back-off doubles from ``first_s`` to ``most_s``; ``deaths`` within ``window_s`` are a crash loop."""

    first_s: float = 0.2
    most_s: float = 30.0
    deaths: int = 6
    window_s: float = 120.0


def decide(deaths: tuple[float, ...], now: float, rules: Rules) -> Restart | GiveUp:
    """What to do about an agent that has died at these times, the last one just now."""
    recent = sum(now - at <= rules.window_s for at in deaths)
    if recent >= rules.deaths:
        return GiveUp(f"died {recent} times within {rules.window_s:g} s")
    return Restart(min(rules.most_s, rules.first_s * 2.0 ** (recent - 1)))
