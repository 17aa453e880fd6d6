"""Many answers over one call: what a caller waits for at one replica comes by a single long poll.

A call of an actor costs a good half of a millisecond on both sides, and each piece of each answer would take one.
Engines give the pieces of all drafts in hand together, so one call brings them all; where each comes at a time of its
own, it takes one each.

Calls of an actor may overtake each other, and nobody may hear what one returns whose caller has given it up. So what is
said has a number, and is said again until a later poll tells that it was heard; and a poll that was overtaken waits for
nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from msgspec import Struct
from msgspec.msgpack import Decoder

from agents.messages import Key
from agents.wire import pack

Ask: TypeAlias = tuple[Key, int]  # the pieces of this query's answer, after so many
Said: TypeAlias = tuple[int, Key, bytes]  # its number first
AGAIN_S = 0.002  # whoever has been told something will soon want more: then one call asks for that and for the rest
LOST_S = 60.0  # a caller that has not polled for so long is gone


class Poll(Struct, frozen=True, array_like=True):
    """What a caller sends: which of its polls this is, up to which number it has heard, and what it wants besides."""

    number: int
    heard: int
    asks: list[Ask]
    wait_s: float


read_poll: Callable[[bytes], Poll] = Decoder(Poll).decode
read_said: Callable[[bytes], list[Said]] = Decoder(list[Said]).decode


@dataclass(slots=True)
class _Line:
    """One caller's."""

    polled: float = 0.0
    number: int = 0  # of its latest poll
    waits: asyncio.Future[None] | None = None  # that poll
    said: int = 0
    unheard: deque[Said] = field(default_factory=deque)
    error: Exception | None = None
    pulls: set[asyncio.Task[None]] = field(default_factory=set)


class Polls:
    """At a replica: what its callers wait for.

    Args:
        pull: waits for pieces of one answer, for so long at most; packed.
    """

    def __init__(
        self, pull: Callable[[Key, int, float], Awaitable[bytes]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pull, self._clock = pull, clock
        self._lines: dict[str, _Line] = {}

    async def poll(self, caller: str, packed: bytes) -> bytes:
        """Wait for what this poll asks for too, and for what was asked for before; returns what is there as soon as
        anything is, nothing after ``wait_s``, or where the caller polls again. Raises what ``pull`` raises.
        """
        poll, now = read_poll(packed), self._clock()
        line = self._lines.get(caller)
        if line is None:
            self._lines = {name: each for name, each in self._lines.items() if now - each.polled < LOST_S}
            line = self._lines[caller] = _Line(said=poll.heard)  # it may be one that was taken for gone
        line.polled = now
        for key, cursor in poll.asks:
            task = asyncio.create_task(self._wait(line, key, cursor, poll.wait_s))
            line.pulls.add(task)
            task.add_done_callback(line.pulls.discard)
        while line.unheard and line.unheard[0][0] <= poll.heard:
            line.unheard.popleft()
        if poll.number < line.number:
            return pack([])
        _wake(line)  # the poll before this one
        line.number = poll.number
        waits = line.waits = asyncio.get_running_loop().create_future()
        if not (line.unheard or line.error):
            await asyncio.wait({waits}, timeout=poll.wait_s)
            await asyncio.sleep(0)  # what comes together goes together
        if line.number != poll.number:
            return pack([])
        error, line.error = line.error, None
        if error is not None:
            raise error
        return pack(list(line.unheard))

    async def _wait(self, line: _Line, key: Key, cursor: int, wait_s: float) -> None:
        try:
            told = await self._pull(key, cursor, wait_s)
        except Exception as error:
            line.error = error
        else:
            line.said += 1
            line.unheard.append((line.said, key, told))
        _wake(line)


def _wake(line: _Line) -> None:
    if line.waits is not None and not line.waits.done():
        line.waits.set_result(None)


class Poller:
    """At a caller: all that it waits for at one replica. All calls come from one loop.

    Args:
        poll: ``Polls.poll`` of that replica, for this caller.
    """

    def __init__(self, poll: Callable[[bytes], Awaitable[bytes]]) -> None:
        self._poll = poll
        self._waiting: dict[Key, asyncio.Future[bytes]] = {}
        self._unasked: list[Ask] = []
        self._polls: dict[int, asyncio.Task[None]] = {}
        self._number = self._heard = 0
        self._due = False

    async def pull(self, key: Key, cursor: int, wait_s: float) -> bytes:
        """What ``Polls`` has for one answer, packed. Raises what ``poll`` raises."""
        loop = asyncio.get_running_loop()
        future = self._waiting[key] = loop.create_future()
        self._unasked.append((key, cursor))
        if not self._due:
            self._due = True
            loop.call_soon(self._ask, wait_s)  # with all that want something just now
        try:
            said: bytes = await future
            return said
        finally:
            if self._waiting.get(key) is future:
                del self._waiting[key]
            if not self._waiting:  # nobody wants what is still on its way
                for poll in self._polls.values():
                    poll.cancel()
                self._polls.clear()  # here: one that has not begun yet never will

    def _ask(self, wait_s: float) -> None:
        asks, self._unasked, self._due = self._unasked, [], False
        if asks or (self._waiting and not self._polls):
            self._number += 1
            poll = Poll(self._number, self._heard, asks, wait_s)
            self._polls[poll.number] = asyncio.create_task(self._exchange(poll))

    async def _exchange(self, poll: Poll) -> None:
        try:
            told = await self._poll(pack(poll))
        except Exception as error:
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(error)
            return
        finally:
            self._polls.pop(poll.number, None)  # here: that the task is done may be heard after ``_ask_on``
        for number, key, answer in read_said(told):
            if number > self._heard:
                self._heard = number
                waits = self._waiting.get(key)
                if waits is not None and not waits.done():
                    waits.set_result(answer)
        asyncio.get_running_loop().call_later(AGAIN_S, self._ask_on, poll.wait_s)

    def _ask_on(self, wait_s: float) -> None:
        """Somebody still waits, and nobody has polled since."""
        if not self._due:
            self._ask(wait_s)
