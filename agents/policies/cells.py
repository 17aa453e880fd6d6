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

    def forget(self, first: Hashable) -> None:
        """Drop all cells whose keys begin with ``first``."""
        self.cells = {key: cell for key, cell in self.cells.items() if key[0] != first}

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
    """Whether somebody's word has become worth less: Page's test (1954), by how much likelier what came is if only half
    of what it promises is true.

    Args:
        limit: of the sum of these log-likelihoods, since it was last below 0. Words that are true pass it once in
            ``e ** limit`` outcomes, or less often.
    """

    def __init__(self, limit: float = 7.0) -> None:
        self.limit = limit
        self.sums: dict[str, tuple[float, int, float]] = {}  # by name the sum, of how many, and what they lacked

    def hear(self, name: str, p: float, right: float) -> tuple[int, float] | None:
        """One more outcome, of whom it was sure by ``p``. Where that makes too much: of how many outcomes, and what
        they lacked in the mean.
        """
        p = min(max(p, 0.02), 0.98)
        total, count, lacked = self.sums.get(name, (0.0, 0, 0.0))
        total += right * math.log(0.5) + (1 - right) * math.log((1 - p / 2) / (1 - p))
        count, lacked = count + 1, lacked + p - right
        self.sums[name] = (total, count, lacked) if total > 0 else (0.0, 0, 0.0)
        if total <= self.limit:
            return None
        del self.sums[name]
        return count, lacked / count


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
