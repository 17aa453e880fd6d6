"""An asyncio loop whose clock stands still while anything can run, and then jumps: hours of timers in milliseconds."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class VirtualLoop(asyncio.SelectorEventLoop):
    """``time()`` is virtual, in seconds from 0. Nothing in it may wait for the world outside."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let so much time pass."""
        self.run_until_complete(asyncio.sleep(seconds))


class _Selector(selectors.SelectSelector):
    """Looks at its files, and instead of waiting for them moves the clock on."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "everybody waits, and nothing will ever happen"
        self._loop.now += max(timeout, 0.0)
        return super().select(0)
