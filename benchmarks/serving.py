"""What serving costs: a mesh behind its HTTP server, against the barest server that could do the job (``bare.py``).

Both are behind the same proxy of Ray Serve, run in replicas of the same options, are asked by one client in turns, and
give streams of the same shape. With an engine that answers at once what is measured is nothing but serving; with a
real one also what of it is felt.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from benchmarks.http_load import Client, Load, in_turns
from benchmarks.served import served
from mesh.assemble import agent_specs
from mesh.config import MeshConfig, load

PIECES = (1, 16)  # of an answer; the first is what the RESULT line tells: nothing hides what a stream's ends cost
PROMPT = "What is the capital of France? " * 8
Figures = dict[str, Any]


def noop_pool() -> MeshConfig:
    """Agents without a model: one that refuses, and one for each number of pieces, which answers; all at once."""
    engines: dict[str, Figures] = {"refuses": {"refuse": 1.0}}
    for pieces in PIECES:
        answer = "".join(f"word {number} " for number in range(pieces))
        engines[f"answers-{pieces}"] = {"answer": answer, "pieces": pieces}
    agents = [
        {"name": name, "cost": 0.1 * rank, "prompt": "plain", "engine": {"kind": "scripted", **engine}}
        for rank, (name, engine) in enumerate(engines.items(), start=1)
    ]
    return load({"name": "bench-serving", "runtime": "ray", "agents": agents})


def noop(count: int, concurrency: int) -> Figures:
    """(a) and (c): for each number of pieces one stream at a time, and ``concurrency`` at a time; and with one piece
    an agent that refuses before the one that answers, against asking that one directly.

    Args:
        count: streams of each side each time.
    """
    from benchmarks import bare

    pool = noop_pool()
    specs = agent_specs(pool)
    found: dict[str, dict[str, Load]] = {}
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(served(pool))
        paths = {pieces: stack.enter_context(bare.served(specs[f"answers-{pieces}"]))[0] for pieces in PIECES}

        async def measure() -> None:
            async with Client() as client:
                for pieces in PIECES:
                    ours = client.side(url, f"answers-{pieces}", [PROMPT])
                    sides = {"mesh": ours, "bare": client.side(url + paths[pieces], "bare", [PROMPT])}
                    found[f"alone-{pieces}"] = await in_turns(sides, count, 1, 10)
                    found[f"together-{pieces}"] = await in_turns(sides, count, concurrency, 4 * concurrency)
                direct = client.side(url, f"answers-{PIECES[0]}", [PROMPT])
                sides = {"refused": client.side(url, "mesh", [PROMPT]), "direct": direct}
                found["refusal"] = await in_turns(sides, count, 1, 10)

        asyncio.run(measure())
    return {part: {side: load.figures() for side, load in sides.items()} for part, sides in found.items()}


def ratio(sides: Figures, figure: str, ours: str, theirs: str) -> float:
    """Ours over theirs."""
    return round(sides[ours][figure] / sides[theirs][figure], 3)


def ttft_ratio(sides: Figures, ours: str, theirs: str) -> float:
    """Of the median times to the first token."""
    return round(sides[ours]["ttft_ms"]["p50"] / sides[theirs]["ttft_ms"]["p50"], 3)


def overhead(ours: Figures, theirs: Figures) -> dict[str, float]:
    """By how many milliseconds a whole stream takes longer, in the median and in the 99th percentile."""
    return {name: round(ours["end_ms"][name] - theirs["end_ms"][name], 3) for name in ("p50", "p99")}


def result(noop: Figures, model: Figures | None) -> Figures:
    """What the RESULT line tells; None for what was not measured.

    Args:
        noop: as ``noop`` gives it. model: as ``serving_model.measure`` does.
    """
    alone, together = noop[f"alone-{PIECES[0]}"], noop[f"together-{PIECES[0]}"]
    levels = model["levels"] if model else {}

    def by_level(theirs: str) -> dict[str, float] | None:
        return {level: ttft_ratio(sides, "mesh", theirs) for level, sides in levels.items()} or None

    def throughput(theirs: str) -> float | None:
        most = max(levels, key=int, default=None)  # where it is throughput that counts
        return None if most is None else ratio(levels[most], "tokens_per_s", "mesh", theirs)

    return {
        "bench": "serving",
        "noop_rps_ratio": ratio(together, "rps", "mesh", "bare"),
        "noop_overhead_ms": overhead(alone["mesh"], alone["bare"]),
        "ttft_ratio_bare": by_level("bare"),
        "throughput_ratio_bare": throughput("bare"),
        "ttft_ratio_vllm": by_level("vllm"),
        "throughput_ratio_vllm": throughput("vllm"),
        "refusal_ttft_ratio": ttft_ratio(noop["refusal"], "refused", "direct"),
    }


def rows(noop: Figures, model: Figures | None) -> Sequence[Figures]:
    """All of it as a table."""
    parts = dict(noop)
    if model:
        parts |= {f"{model['model']}, {level} at once": sides for level, sides in model["levels"].items()}
    return [
        {
            "": part,
            "asked": side,
            "streams/s": figures["rps"],
            "tokens/s": figures.get("tokens_per_s"),
            "first token p50 ms": figures["ttft_ms"]["p50"],
            "p99": figures["ttft_ms"]["p99"],
            "end p50 ms": figures["end_ms"]["p50"],
            "p99 ": figures["end_ms"]["p99"],
        }
        for part, sides in parts.items()
        for side, figures in sides.items()
    ]
