"""What an agent knows of its own load and of its neighbours', and what it does about too much of it; pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import inf

from agents.messages import Card

FRESH_S = 30.0  # after so long without a finished query nobody knows any more how long one takes
FULL_S = 1.0  # how long a neighbour that was full is taken to be so
SPARE = 1.1  # the share of its time that a query needs beside what is known: for messages, and since no two are alike
LIKE = 0.1  # neighbours are of like quality whose prices differ by no more than this share


class Load:
    """How long queries took lately, from their start to their end here, and who was full."""

    def __init__(self) -> None:
        self._held: deque[float] = deque(maxlen=16)
        self._at = -inf
        self._full: dict[str, float] = {}

    def held(self, seconds: float, now: float) -> None:
        """A query has been ended here, or left to others."""
        self._held.append(seconds)
        self._at = now

    def late(self, left_s: float, queued: int, places: int, now: float) -> str:
        """Why a query with so many before it cannot be done in time, empty where it may be: their turns take as long as
        turns did in the mean, itself no less than the shortest lately.
        """
        if now - self._at > FRESH_S:
            return ""
        needs = SPARE * (min(self._held) + queued / places * sum(self._held) / len(self._held))
        return f"it would take {needs:.3g} s here, and {left_s:.3g} s are left" if needs > left_s else ""

    def refused(self, peer: str, now: float) -> None:
        """A neighbour was full."""
        self._full[peer] = now + FULL_S

    def instead(self, peer: str, peers: Sequence[Card], now: float) -> str:
        """Who of ``peers`` is to be asked: ``peer``, or where that was full just now, the nearest of like quality."""
        (price,) = (card.cost for card in peers if card.name == peer)
        off = {card.name: abs(card.cost - price) for card in peers if now >= self._full.get(card.name, -inf)}
        like = [name for name, away in off.items() if away <= LIKE * price]
        return peer if peer in like else min(like, key=off.__getitem__, default=peer)


def browned(alpha: float, most: float, more: int, waiting: int) -> float:
    """The alpha by which an agent decides that has so many ``more`` queries in hand than it works on, of ``waiting``:
    it rises with them, from what was asked for to ``most`` of the way to 1, so that answers get cheaper, not late.
    """
    return alpha + most * max(0.0, min(1.0, more / max(1, waiting))) * (1.0 - alpha)
