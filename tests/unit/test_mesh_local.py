"""A mesh in one process while things go wrong around it: closing, interrupting, forking, and agents that die."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agents.engines.scripted import ScriptedEngine
from agents.errors import ConfigError, EngineError, MeshClosed, MeshError, NoAgentLeft, QueryError
from agents.messages import Key
from mesh import Mesh, Reply
from mesh.restarts import Rules
from mesh.tracing import Trace
from tests.pools import pool
from topologies import TopologyError

LONG = {"answer": "word " * 500, "pieces": 500, "piece_s": 0.05}
HERE = "tests.unit.test_mesh_local"


class Leaving(ScriptedEngine):
    """Raises when it is closed, as an engine does whose own processes have died."""

    async def close(self) -> None:
        raise RuntimeError("its processes were gone already")


class Once(ScriptedEngine):
    """Starts the first time only."""

    started = 0

    async def start(self) -> Any:
        Once.started += 1
        if Once.started > 1:
            raise ConfigError("the disk is full")
        return await super().start()


class Slow(ScriptedEngine):
    """Takes its time to start, and remembers who was closed."""

    closed: list[str] = []  # noqa: RUF012 - shared on purpose

    async def start(self) -> Any:
        await asyncio.sleep(2)
        return await super().start()

    async def close(self) -> None:
        Slow.closed.append(self.setup.agent)


@pytest.fixture
def open_mesh() -> Iterator[Callable[..., Mesh]]:
    meshes: list[Mesh] = []

    def opener(agents: int = 2, engine: dict[str, Any] | None = None, **settings: Any) -> Mesh:
        limits = {"tick_s": 0.02, "heartbeat_s": 0.05}
        source = pool(agents=agents, engine={"refuse": 0.0, **(engine or {})}, limits=limits, **settings)
        meshes.append(Mesh.from_yaml(source).start())
        meshes[-1]._running._supervisor.rules = Rules(first_s=0.05, deaths=3)  # type: ignore[attr-defined]
        return meshes[-1]

    yield opener
    for each in meshes:
        each.close()


def until(condition: Callable[[], bool], within_s: float = 5.0) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end and not condition():
        time.sleep(0.01)
    return condition()


def running(mesh: Mesh) -> int:
    return sum(int(row.get("engine_running", 0)) for row in mesh.status())


def states(mesh: Mesh) -> dict[str, str]:
    return {row["agent"]: row["state"] for row in mesh.status()}


def kill(mesh: Mesh, agent: str) -> None:
    mesh._call(mesh._running.runtime.kill, agent)


def settings(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "cost": 0.5, "policy": "refusal", "engine": {"kind": "scripted", **more}}


def events(path: Path, *, of: str = "") -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["event"].startswith(of)]


# ---------------------------------------------------------------------------------- closing


def test_closing_ends_what_still_runs_with_mesh_closed(open_mesh: Callable[..., Mesh], tmp_path: Path) -> None:
    mesh = open_mesh(engine=LONG, trace=str(tmp_path / "trace"))
    with ThreadPoolExecutor() as threads:
        asking = threads.submit(mesh.ask, "in a thread", id="one")
        streaming = threads.submit(lambda: list(mesh.stream("word by word")))
        awaiting = threads.submit(lambda: asyncio.run(mesh.aask("in a loop")))
        many = threads.submit(mesh.ask_many, ["a", "b", "c"], concurrency=2)
        future = mesh.submit("in the background")
        assert until(lambda: running(mesh) == 6)
        start = time.monotonic()
        mesh.close()
        assert time.monotonic() - start < 20  # not the minutes that the answers would take
        for each in (asking, streaming, awaiting, future):
            assert type(each.exception(5)) is MeshClosed
        assert [type(each) for each in many.result(5)] == [MeshClosed] * 3
    asked, ended = (events(tmp_path / "trace", of=event) for event in ("asked", "cancelled"))
    assert {line["id"] for line in asked} == {line["id"] for line in ended}
    assert len(asked) == len(ended) == 6


def test_closing_ends_an_agents_start_too(open_mesh: Callable[..., Mesh]) -> None:
    mesh = open_mesh()
    Slow.closed.clear()
    with ThreadPoolExecutor() as threads:
        adding = threads.submit(mesh.add_agent, {**settings("new"), "engine": {"kind": f"{HERE}:Slow"}})
        assert until(lambda: "new" in states(mesh))
        mesh.close()
        assert type(adding.exception(5)) is MeshClosed
    assert Slow.closed == ["new"]


def test_a_callback_may_ask_on_while_the_mesh_closes(open_mesh: Callable[..., Mesh]) -> None:
    mesh = open_mesh(engine=LONG)
    errors: list[Exception] = []

    def again(_: Future[Reply]) -> None:
        try:
            mesh.submit("again")
        except MeshError as error:
            errors.append(error)

    mesh.submit("once").add_done_callback(again)
    closing = threading.Thread(target=mesh.close, daemon=True)
    closing.start()
    closing.join(5)
    assert not closing.is_alive()
    assert [type(error) for error in errors] == [MeshClosed]


@pytest.mark.parametrize("call", [lambda mesh: mesh.ask("again"), lambda mesh: mesh.close()], ids=["ask", "close"])
def test_a_callback_that_would_wait_for_its_own_thread_is_told(open_mesh: Callable[..., Mesh], call: Any) -> None:
    mesh = open_mesh(engine={"delay_s": 0.1})
    errors: Future[BaseException | None] = Future()

    def wait(_: Future[Reply]) -> None:
        try:
            call(mesh)
        except RuntimeError as error:
            errors.set_result(error)

    mesh.submit("once").add_done_callback(wait)
    assert "submit" in str(errors.result(5))
    assert mesh.ask("and now?").text


def test_two_meshes_close_without_waiting_for_each_other(open_mesh: Callable[..., Mesh]) -> None:
    one, other = open_mesh(), open_mesh(engine=LONG)
    told = threading.Event()

    async def slow(agent: str, key: Key) -> None:
        told.set()
        await asyncio.sleep(3)

    other._running.runtime.cancel = slow  # type: ignore[method-assign]
    future = other.submit("x")
    assert until(lambda: running(other) == 1)
    future.cancel()
    assert told.wait(5)
    start = time.monotonic()
    one.close()
    assert time.monotonic() - start < 0.8


# ---------------------------------------------------------------------------------- interrupting, forking


def interrupted(call: Callable[[], object], when: Callable[[], bool]) -> None:
    """``call`` is broken off by Ctrl-C as soon as ``when`` is true."""

    def interrupt() -> None:
        until(when)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        call()


def test_ctrl_c_stops_the_work(open_mesh: Callable[..., Mesh]) -> None:
    mesh = open_mesh(engine=LONG)
    for call in (lambda: mesh.ask("x"), lambda: mesh.ask_many(["x", "y"]), lambda: list(mesh.stream("x"))):
        interrupted(call, lambda: running(mesh) > 0)
        assert until(lambda: running(mesh) == 0, 2)


def test_a_fork_is_told_that_the_mesh_stayed_behind(open_mesh: Callable[..., Mesh]) -> None:
    mesh = open_mesh()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(5)
            try:
                mesh.ask("x")
            except MeshClosed as error:
                os.write(write, str(error).encode())
            mesh.close()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(write)
    with os.fdopen(read) as told:
        assert "fork" in told.read()
    assert mesh.ask("x").text


# ---------------------------------------------------------------------------------- asking


@pytest.mark.parametrize("concurrency", [0, -1, 1.5])
def test_concurrency_is_a_whole_number(open_mesh: Callable[..., Mesh], concurrency: Any) -> None:
    with pytest.raises(QueryError, match=r"concurrency: .*a whole number from 1 on"):
        open_mesh().ask_many(["x"], concurrency=concurrency)


def test_asking_from_many_threads_and_from_inside_a_loop(open_mesh: Callable[..., Mesh]) -> None:
    mesh = open_mesh()

    async def inside() -> Reply:
        return mesh.ask("inside")

    with ThreadPoolExecutor(8) as threads:
        assert len({reply.id for reply in threads.map(mesh.ask, ["x"] * 50)}) == 50
    assert asyncio.run(inside()).text == "a0 answers: inside"


def test_every_query_has_an_end_in_the_trace(open_mesh: Callable[..., Mesh], tmp_path: Path) -> None:
    path = tmp_path / "trace"
    mesh = open_mesh(engine=LONG, trace=str(path))
    future = mesh.submit("x", id="broken off")
    assert until(lambda: running(mesh) == 1)
    future.cancel()
    assert until(lambda: running(mesh) == 0)
    assert [(line["event"], line["id"]) for line in events(path)[2:]] == [
        ("asked", "broken off"),
        ("cancelled", "broken off"),
    ]


def test_half_a_surrogate_pair_from_an_engine_becomes_a_character(
    open_mesh: Callable[..., Mesh], tmp_path: Path
) -> None:
    mesh = open_mesh(engine={"answer": "half a smile: \ud83d, 4 €"}, trace=str(tmp_path / "trace"))
    assert mesh.ask("Smile!").text == "half a smile: \ufffd, 4 €"
    (line,) = events(tmp_path / "trace", of="answered")
    assert line["text"] == "half a smile: \ufffd, 4 €"


def test_an_id_comes_back_as_it_was_given(open_mesh: Callable[..., Mesh]) -> None:
    mesh = open_mesh()
    for given in ("7", "#7", "a#7", "a#"):
        assert mesh.ask("x", id=given).id == given
    assert len(mesh.ask("x").id) == 32


def test_a_full_disk_costs_the_trace_and_not_the_query(
    open_mesh: Callable[..., Mesh], caplog: pytest.LogCaptureFixture
) -> None:
    mesh = open_mesh(trace="/dev/full")
    assert mesh.ask("x").text
    kill(mesh, "a0")
    assert until(lambda: mesh.status()[0]["incarnation"] == 2)
    mesh.close()
    assert "No space left" in caplog.text


def test_a_trace_is_written_by_many_threads(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "trace")
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: trace("x", number=number), range(200)))
    trace.close()
    trace.close()
    trace("late")
    assert sorted(line["number"] for line in events(tmp_path / "trace")) == list(range(200))


# ---------------------------------------------------------------------------------- agents come and go


def test_agents_added_at_once_are_all_in(open_mesh: Callable[..., Mesh]) -> None:
    mesh = open_mesh()
    with ThreadPoolExecutor() as threads:
        slow = {"engine": {"kind": f"{HERE}:Slow"}}
        list(threads.map(lambda name: mesh.add_agent({**settings(name), **slow}), ["x", "y", "z"]))
    directory = mesh._call(mesh._running.directory)
    assert set(directory.entries()) == set(directory.cards) == {"a0", "a1", "x", "y", "z"}


def test_an_agent_given_up_is_used_again_once_it_was_replaced(open_mesh: Callable[..., Mesh]) -> None:
    mesh = open_mesh(1, {"refuse": 1.0})
    mesh.add_agent(settings("b", answer="from b"))
    assert mesh.ask("x").agent == "b"
    for _ in range(3):
        assert until(lambda: states(mesh)["b"] == "up")
        kill(mesh, "b")
        assert until(lambda: states(mesh)["b"] != "up")
    assert until(lambda: states(mesh)["b"] == "given up")
    assert mesh.ask("x").agent == "a0"
    mesh.remove_agent("b")
    mesh.add_agent(settings("b", answer="from the new b"))
    assert mesh.ask("x").text == "from the new b"


def test_the_last_agent_cannot_be_removed(open_mesh: Callable[..., Mesh]) -> None:
    mesh = open_mesh(1)
    with pytest.raises(TopologyError, match="the last one"):
        mesh.remove_agent("a0")
    assert mesh.ask("x").agent == "a0"


def test_an_engine_that_cannot_even_be_closed_is_replaced(open_mesh: Callable[..., Mesh], tmp_path: Path) -> None:
    mesh = open_mesh(engine={"kind": f"{HERE}:Leaving"}, trace=str(tmp_path / "trace"))
    kill(mesh, "a0")
    assert until(lambda: mesh.status()[0]["incarnation"] == 2)
    assert mesh.ask("x").agent == "a0"
    mesh.close()


def test_the_trace_tells_why_an_agent_is_down(open_mesh: Callable[..., Mesh], tmp_path: Path) -> None:
    Once.started = 0
    mesh = open_mesh(1, {"refuse": 1.0}, trace=str(tmp_path / "trace"))
    mesh.add_agent({**settings("b"), "engine": {"kind": f"{HERE}:Once"}})
    kill(mesh, "b")
    assert until(lambda: states(mesh)["b"] == "given up")
    told = [(line["event"], line["agent"], line.get("why")) for line in events(tmp_path / "trace", of="agent")]
    assert told == [
        ("agent_up", "a0", None),
        ("agent_up", "b", None),
        ("agent_down", "b", "it is gone"),
        ("agent_down", "b", "the disk is full"),
        ("agent_down", "b", "the disk is full"),
        ("agent_given_up", "b", "died 3 times within 120 s"),
    ]


def test_a_restarted_agent_serves_the_adapter_it_was_given_since(
    open_mesh: Callable[..., Mesh], tmp_path: Path
) -> None:
    mesh = open_mesh(1)
    mesh.update_agent("a0", tmp_path)
    kill(mesh, "a0")
    assert until(lambda: mesh.status()[0]["incarnation"] == 2)
    assert mesh.status()[0]["adapter"] == str(tmp_path)
    mesh.update_agent("a0", None)
    kill(mesh, "a0")
    assert until(lambda: mesh.status()[0]["incarnation"] == 3)
    assert mesh.status()[0]["adapter"] == ""


def test_an_engine_that_does_not_fit_is_closed(open_mesh: Callable[..., Mesh]) -> None:
    mesh = open_mesh()
    Slow.closed.clear()

    async def breaks(self: Slow) -> Any:
        raise ConfigError("no such model")

    start, Slow.start = Slow.start, breaks  # type: ignore[method-assign]
    try:
        with pytest.raises(ConfigError, match="no such model"):
            mesh.add_agent({**settings("new"), "engine": {"kind": f"{HERE}:Slow"}})
    finally:
        Slow.start = start  # type: ignore[method-assign]
    assert Slow.closed == ["new"]
    assert set(states(mesh)) == {"a0", "a1"}


# ---------------------------------------------------------------------------------- calls to an actor


async def test_what_an_actors_method_raises_is_not_taken_for_silence() -> None:
    from ray.exceptions import RayTaskError

    from agents.actor import RayTransport

    async def call() -> None:
        cause = TimeoutError("the server was slow")
        raise RayTaskError("load", "traceback", cause).as_instanceof_cause()

    for within_s in (None, 1.0):
        with pytest.raises(EngineError, match="the server was slow"):
            await RayTransport("m").reach("a", call(), within_s)


@pytest.mark.parametrize(("most", "answers"), [(0, "a0"), (1, "a1"), (2, "a2"), (64, "a2")])
def test_a_query_is_forwarded_no_further_than_it_may(most: int, answers: str) -> None:
    with Mesh.from_yaml(pool(agents=3, engine={"refuse": 1.0}, runtime="local")) as mesh:
        reply = mesh.ask("Why?", max_hops=most)
    assert (reply.agent, reply.path[-1].reason) == (answers, "forced")
    assert len(reply.path) == min(most, 2) + 1


def test_an_agent_asked_alone_has_no_stand_in() -> None:
    """``entry`` with ``max_hops=0``: where that one fails, nobody else answers in its name."""
    source = pool("refusal", agents=3, engine={"refuse": 0.0})
    source["agents"][1]["engine"] = {"fail": 1.0}
    with Mesh.from_yaml(source) as mesh:
        assert mesh.ask("Why?", entry="a1").agent != "a1"
        with pytest.raises(NoAgentLeft, match="a1 failed") as caught:
            mesh.ask("Why?", entry="a1", max_hops=0)
        assert [hop.agent for hop in caught.value.hops] == ["a1"]
        assert mesh.ask("Why?", max_hops=0).agent == "a0"
