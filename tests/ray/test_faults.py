"""Agents die, stall and fall silent while they work; every query still ends once, with an answer."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

import mesh
from tests.ray.conftest import Opener, kill, row, until

pytestmark = pytest.mark.ray

WORDS = "one two three four five six seven eight nine ten"
SLOW = {"answer": WORDS, "pieces": 10, "piece_s": 0.15}
REFUSES = {"refuse": 1.0}


def ask_in_background(pool: mesh.Mesh, seen: list[object]) -> threading.Thread:
    thread = threading.Thread(target=lambda: seen.extend(pool.stream("count", 0.5)))
    thread.start()
    return thread


def assert_ended_once(seen: list[object]) -> mesh.Reply:
    replies = [each for each in seen if isinstance(each, mesh.Reply)]
    assert len(replies) == 1
    assert seen[-1] is replies[0]
    assert "".join(str(each) for each in seen[:-1]) == replies[0].text
    return replies[0]


def assert_back_to_normal(pool: mesh.Mesh, agent: str, pid: int) -> None:
    """The next fifty are answered while the agent comes back by itself, in a new process."""
    replies = pool.ask_many([f"question {i}" for i in range(50)], 0.5)
    assert all(isinstance(reply, mesh.Reply) for reply in replies)
    assert until(lambda: row(pool, agent)["state"] == "up" and row(pool, agent).get("pid") not in (pid, None))
    assert not os.path.exists(f"/proc/{pid}")
    assert row(pool, agent)["incarnation"] == 2


def test_killed_before_accept(open_mesh: Opener) -> None:
    pool = open_mesh({"a": REFUSES, "b": {**SLOW, "delay_s": 5.0}, "c": {"answer": WORDS}})
    seen: list[object] = []
    thread = ask_in_background(pool, seen)
    assert until(lambda: row(pool, "b")["drafting"] == 1)
    pid = kill(pool, "b")
    thread.join(30)
    reply = assert_ended_once(seen)
    assert [(hop.agent, hop.verdict) for hop in reply.path] == [("a", "refused"), ("b", "failed"), ("c", "answered")]
    assert (reply.text, reply.attempts) == (WORDS, 1)
    assert_back_to_normal(pool, "b", pid)


def test_entry_killed_before_accept(open_mesh: Opener) -> None:
    pool = open_mesh({"a": {**SLOW, "delay_s": 5.0}, "b": {"answer": WORDS}})
    seen: list[object] = []
    thread = ask_in_background(pool, seen)
    assert until(lambda: row(pool, "a")["drafting"] == 1)
    pid = kill(pool, "a")
    thread.join(30)
    reply = assert_ended_once(seen)
    assert (reply.agent, reply.attempts) == ("b", 2)
    assert_back_to_normal(pool, "a", pid)


@pytest.mark.parametrize("pieces_seen", [1, 4], ids=["after accept", "mid-stream"])
def test_killed_while_it_answers(open_mesh: Opener, pieces_seen: int) -> None:
    pool = open_mesh({"a": REFUSES, "b": SLOW, "c": {"answer": WORDS, "pieces": 3}})
    seen: list[object] = []
    thread = ask_in_background(pool, seen)
    assert until(lambda: len(seen) >= pieces_seen)
    pid = kill(pool, "b")
    thread.join(30)
    reply = assert_ended_once(seen)
    assert (reply.agent, reply.attempts) == ("c", 2)
    assert reply.text == WORDS  # continued, nothing twice
    assert_back_to_normal(pool, "b", pid)


def test_forwarder_killed_while_it_waits(open_mesh: Opener) -> None:
    """a and b refused; b dies while c, whom it had asked, still thinks: c's work is not lost, nor done twice."""
    pool = open_mesh({"a": REFUSES, "b": REFUSES, "c": {"answer": WORDS, "delay_s": 2.0}})
    seen: list[object] = []
    thread = ask_in_background(pool, seen)
    assert until(lambda: row(pool, "c")["drafting"] == 1)
    pid = kill(pool, "b")
    thread.join(30)
    reply = assert_ended_once(seen)
    assert (reply.agent, reply.attempts, reply.text) == ("c", 1, WORDS)
    assert_back_to_normal(pool, "b", pid)


@pytest.mark.parametrize("broken", [{"stall": 1.0}, {"fail": 1.0}], ids=["stalled", "failed"])
def test_engine_that_breaks_off_is_left(open_mesh: Opener, broken: dict[str, float]) -> None:
    half = {**SLOW, "piece_s": 0.01, **broken}
    pool = open_mesh({"a": REFUSES, "b": half, "c": {"answer": WORDS}}, limits={"stall_s": 0.5})
    reply = pool.ask("count", 0.5)
    assert (reply.agent, reply.text, reply.attempts) == ("c", WORDS, 2)
    assert reply.path[1].reason == ("stalled" if "stall" in broken else "failed")
    assert until(lambda: row(pool, "b")["engine_running"] == 0)


@pytest.mark.slow
def test_silent_process_is_probed_left_and_replaced(open_mesh: Opener) -> None:
    pool = open_mesh({"a": REFUSES, "b": {"answer": WORDS}}, limits={"stall_s": 0.5})
    pid = row(pool, "b")["pid"]
    os.kill(pid, signal.SIGSTOP)
    reply = pool.ask("count", 0.5)
    assert reply.agent == "a"
    assert reply.path[-1].reason == "forced"
    assert until(lambda: row(pool, "b")["incarnation"] == 2, 60)
    assert until(lambda: pool.ask("count", 0.5).agent == "b")  # once its neighbours have heard of it


def test_cancelled_query_stops_its_generation(open_mesh: Opener) -> None:
    pool = open_mesh({"a": REFUSES, "b": {"answer": "word " * 500, "pieces": 500, "piece_s": 0.05}})
    stream = pool.stream("count", 0.5)
    assert next(stream)
    assert row(pool, "b")["engine_running"] == 1
    stream.close()
    assert until(lambda: row(pool, "b")["engine_running"] == 0, 5)
    assert row(pool, "b")["in_hand"] == 0

    future = pool.submit("count", 0.5)
    assert until(lambda: row(pool, "b")["engine_running"] == 1)
    future.cancel()
    assert until(lambda: row(pool, "b")["engine_running"] == 0, 5)


def test_deadline_ends_a_query_and_its_generation(open_mesh: Opener) -> None:
    pool = open_mesh({"a": {"answer": "word " * 500, "pieces": 500, "piece_s": 0.05}})
    start = time.monotonic()
    with pytest.raises(mesh.DeadlineExceeded, match="deadline of 1 s") as caught:
        pool.ask("count", deadline_s=1)
    assert time.monotonic() - start < 5
    assert caught.value.text.startswith("word word")
    assert until(lambda: row(pool, "a")["engine_running"] == 0, 5)


def test_agent_that_dies_as_often_as_it_starts_is_left_out(open_mesh: Opener) -> None:
    pool = open_mesh({"a": REFUSES, "b": {"answer": WORDS}})
    supervisor = pool._running._supervisor  # type: ignore[attr-defined]
    supervisor.rules = type(supervisor.rules)(first_s=0.05, most_s=0.1, deaths=3)
    for _ in range(3):
        assert until(lambda: row(pool, "b")["state"] == "up" and "pid" in row(pool, "b"))
        kill(pool, "b")
        assert until(lambda: row(pool, "b")["state"] != "up")
    assert until(lambda: row(pool, "b")["state"] == "given up")
    assert "died 3 times" in row(pool, "b")["why"]
    assert pool.ask("count", 0.5).agent == "a"


def test_neighbours_learn_of_a_death_without_a_query_that_fails(open_mesh: Opener) -> None:
    pool = open_mesh({"a": REFUSES, "b": {"answer": "from b"}, "c": {"answer": "from c"}})
    supervisor = pool._running._supervisor  # type: ignore[attr-defined]
    supervisor.rules = type(supervisor.rules)(first_s=2.0)
    kill(pool, "b")
    assert until(lambda: row(pool, "b")["state"] == "down")
    assert [hop.agent for hop in pool.ask("who?").path] == ["a", "c"]
    assert until(lambda: row(pool, "b")["state"] == "up")
    assert until(lambda: [hop.agent for hop in pool.ask("who?").path] == ["a", "b"], 5)


def test_a_restarted_agent_is_reached_the_first_time(open_mesh: Opener) -> None:
    """a knows b's old actor, and has nothing under way there when that dies."""
    pool = open_mesh({"a": REFUSES, "b": {"answer": WORDS}, "c": {"answer": "from c"}})
    assert pool.ask("count").agent == "b"
    pid = kill(pool, "b")
    assert until(lambda: row(pool, "b")["state"] == "up" and row(pool, "b").get("pid") not in (pid, None))
    time.sleep(0.5)  # a has heard of it
    assert [(hop.agent, hop.verdict) for hop in pool.ask("count").path] == [("a", "refused"), ("b", "answered")]


def test_who_was_updated_comes_back_with_its_version(open_mesh: Opener, tmp_path: Path) -> None:
    """And nobody is lost while it is away."""
    pool = open_mesh({"a": {"answer": WORDS}, "b": {"answer": WORDS}})
    pool.update_agent("a", tmp_path)
    assert row(pool, "a")["adapter"] == str(tmp_path)
    pid = kill(pool, "a")
    assert_back_to_normal(pool, "a", pid)
    assert row(pool, "a")["adapter"] == str(tmp_path)
    pool.rollback_agent("a")
    assert row(pool, "a")["adapter"] == ""
