"""Who may come in now: requests per minute and streams at once for every key, and a queue, first come first served."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

from mesh.ingress.errors import Refused
from mesh.ingress.limits import Limits
from mesh.query import PRIORITIES


class Bucket:
    """A rate: ``per_minute`` at once, refilled steadily.

    >>> bucket = Bucket(60, now=0.0)
    >>> bucket.take(0.0), bucket.tokens
    (0.0, 59.0)
    """

    def __init__(self, per_minute: int, now: float) -> None:
        self.size, self.per_s = float(per_minute), per_minute / 60.0
        self.tokens, self._filled = self.size, now

    def take(self, now: float) -> float:
        """Take one; 0, or in how many seconds there will be one."""
        self.tokens = min(self.size, self.tokens + (now - self._filled) * self.per_s)
        self._filled = now
        if self.tokens < 1.0:
            return (1.0 - self.tokens) / self.per_s
        self.tokens -= 1.0
        return 0.0


class Gate:
    """One replica's gate; its limits are this replica's share."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.running = limits, 0
        self._buckets: dict[str, Bucket] = {}
        self._streams: dict[str, int] = {}
        self._queue: dict[asyncio.Future[None], int] = {}  # who waits, in order, and its priority

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    def count(self, key: str) -> None:
        """Count a request against its key's rate. Raises Refused (429)."""
        now = time.monotonic()
        bucket = self._buckets.setdefault(key, Bucket(self.limits.requests_per_minute, now))
        if wait_s := bucket.take(now):
            told = f"more than {self.limits.requests_per_minute} requests a minute with the key of {key!r}"
            raise Refused(429, "rate_limit_exceeded", told, retry_after_s=wait_s)

    @contextlib.asynccontextmanager
    async def admitted(self, key: str, streams: bool, priority: str = "normal") -> AsyncIterator[None]:
        """Inside, the query may be asked. Where the queue is full, the last of the lowest priority gives way.

        Raises:
            Refused: 429 for too many streams of this key, 503 where the queue is full, or too slow.
        """
        with self._streaming(key) if streams else contextlib.nullcontext():
            await self._enter(PRIORITIES.index(priority) if priority in PRIORITIES else 0)
            try:
                yield
            finally:
                self._leave()

    @contextlib.contextmanager
    def _streaming(self, key: str) -> Iterator[None]:
        if self._streams.get(key, 0) >= self.limits.streams:
            told = f"more than {self.limits.streams} streams at once with the key of {key!r}"
            raise Refused(429, "too_many_streams", told, retry_after_s=1.0)
        self._streams[key] = self._streams.get(key, 0) + 1
        try:
            yield
        finally:
            self._streams[key] -= 1

    async def _enter(self, priority: int) -> None:
        if self.running < self.limits.running and not self._queue:
            self.running += 1
            return
        if len(self._queue) >= self.limits.waiting and not self._gave_way(priority):
            raise Refused(503, "queue_full", f"{len(self._queue)} queries wait already", retry_after_s=1.0)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue[turn] = priority
        try:
            async with asyncio.timeout(self.limits.queue_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled() and turn.exception() is None:  # its turn had come just then
                self._leave()
            else:
                self._queue.pop(turn, None)  # whoever left just now has passed it over
            if isinstance(error, TimeoutError):
                told = f"no turn within {self.limits.queue_s:g} s; {self.running} queries are worked on"
                raise Refused(503, "queue_timeout", told, retry_after_s=1.0) from None
            raise

    def _gave_way(self, priority: int) -> bool:
        """Whether one that waits was sent away for one of this priority: the last of the lowest."""
        lowest = min(reversed(self._queue), key=lambda turn: self._queue[turn], default=None)
        if lowest is None or self._queue[lowest] >= priority:
            return False
        del self._queue[lowest]
        if not lowest.done():
            told = "it gave way to a query of higher priority"
            lowest.set_exception(Refused(503, "queue_full", told, retry_after_s=1.0))
        return True

    def _leave(self) -> None:
        """Hand the place on to who has waited longest."""
        while self._queue:
            turn = next(iter(self._queue))
            del self._queue[turn]
            if not turn.done():
                turn.set_result(None)
                return
        self.running -= 1
