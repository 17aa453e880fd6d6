"""Loads servers of OpenAI's API with streams, as one client: when the first token came, and when the last."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import aiohttp
import numpy as np
from msgspec import Struct
from msgspec.json import Decoder


@dataclass(frozen=True, slots=True)
class Timing:
    """One stream: seconds to its first token, seconds to its end, and its text."""

    first_s: float
    end_s: float
    text: str


Ask: TypeAlias = Callable[[], Awaitable[Timing]]


@dataclass(slots=True)
class Load:
    """What one side did: the seconds of each of its turns, and every stream."""

    seconds: list[float] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)

    def figures(self, tokens: Callable[[str], int] | None = None) -> dict[str, Any]:
        """Streams a second over all turns; milliseconds to the first token and to the end.

        Args:
            tokens: how many tokens a text has: then also tokens a second.
        """
        whole = sum(self.seconds)
        first, end = ([1e3 * getattr(each, name) for each in self.timings] for name in ("first_s", "end_s"))
        told = {
            "streams": len(self.timings),
            "rps": round(len(self.timings) / whole, 2),
            "ttft_ms": quantiles(first),
            "end_ms": quantiles(end),
        }
        if tokens is not None:
            told["tokens_per_s"] = round(sum(tokens(each.text) for each in self.timings) / whole, 2)
        return told


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """The median and the 99th percentile."""
    return {name: round(float(np.quantile(values, at)), 3) for name, at in (("p50", 0.5), ("p99", 0.99))}


class _Delta(Struct, frozen=True):
    content: str | None = None


class _Choice(Struct, frozen=True):
    delta: _Delta = _Delta()


class _Chunk(Struct):
    choices: list[_Choice] = []


_read = Decoder(_Chunk).decode


class Lost(Exception):
    """A stream that did not end as it should; says what came instead."""


class Client:
    """Asks for streams. A context, as it holds connections open."""

    def __init__(self, timeout_s: float = 600.0) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def __aenter__(self) -> Client:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=self._timeout)
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._session.close()

    def side(self, url: str, model: str, prompts: Sequence[str], **fields: Any) -> Ask:
        """What asks the server at ``url`` (which ends before ``/v1``) for the next of the prompts, over and over."""
        turn = itertools.cycle(prompts)

        async def ask() -> Timing:
            messages = [{"role": "user", "content": next(turn)}]
            return await self._stream(url, {"model": model, "messages": messages, "stream": True, **fields})

        return ask

    async def _stream(self, url: str, body: Mapping[str, Any]) -> Timing:
        """Raises Lost where the stream has no proper end."""
        began, first_s, texts, done = time.perf_counter(), 0.0, list[str](), False
        try:
            async with self._session.post(f"{url}/v1/chat/completions", json=body) as answer:
                if answer.status != 200:
                    raise Lost(f"status {answer.status}: {(await answer.text())[:200]}")
                async for line in answer.content:
                    if not line.startswith(b"data: "):
                        continue
                    if line.startswith(b"data: [DONE]"):
                        done = True
                        continue
                    for choice in _read(line[6:]).choices:
                        if choice.delta.content:
                            first_s = first_s or time.perf_counter() - began
                            texts.append(choice.delta.content)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Lost(repr(error)) from error
        if not (done and texts):
            raise Lost(f"{len(texts)} pieces, {'ended' if done else 'and no end'}")
        return Timing(first_s, time.perf_counter() - began, "".join(texts))


async def load(ask: Ask, count: int, concurrency: int, into: Load) -> None:
    """Ask ``count`` times, ``concurrency`` at a time. Raises Lost."""
    left = iter(range(count))

    async def worker() -> None:
        for _ in left:
            into.timings.append(await ask())

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(min(count, concurrency))))
    into.seconds.append(time.perf_counter() - began)


async def in_turns(
    sides: Mapping[str, Ask], count: int, concurrency: int, turn: int, rest_s: float = 0.0
) -> dict[str, Load]:
    """``count`` streams of each side, in whole turns of ``turn``, after one to warm up; who begins alternates.

    Args:
        rest_s: before each turn, where a side goes on using the machine for a while after its own.
    """
    for ask in sides.values():
        await load(ask, turn, concurrency, Load())
    found = {name: Load() for name in sides}
    for number in range(-(-count // turn)):
        for name in list(sides)[:: 1 if number % 2 else -1]:
            await asyncio.sleep(rest_s)
            await load(sides[name], turn, concurrency, found[name])
    return found
