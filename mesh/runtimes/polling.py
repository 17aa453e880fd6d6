"""Many answers over one call: what a caller waits for at one replica comes by a single long poll.

A call of an actor costs a good half of a millisecond on both sides, and each piece of each answer would take one.
Engines give the pieces of all drafts in hand together, so one call brings them all; where each comes at a time of its
own, it takes one each.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from msgspec.msgpack import Decoder

from agents.messages import Key
from agents.wire import pack

Ask: TypeAlias = tuple[Key, int]  # the pieces of this query's answer, after so many
Said: TypeAlias = list[tuple[Key, bytes]]
AGAIN_S = 0.002  # whoever has been told something will soon want more: then one call asks for that and for the rest
LOST_S = 60.0  # a caller that has not polled for so long is gone

read_said: Callable[[bytes], Said] = Decoder(Said).decode
read_asks: Callable[[bytes], list[Ask]] = Decoder(list[Ask]).decode


@dataclass(slots=True)
class _Line:
    """One caller's."""

    polled: float = 0.0
    poll: asyncio.Future[None] | None = None  # the one that waits
    ready: Said = field(default_factory=list)
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

    async def poll(self, caller: str, asks: bytes, wait_s: float) -> bytes:
        """Wait for these too, and for what the caller asked for before; returns what is there as soon as anything is,
        nothing after ``wait_s``, or when the caller polls again. Raises what ``pull`` raises.
        """
        now = self._clock()
        self._lines = {name: line for name, line in self._lines.items() if now - line.polled < LOST_S}
        line = self._lines.setdefault(caller, _Line())
        line.polled = now
        for key, cursor in read_asks(asks):
            task = asyncio.create_task(self._wait(line, key, cursor, wait_s))
            line.pulls.add(task)
            task.add_done_callback(line.pulls.discard)
        _wake(line)  # the poll before this one
        poll = line.poll = asyncio.get_running_loop().create_future()
        if not (line.ready or line.error):
            await asyncio.wait({poll}, timeout=wait_s)
            await asyncio.sleep(0)  # what comes together goes together
        if line.poll is not poll:  # its caller may not hear it any more
            return pack([])
        error, line.error = line.error, None
        if error is not None:
            raise error
        said, line.ready = line.ready, []
        return pack(said)

    async def _wait(self, line: _Line, key: Key, cursor: int, wait_s: float) -> None:
        try:
            said = await self._pull(key, cursor, wait_s)
        except Exception as error:
            line.error = error
        else:
            line.ready.append((key, said))
        _wake(line)


def _wake(line: _Line) -> None:
    if line.poll is not None and not line.poll.done():
        line.poll.set_result(None)


class Poller:
    """At a caller: all that it waits for at one replica. All calls come from one loop.

    Args:
        poll: ``Polls.poll`` of that replica, for this caller.
    """

    def __init__(self, poll: Callable[[bytes, float], Awaitable[bytes]]) -> None:
        self._poll = poll
        self._waiting: dict[Key, asyncio.Future[bytes]] = {}
        self._unasked: list[Ask] = []
        self._polls: set[asyncio.Task[None]] = set()
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
                for poll in self._polls:
                    poll.cancel()

    def _ask(self, wait_s: float) -> None:
        asks, self._unasked, self._due = self._unasked, [], False
        if asks or (self._waiting and not self._polls):
            task = asyncio.create_task(self._exchange(asks, wait_s))
            self._polls.add(task)
            task.add_done_callback(self._polls.discard)

    async def _exchange(self, asks: Sequence[Ask], wait_s: float) -> None:
        try:
            said = read_said(await self._poll(pack(asks), wait_s))
        except Exception as error:
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(error)
            return
        for key, answer in said:
            waits = self._waiting.get(key)
            if waits is not None and not waits.done():
                waits.set_result(answer)
        asyncio.get_running_loop().call_later(AGAIN_S, self._ask_on, wait_s)

    def _ask_on(self, wait_s: float) -> None:
        """Somebody still waits, and nobody has polled since."""
        if not self._due:
            self._ask(wait_s)
