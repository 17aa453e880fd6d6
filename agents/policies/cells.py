"""What policies that learn remember: means that borrow from coarser ones, what they did with a query, and when what
somebody says of itself is not true any more. Bounded, saved and restored.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Hashable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from msgspec import DecodeError
from msgspec import json as codec

from agents.errors import ConfigError
from agents.profile import LONG, size_of

ODDS = (-6.0, -4.0, -3.0, -2.0, -1.3, -0.8, -0.4, 0.0, 0.4, 0.8, 1.3, 2.0, 3.0, 4.0, 6.0)  # log-odds between bins
BINS = tuple(1 / (1 + math.exp(-odds)) for odds in ODDS)

SUREST = 0.98  # that a promise is taken to be
DOUBTED = 5  # observations that what is doubted still counts for

Key = tuple[Hashable, ...]
T = TypeVar("T")


@lru_cache(maxsize=4096)
def cluster(text: str) -> tuple[str, int]:
    """What sort of query a text is: its first word, or the signs in it where it begins with none; and its length, on a
    scale that is logarithmic from 32 characters on. Nothing has to be learnt for that, and everybody finds the same.
    """
    text = text.lower()
    size = size_of(text)
    if text[:1].isalpha():
        return text.split()[0][:LONG], size
    return "".join(sorted({character for character in text[: 2 * LONG] if not character.isalnum()})), size


def bin_of(p: float | None) -> int:
    """The bin of a probability, finer at the ends; -1 where there is none."""
    if p is None:
        return -1
    return bisect_left(BINS, p)


class Means:
    """Means by keys that go from coarse to fine, each drawn towards the one before it as if that were ``weight`` more
    observations of its own; the coarsest towards what was believed before.

    Args:
        weight: as above.
        window: a mean forgets what lies further back than about so many observations.
        most: cells that are kept; the oldest goes.
    """

    def __init__(self, weight: float = 15.0, window: int = 200, most: int = 50_000) -> None:
        self.weight, self.window, self.most = weight, window, most
        self.cells: dict[Key, tuple[int, float]] = {}

    def value(self, keys: Sequence[Key], prior: float) -> float:
        """What is to be expected at the last of ``keys``."""
        for key in keys:
            if (cell := self.cells.get(key)) is not None:
                prior = (cell[0] * cell[1] + self.weight * prior) / (cell[0] + self.weight)
        return prior

    def learn(self, keys: Sequence[Key], seen: float, share: float = 1.0) -> None:
        """It was ``seen``; a ``share`` below 1 moves the means less."""
        for key in keys:
            count, mean = self.cells.get(key, (0, 0.0))
            if not count and len(self.cells) >= self.most:
                del self.cells[next(iter(self.cells))]
            count = min(count + 1, self.window)
            step = 1.0 if count == 1 else share / count
            self.cells[key] = (count, mean + step * (seen - mean))

    def correct(self, keys: Sequence[Key], change: float, share: float = 1.0) -> None:
        """What was learnt before was ``change`` too little."""
        for key in keys:
            if (cell := self.cells.get(key)) is not None:
                self.cells[key] = (cell[0], cell[1] + share * change / cell[0])

    def doubt(self, first: Hashable) -> None:
        """Let new observations soon outweigh what is known at keys that begin with ``first``."""
        for key, (count, mean) in self.cells.items():
            if key[0] == first:
                self.cells[key] = (min(count, DOUBTED), mean)

    def written(self) -> list[Any]:
        """As JSON can hold it; ``read`` takes it back."""
        return [[list(key), count, round(mean, 5)] for key, (count, mean) in self.cells.items()]

    def read(self, rows: Sequence[Any]) -> None:
        """Take what ``written`` gave. Raises ValueError, TypeError where it is something else."""
        for key, count, mean in rows:
            if not isinstance(key, list) or not isinstance(count, int) or not math.isfinite(mean):
                raise ValueError(f"{[key, count, mean]!r:.80} is no cell: a key, a count and a mean")
            self.cells[tuple(key)] = (count, float(mean))


class Drift:
    """How much of what somebody promises is true now: a share that changes once in a while, seen through right and
    wrong answers (the forward pass of a hidden Markov model: Rabiner 1989; of change points, Adams and MacKay 2007,
    arXiv 0710.3742). A wrong answer that was promised right makes lower shares likelier at once, a few make them
    believed; right ones undo that, and so does what else is learnt of somebody's words.

    Args:
        away: how likely it is that a share that changes is then below 1: each lower one as likely.
        often: how likely it changes from one answer to the next, whether or not anybody says what that was worth.
        step: by so much the expected share may change before all that was learnt with it is in doubt.
    """

    SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)

    def __init__(self, away: float = 0.2, often: float = 0.003, step: float = 0.3) -> None:
        lower = len(self.SHARES) - 1
        self.often, self.step, self.begun = often, step, (1 - away, *(away / lower for _ in range(lower)))
        self.held: dict[str, tuple[float, ...]] = {}  # by name: how likely each share is
        self.known: dict[str, float] = {}  # the share as it was when last in doubt
        self.unheard: dict[str, int] = {}  # how many answers there were since, right or wrong nobody knows

    def share(self, name: str) -> float:
        """What share of its promises is to be expected true."""
        held = self.held.get(name)
        return 1.0 if held is None else math.fsum(p * share for p, share in zip(held, self.SHARES, strict=True))

    def passes(self, name: str) -> None:
        """It has answered once more; whether that was right may come later, or never."""
        self.unheard[name] = self.unheard.get(name, 0) + 1

    def hear(self, name: str, p: float, right: float) -> bool:
        """One more outcome, ``p`` of which were promised. Whether what was learnt of it is in doubt now."""
        p = min(max(p, 1 - SUREST), SUREST)
        held = self.held.get(name, self.begun)
        same = (1 - self.often) ** max(self.unheard.pop(name, 1), 1)
        changed = [same * old + (1 - same) * new for old, new in zip(held, self.begun, strict=True)]
        seen = [p * share * right + (1 - p * share) * (1 - right) for share in self.SHARES]
        found = [before * likely for before, likely in zip(changed, seen, strict=True)]
        total = math.fsum(found)
        self.held[name] = tuple(each / total for each in found)
        share = self.share(name)
        if abs(share - self.known.get(name, 1.0)) <= self.step:
            return False
        self.known[name] = share
        return True


class Memory(Generic[T]):
    """What an agent did with its latest queries, ``most`` of them."""

    def __init__(self, most: int = 10_000) -> None:
        self.most = most
        self.held: dict[str, T] = {}

    def keep(self, query: str, done: T) -> None:
        """Remember; what is too much is forgotten, the oldest first."""
        self.held.pop(query, None)
        self.held[query] = done
        if len(self.held) > self.most:
            del self.held[next(iter(self.held))]

    def of(self, query: str) -> T | None:
        """What it did; None where it knows nothing of it, or not any more."""
        return self.held.get(query)


def restored(path: str | Path) -> dict[str, Any]:
    """A file that ``save`` wrote. Raises ConfigError that names it."""
    try:
        found = codec.decode(Path(path).read_bytes(), type=dict[str, Any])
    except (OSError, DecodeError) as error:
        raise ConfigError(f"learnt values {path}: {error}") from error
    return found


def save(path: str | Path, learnt: dict[str, Any]) -> None:
    """Write what was learnt as JSON, so that a reader finds the old file or the new one and nothing between."""
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    passing = place.with_name(place.name + ".new")
    passing.write_bytes(codec.encode(learnt) + b"\n")
    passing.replace(place)
