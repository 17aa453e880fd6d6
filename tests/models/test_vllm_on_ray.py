"""Two vLLM agents in Ray actors, each pinned to a GPU (which the CPU build ignores): what only both show."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import mesh
from tests.ray.conftest import kill, row, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.models,
    pytest.mark.ray,
    pytest.mark.timeout(600),
    # what vLLM leaves behind in this process, where its other tests ran before
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def pool(smollm2: Path) -> Iterator[mesh.Mesh]:
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    import ray

    ray.init("local", num_cpus=2, num_gpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    engine = {"kind": "vllm", "max_model_len": 512}
    agents = [
        {"name": "first", "cost": 0.1, "policy": "tests.models.forwarding:Forwarding"},
        {"name": "last", "cost": 0.9},
    ]
    defaults = {"engine": engine, "local_name": smollm2.name, "num_gpus": 1, "prompt": "plain"}
    config = {"name": "two", "agents": agents, "defaults": defaults, "limits": {"stall_s": 60}, "deadline_s": 300}
    opened = mesh.Mesh.from_yaml(config, models_dir=smollm2.parent)
    try:
        yield opened.start()
    finally:
        opened.close()
        ray.shutdown()


def test_each_engine_sees_the_gpu_of_its_actor(pool: mesh.Mesh) -> None:
    rows = pool.status()
    assert sorted(each["gpus"] for each in rows) == [["0"], ["1"]]
    assert all(each["device"] == each["gpus"][0] for each in rows)


def test_a_refused_query_is_answered_by_the_next(pool: mesh.Mesh) -> None:
    reply = pool.ask("What is the capital of France?", 0.5, max_tokens=12)
    assert [(hop.agent, hop.verdict) for hop in reply.path] == [("first", "refused"), ("last", "answered")]
    assert reply.text.strip()
    assert all(hop.prompt_tokens > 0 and hop.full_cost > 0 for hop in reply.path)
    assert reply.full_cost == pytest.approx(sum(hop.full_cost for hop in reply.path))
    assert until(lambda: row(pool, "first")["engine_running"] == 0, 5)  # its draft was cut off


def test_a_cancelled_query_stops_generating(pool: mesh.Mesh) -> None:
    stream = pool.stream("Count from one to five hundred, in words.", 0.5, max_tokens=400)
    assert next(stream)
    assert row(pool, "last")["engine_running"] == 1
    stream.close()
    assert until(lambda: row(pool, "last")["engine_running"] == 0, 10)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["the agent", "its engine"])
def test_killed_mid_stream(pool: mesh.Mesh, victim: str) -> None:
    before = row(pool, "last")
    seen: list[object] = []
    question = "Count from one to two hundred, in words."
    thread = threading.Thread(target=lambda: seen.extend(pool.stream(question, 0.5, max_tokens=60)))
    thread.start()
    assert until(lambda: len(seen) >= 3)
    if victim == "the agent":
        kill(pool, "last")
    else:
        os.kill(before["pids"][0], signal.SIGKILL)
    thread.join(120)
    replies = [each for each in seen if isinstance(each, mesh.Reply)]
    assert len(replies) == 1
    assert (replies[0].agent, replies[0].attempts) == ("first", 2)  # it had refused, and now had to
    assert "".join(str(each) for each in seen[:-1]) == replies[0].text
    assert until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in (before["pid"], *before["pids"])), 30)
    assert until(lambda: row(pool, "last")["state"] == "up" and "pid" in row(pool, "last"), 240)
    assert pool.ask("What is two and two?", max_tokens=8).agent == "last"
