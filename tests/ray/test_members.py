"""Agents and their replicas come, go and change on a running mesh, and no query fails because of it."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from typer.testing import CliRunner

import mesh
from mesh.cli import app
from mesh.running import down, up
from tests.ray.conftest import Opener, kill, row, until

pytestmark = pytest.mark.ray

WORDS = "one two three four five six seven eight nine ten"
SLOW = {"answer": WORDS, "pieces": 10, "piece_s": 0.1}
REFUSES = {"refuse": 1.0}


class Asking:
    """Asks a mesh one question after the other on several threads, until told to stop."""

    def __init__(self, pool: mesh.Mesh, threads: int = 4) -> None:
        self.pool, self.ended, self._stop = pool, list[object](), threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(threads)]

    def _ask(self, thread: int) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            try:
                self.ended.append(self.pool.ask(f"question {thread} {number}", id=f"{thread}-{number}"))
            except mesh.MeshError as error:
                self.ended.append(error)

    def __enter__(self) -> Asking:
        for thread in self._threads:
            thread.start()
        assert until(lambda: len(self.ended) > 4)
        return self

    def __exit__(self, *raised: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        assert not [thread for thread in self._threads if thread.is_alive()]

    def assert_all_answered(self) -> None:
        assert [each for each in self.ended if not isinstance(each, mesh.Reply)] == []
        ids = [each.id for each in self.ended if isinstance(each, mesh.Reply)]
        assert len(ids) == len(set(ids))

    def go_on(self, more: int = 20) -> None:
        """Wait until so many more have ended."""
        had = len(self.ended)
        assert until(lambda: len(self.ended) >= had + more)


def replicas(pool: mesh.Mesh, agent: str) -> list[dict[str, Any]]:
    return [each for each in pool.status() if each["agent"] == agent]


def test_replicas_share_the_work_and_cover_for_each_other(open_mesh: Opener) -> None:
    pool = open_mesh({"a": REFUSES, "b": {**SLOW, "pieces": 5}}, limits={"running": 4})
    pool.scale_agent("b", 3)
    assert [each["replica"] for each in replicas(pool, "b")] == ["b#1", "b#2", "b#3"]
    assert len({each["pid"] for each in replicas(pool, "b")}) == 3
    futures = [pool.submit(f"question {number}") for number in range(12)]  # 4 at once is what one can do
    assert until(lambda: [each["drafting"] for each in replicas(pool, "b")].count(0) == 0)
    os.kill(replicas(pool, "b")[0]["pid"], signal.SIGKILL)
    replies = [future.result(60) for future in futures]
    assert {reply.agent for reply in replies} == {"b"}  # a replica took over from the one that died
    assert {hop.agent for reply in replies for hop in reply.path if hop.verdict == "failed"} <= {"b#1"}
    assert until(lambda: sorted(each["replica"] for each in replicas(pool, "b")) == ["b#2", "b#3", "b#4"])
    assert pool.ask("who?").agent == "b"


def test_an_agent_that_is_drained_ends_what_it_has(open_mesh: Opener) -> None:
    pool = open_mesh({"a": REFUSES, "b": SLOW, "c": {"answer": "from c"}})
    streams = [pool.submit(f"question {number}") for number in range(3)]
    assert until(lambda: row(pool, "b")["drafting"] == 3)
    draining = threading.Thread(target=pool.remove_agent, args=("b", 30.0))
    draining.start()
    assert until(lambda: row(pool, "b")["state"] == "leaving")
    assert pool.ask("who?").agent == "c"
    assert [(reply.text, reply.attempts) for reply in (stream.result(30) for stream in streams)] == [(WORDS, 1)] * 3
    draining.join(30)
    assert [each["agent"] for each in pool.status()] == ["a", "c"]


def test_every_change_under_traffic(open_mesh: Opener) -> None:
    """Add, scale, upgrade, scale back, drain, remove: all is answered, by whom it may be."""
    pool = open_mesh({"a": REFUSES, "b": {"answer": "old", "pieces": 2, "piece_s": 0.05}, "z": {"answer": "from z"}})
    scripted = {"kind": "scripted", "answer": "new", "pieces": 2, "piece_s": 0.05}
    with Asking(pool) as asking:
        pool.add_agent({"name": "c", "cost": 0.3, "engine": {"kind": "scripted", "answer": "from c"}})
        pool.scale_agent("b", 2)
        asking.go_on()
        pool.upgrade_agent({"name": "b", "cost": 0.2, "engine": scripted})
        asking.go_on()
        assert {each["replica"] for each in replicas(pool, "b")} == {"b#3", "b#4"}
        assert row(pool, "b")["cost"] == 0.2
        pool.scale_agent("b", 1)
        pool.remove_agent("c", 30.0)
        assert pool.ask("who?").text == "new"
        pool.remove_agent("b")
        asking.go_on()
    asking.assert_all_answered()
    assert pool.ask("who?").text == "from z"


def test_an_upgrade_that_cannot_start_changes_nothing(open_mesh: Opener) -> None:
    pool = open_mesh({"a": {"answer": "old"}})
    with pytest.raises(mesh.ConfigError, match="no-such-model"):
        pool.upgrade_agent({"name": "a", "cost": 0.1, "engine": "transformers", "local_name": "no-such-model"})
    assert (pool.ask("who?").text, [each["replica"] for each in pool.status()]) == ("old", ["a#1"])
    with pytest.raises(mesh.ConfigError, match="unknown agent 'x'"):
        pool.upgrade_agent({"name": "x", "cost": 0.1, "engine": "scripted"})


def test_a_replica_without_a_place_says_what_it_waits_for(open_mesh: Opener) -> None:
    """And is up as soon as there is one; the agent is asked all the while."""
    pool = open_mesh({"a": {}, "b": {}}, defaults={"num_gpus": 2}, placement_timeout_s=20.0)  # of 5
    pool.scale_agent("a", 2)
    waiting = next(each for each in replicas(pool, "a") if each["state"] != "up")
    assert waiting["state"] == "waiting"
    assert "waits for 2 GPU (the cluster has 5, 1 of them free)" in waiting["why"]
    assert pool.ask("who?").agent == "a"
    pool.remove_agent("b")
    assert until(lambda: [each["state"] for each in replicas(pool, "a")] == ["up", "up"], 60)


def test_a_message_of_one_that_was_replaced_is_refused(open_mesh: Opener) -> None:
    from agents.messages import Message, Query
    from agents.wire import pack, read_routed

    pool = open_mesh({"a": REFUSES, "b": {"answer": WORDS}})
    handle = pool._running.runtime.handle("b#1")  # type: ignore[attr-defined]
    kill(pool, "a")
    assert until(lambda: row(pool, "a")["state"] == "up" and row(pool, "a")["incarnation"] == 2)
    pool.ask("who?")  # b has heard of it by now

    def sent_by(address: str) -> str:
        query = pack(Query(address or "owner", (Message("user", "why?"),), 0.5))
        result = read_routed(ray.get(handle.route.remote(query, address))[4:])
        return getattr(result, "reason", "accepted")

    assert [sent_by(address) for address in ("a#1", "a#2", "a#3", "")] == ["replaced", *["accepted"] * 3]


@pytest.fixture
def detached() -> Iterator[str]:
    agents = [{"name": "a", "cost": 0.1, "engine": {"kind": "scripted", "refuse": 1.0}}]
    agents += [{"name": "b", "cost": 0.9, "replicas": 2, "engine": {"kind": "scripted", "answer": "from {agent}"}}]
    up({"name": "lasting", "defaults": {"num_gpus": 0}, "agents": agents})
    yield "lasting"
    down("lasting")


@pytest.mark.slow  # Ray may take a minute to start it again
@pytest.mark.timeout(300)
def test_a_supervisor_that_dies_is_started_again_and_keeps_who_is_there(detached: str) -> None:
    with mesh.connect(detached) as pool:
        pool.add_agent({"name": "c", "cost": 0.3, "engine": {"kind": "scripted", "answer": "from c"}})
        pool.update_agent("c", Path("/some/adapter"))
        before = {each["replica"]: each["pid"] for each in pool.status()}
        supervisor = ray.get_actor(f"{detached}/@supervisor", namespace="mesh")
        os.kill(ray.get(supervisor.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)
        with Asking(pool, threads=2) as asking:
            assert until(lambda: {each["replica"]: each.get("pid") for each in pool.status()} == before, 120)
            kill(pool, "c")
            assert until(lambda: row(pool, "c")["state"] == "up" and row(pool, "c")["replica"] == "c#2")
        asking.assert_all_answered()
        assert row(pool, "c")["adapter"] == "/some/adapter"
        assert pool.ask("who?").text == "from c"


def test_the_commands(detached: str, tmp_path: Path) -> None:
    def run(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, ["agents", *words, "--name", detached])
        assert done.exit_code == code, done.output
        return done.output

    file = tmp_path / "c.yaml"
    file.write_text("name: c\ncost: 0.3\nengine: {kind: scripted, answer: from c}\n")
    assert run("add", str(file)) == "c has joined\n"
    assert "c#1" in run("list")
    assert "c#2" in run("scale", "c", "2")
    file.write_text("name: c\ncost: 0.4\nengine: {kind: scripted, answer: from the new c}\n")
    run("upgrade", str(file))
    rows = json.loads(run("list", "--json"))
    assert [(each["replica"], each["cost"]) for each in rows if each["agent"] == "c"] == [("c#3", 0.4), ("c#4", 0.4)]
    with mesh.connect(detached) as pool:
        assert pool.ask("who?").text == "from the new c"
    assert run("drain", "c", "--within-s", "5") == "c has left\n"
    assert run("remove", "b") == "b has left\n"
    assert "the last one" in run("remove", "a", code=2)
    assert "unknown agent 'b'" in run("scale", "b", "2", code=2)
    file.write_text("- c\n")
    assert "settings of one agent" in run("add", str(file), code=2)
