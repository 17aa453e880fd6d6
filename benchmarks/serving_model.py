"""A small real model behind the mesh, behind the bare server, and behind ``vllm serve``: the same engine options on all
three, the same prompts, greedy; all three are up at once and asked in turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from agents.engines.guard import Guard
from agents.engines.models import find_model, load_tokenizer
from agents.engines.vllm import ENVIRONMENT
from agents.errors import MeshError
from agents.spec import AgentSpec
from benchmarks.http_load import Ask, Client, Load, Timing, in_turns
from benchmarks.served import free_port, served
from mesh.assemble import agent_specs
from mesh.config import MeshConfig, load

MODEL, HUB = "smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct"
CONCURRENCY = (1, 4, 16)
CONTEXT = 2048
START_S = 300.0
REST_S = 1.0  # vLLM's workers spin for a while after their last step
PROMPTS = [  # such that the answers are long
    f"Write a long story about a {who} who finds a {what}. Begin with the morning."
    for who, what in itertools.product(("sailor", "baker", "doctor", "child"), ("map", "key", "letter", "mirror"))
]


def pool() -> MeshConfig:
    """One agent, with the engine of the pool ``small``."""
    engine = {"kind": "vllm", "max_model_len": CONTEXT}
    limits = {"running": 64, "stall_s": 120}
    agent = {"name": MODEL, "cost": 0.1, "model": HUB, "local_name": MODEL, "prompt": "plain", "engine": engine}
    return load({"name": "bench-model", "runtime": "ray", "limits": limits, "agents": [agent]})


def measure(count: int, tokens: int, profile: bool, models_dir: Path | None = None) -> dict[str, Any]:
    """(b) at each concurrency.

    Args:
        count: streams of each side at each concurrency; eight turns at least.
        tokens: bounds each answer.
        profile: also measure where the time of one stream goes.

    Returns:
        ``levels``: concurrency -> side -> figures; ``profile``: see ``steps_ms``.
    """
    from benchmarks import bare

    config = pool()
    spec = agent_specs(config, models_dir)[MODEL]
    tokenizer = load_tokenizer(find_model(spec.setup))

    def counted(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False).input_ids)

    with served(config, models_dir=models_dir) as url, bare.served(spec) as (path, actor), _vllm(spec) as other:

        async def measured() -> tuple[dict[int, dict[str, Load]], dict[str, Load]]:
            async with Client() as client:
                sides = {
                    name: client.side(to, MODEL, PROMPTS, max_tokens=tokens, temperature=0.0)
                    for name, to in (("mesh", url), ("bare", url + path), ("vllm", other))
                }
                levels = {
                    level: await in_turns(sides, max(count, 8 * level), level, max(4, level), REST_S)
                    for level in CONCURRENCY
                }
                steps = {"actor": _through_ray(actor, tokens), **sides}
                return levels, await in_turns(steps, count, 1, 4, REST_S) if profile else {}

        levels, steps = asyncio.run(measured())
    return {
        "model": MODEL,
        "max_tokens": tokens,
        "levels": {
            str(level): {side: load.figures(counted) for side, load in sides.items()} for level, sides in levels.items()
        },
        "profile": steps_ms({side: load.figures(counted) for side, load in steps.items()}) if profile else None,
    }


def _through_ray(actor: Any, tokens: int) -> Ask:
    """What asks the bare server's actor itself, without HTTP."""
    turn = itertools.cycle(PROMPTS)

    async def ask() -> Timing:
        began, first_s, texts = time.perf_counter(), 0.0, list[str]()
        messages = [("user", next(turn))]
        async for piece in actor.stream.options(num_returns="streaming").remote(messages, tokens):
            texts.append(await piece)
            first_s = first_s or time.perf_counter() - began
        return Timing(first_s, time.perf_counter() - began, "".join(texts))

    return ask


def steps_ms(sides: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Whose the distance to ``vllm serve`` is, of one stream at a time: median milliseconds to the first token, and for
    the whole stream.

    ``vllm_serve``: its own. ``actor``: what the same engine takes beyond that in a Ray actor, asked over Ray;
    ``serve``: what Ray Serve and FastAPI add; ``mesh``: what the mesh adds to those. They add up to what it takes.
    """

    def split(figure: str) -> dict[str, float]:
        vllm, actor, bare, mesh = (sides[side][figure]["p50"] for side in ("vllm", "actor", "bare", "mesh"))
        parts = {"vllm_serve": vllm, "actor": actor - vllm, "serve": bare - actor, "mesh": mesh - bare}
        return {name: round(part, 3) for name, part in parts.items()}

    return {"first_token": split("ttft_ms"), "whole_stream": split("end_ms")}


@contextlib.contextmanager
def _vllm(spec: AgentSpec) -> Iterator[str]:
    """``vllm serve`` with what our engine tells vLLM; gives its address. It is started as the module that it runs: the
    command itself fails where vLLM is the CPU build. Raises MeshError where it does not come up.
    """
    port = free_port()
    words = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", find_model(spec.setup)]
    words += ["--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port), "--dtype", "bfloat16"]
    words += ["--max-model-len", str(CONTEXT), "--max-num-seqs", "64", "--enforce-eager", "--disable-log-stats"]
    words += ["--kv-cache-memory-bytes", str(2**30), "--block-size", "32", "--seed", str(spec.setup.seed)]
    words += ["--generation-config", "vllm"]
    silent, environment = subprocess.DEVNULL, {**ENVIRONMENT, **os.environ}
    process, guard = subprocess.Popen(words, stdout=silent, stderr=silent, env=environment), Guard()
    guard.watch([process.pid])  # also where this process is killed
    try:
        until = time.monotonic() + START_S
        while not _answers(f"http://127.0.0.1:{port}/health"):
            if process.poll() is not None or time.monotonic() > until:
                raise MeshError(f"`vllm serve` does not come up (status {process.poll()}): {' '.join(words[3:])}")
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):  # it has been seen to hang there
            process.wait(20)
        guard.close()
        process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.TransportError:
        return False
