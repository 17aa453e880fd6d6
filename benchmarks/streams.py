"""A thousand streams at once through one replica: whether any is lost, and what memory they take."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psutil

from benchmarks.http_load import Ask, Client, Lost, Timing, quantiles
from benchmarks.served import served
from mesh.config import MeshConfig, load

PIECES = 10
SAMPLE_S = 0.25
PROCESSES = ("ProxyActor", "ServeReplica", "ReplicaActor", "LedgerActor", "SupervisorActor", "ServeController")


def pool(streams: int, lasting_s: float) -> MeshConfig:
    """One agent that takes all of them at once, and as long over each."""
    answer = "".join(f"word {number} " for number in range(PIECES))
    engine = {"kind": "scripted", "answer": answer, "pieces": PIECES, "piece_s": lasting_s / (PIECES - 1)}
    agent = {"name": "patient", "cost": 0.5, "prompt": "plain", "engine": engine}
    limits = {"running": streams}
    return load({"name": "bench-streams", "runtime": "ray", "limits": limits, "deadline_s": 600, "agents": [agent]})


def measure(streams: int, rounds: int, lasting_s: float) -> dict[str, Any]:
    """So many streams at once, ``rounds`` times over: what a round leaves behind would pile up.

    Args:
        lasting_s: how long the engine takes over each, so that all of them are open together.

    Returns:
        ``rounds``: see ``figures``; ``before_mib``: memory of the processes when nobody had asked yet.
    """
    told = []
    config = pool(streams, lasting_s)
    with served(config) as url:
        before = memory_mib()
        for _ in range(rounds):
            with _peaks() as peaks:
                began = time.monotonic()
                ended = asyncio.run(_round(url, streams, config.agents[0].engine.options["answer"]))
                told.append(figures(ended, time.monotonic() - began, peaks))
    return {"bench": "serving_streams", "streams": streams, "before_mib": before, "rounds": told}


async def _round(url: str, streams: int, text: str) -> list[tuple[float, Timing | Lost]]:
    """When each began, and how it ended."""
    async with Client() as client:
        ask = client.side(url, "mesh", ["hello"])
        return list(await asyncio.gather(*(_one(ask, text) for _ in range(streams))))


async def _one(ask: Ask, text: str) -> tuple[float, Timing | Lost]:
    began = time.perf_counter()
    try:
        timing = await ask()
    except Lost as lost:
        return began, lost
    return began, timing if timing.text == text else Lost(f"another text: {timing.text[:80]!r}")


def figures(ended: Sequence[tuple[float, Timing | Lost]], seconds: float, peaks: Mapping[str, float]) -> dict[str, Any]:
    """What one round tells: streams lost and why, the most that were open at once (from the first token to the end),
    seconds, milliseconds to the first token, and the peak of each process's memory.
    """
    whole = [(began, each) for began, each in ended if isinstance(each, Timing)]
    moves = [(began + each.first_s, 1) for began, each in whole] + [(began + each.end_s, -1) for began, each in whole]
    most = now = 0
    for _, move in sorted(moves):
        now += move
        most = max(most, now)
    return {
        "lost": len(ended) - len(whole),
        "why": dict(Counter(str(each) for _, each in ended if isinstance(each, Lost))),
        "open_at_once": most,
        "seconds": round(seconds, 2),
        "ttft_ms": quantiles([1e3 * each.first_s for _, each in whole]) if whole else None,
        "peak_mib": dict(peaks),
    }


def memory_mib() -> dict[str, float]:
    """Resident MiB of this process and of those that serve, on the cluster it is connected to."""
    from mesh.runtimes.ray import starter

    found: Counter[str] = Counter({"client": psutil.Process().memory_info().rss})
    for process in psutil.Process(starter()).children(recursive=True):
        with contextlib.suppress(psutil.Error, IndexError):
            title = process.cmdline()[0]
            for name in PROCESSES:
                if title.startswith(f"ray::{name}"):
                    found[name] += process.memory_info().rss
    return {name: round(size / 2**20, 1) for name, size in found.items()}


@contextlib.contextmanager
def _peaks() -> Iterator[dict[str, float]]:
    """The most that each has held, while it goes on."""
    peaks: dict[str, float] = memory_mib()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(SAMPLE_S):
            for name, size in memory_mib().items():
                peaks[name] = max(size, peaks.get(name, 0.0))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        over.set()
        thread.join()


def rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rounds as a table."""
    return [
        {
            "round": number,
            "lost": told["lost"],
            "open at once": told["open_at_once"],
            "seconds": told["seconds"],
            "first token p50 ms": told["ttft_ms"] and told["ttft_ms"]["p50"],
            "p99": told["ttft_ms"] and told["ttft_ms"]["p99"],
            **{f"{name} MiB": size for name, size in told["peak_mib"].items()},
        }
        for number, told in enumerate(result["rounds"], start=1)
    ]
