"""A mesh that has another one, in another process, as a neighbour."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import AsyncIterator, Iterator
from math import nan
from pathlib import Path
from typing import Any

import grpc
import pytest

from agents.engines.base import Setup
from agents.errors import BudgetExceeded, ConfigError, DeadlineExceeded, MeshClosed, NoAgentLeft, QueryTooLong
from agents.messages import Hop, Message, Piece, Reply, Request
from benchmarks.served import free_port
from mesh import Mesh
from mesh.ingress import grpc_client
from mesh.ingress import mesh_pb2 as pb
from mesh.ingress.errors import Refused
from mesh.ingress.federation import RemoteMesh
from mesh.ingress.grpc_server import packed
from mesh.ingress.keys import Key
from mesh.ingress.mesh_pb2_grpc import MeshServicer, add_MeshServicer_to_server
from mesh.ingress.newcomers import check_newcomer
from mesh.ingress.tls import PLAIN, ServerTLS
from tests.certificates import certificates
from tests.federated import Elsewhere
from tests.ray.conftest import until
from tests.serving import WORDS, pool, served
from tests.unit.test_http import KEYS, USER

REFUSES = {"refuse": 1.0}
ANSWERS = {"answer": WORDS, "pieces": 5}
SLOW = {"answer": WORDS, "pieces": 10, "piece_s": 0.2}
THERE = {**pool({"a": REFUSES, "b": ANSWERS}), "name": "there"}


def here(target: str, *after: dict[str, Any], policy: str = "refusal", **engine: Any) -> Mesh:
    """``nano``, which refuses; then the mesh at ``target``; then what comes after it."""
    agents = [
        {"name": "nano", "cost": 0.1, "engine": {"kind": "scripted", **REFUSES}},
        {"name": "berlin", "cost": 0.5, "policy": policy, "engine": {"kind": "mesh", "target": target, **engine}},
        *after,
    ]
    return Mesh.from_yaml({"name": "here", "runtime": "local", "agents": agents})


@contextlib.contextmanager
def nearby(source: dict[str, Any], keys: tuple[Key, ...] = (), tls: ServerTLS = PLAIN) -> Iterator[str]:
    """Another mesh, but in this process: its address."""
    with served(source, keys, grpc=True, tls=tls) as (_, door):
        yield f"localhost:{door.grpc_port}"  # type: ignore[attr-defined]


def last(**engine: Any) -> dict[str, Any]:
    return {"name": "last", "cost": 0.9, "engine": {"kind": "scripted", "answer": WORDS, **engine}}


def told(reply: Reply) -> list[tuple[str, str, str]]:
    return [(hop.agent, hop.verdict, hop.reason) for hop in reply.path]


@pytest.fixture(scope="module")
def there() -> Iterator[Elsewhere]:
    with Elsewhere(THERE) as started:
        yield started


@pytest.fixture(scope="module")
def slow() -> Iterator[Elsewhere]:
    with Elsewhere({**pool({"a": REFUSES, "b": SLOW}), "name": "slow"}) as started:
        yield started


def idle(there: Elsewhere) -> bool:
    return all(agent.in_hand == 0 for agent in there.status().values())


@pytest.mark.parametrize("policy", ["refusal", "always"])
def test_its_agents_stand_in_the_path(there: Elsewhere, policy: str) -> None:
    """With their costs converted; what the neighbour itself costs is what has been declared."""
    with here(there.target, policy=policy, rate=0.5) as mesh, Mesh.from_yaml(THERE) as same:
        reply, alone = mesh.ask("count", 0.3), same.ask("count", 0.3)
        assert (reply.text, reply.agent, reply.cost, reply.attempts) == (WORDS, "berlin", 0.5, 1)
        assert told(reply)[1:] == [(f"berlin/{agent}", *what) for agent, *what in told(alone)]
        assert [hop.full_cost for hop in reply.path[1:]] == [hop.full_cost / 2 for hop in alone.path]
        assert reply.full_cost == pytest.approx(reply.path[0].full_cost + alone.full_cost / 2)
        assert reply.path[-1].generated_tokens == alone.path[-1].generated_tokens == 5
        *pieces, streamed = mesh.stream("count", 0.3)
        assert (len(pieces), "".join(str(piece) for piece in pieces)) == (5, WORDS)
        assert isinstance(streamed, Reply)
        assert told(streamed) == told(reply)


def test_alpha_and_the_bound_on_tokens_travel_along(there: Elsewhere) -> None:
    with here(there.target) as mesh:
        reply = mesh.ask("count", 0.25, max_tokens=2)
        assert (reply.alpha, reply.path[-1].generated_tokens) == (0.25, 2)


def test_where_nobody_there_wants_to_answer_the_next_neighbour_does() -> None:
    with nearby({**pool({"a": REFUSES, "b": REFUSES}), "name": "modest"}) as modest:
        with here(modest, last()) as mesh:
            reply = mesh.ask("count")
            assert (reply.text, reply.agent, reply.attempts) == (WORDS, "last", 1)
            assert told(reply) == [
                ("nano", "refused", ""), ("berlin/a", "refused", ""), ("berlin/b", "declined", ""),
                ("berlin", "refused", ""), ("last", "answered", "forced"),
            ]  # fmt: skip
            assert reply.path[3].full_cost == 0
            assert reply.path[2].full_cost > 0
        with here(modest) as mesh:  # nobody is left: it has to
            assert told(mesh.ask("count"))[-1] == ("berlin/b", "answered", "forced")
            reply = mesh.ask("count", may_decline=True)  # or whoever asks takes that for an answer
            assert (reply.finish, reply.text, reply.agent) == ("declined", "", "berlin")
            assert [hop[:2] for hop in told(reply)] == [
                ("nano", "refused"), ("berlin/a", "refused"), ("berlin/b", "declined"), ("berlin", "declined"),
            ]  # fmt: skip


def test_an_agent_that_breaks_off_is_continued_there() -> None:
    with nearby({**pool({"b": ANSWERS}), "name": "sure"}) as sure, here(sure) as mesh:
        mesh.add_agent({"name": "half", "cost": 0.2, "engine": {"kind": "scripted", **ANSWERS, "fail": 1.0}})
        reply = mesh.ask("count")
        assert (reply.text, reply.agent, reply.attempts) == (WORDS, "berlin", 2)


def test_what_is_continued_there_may_break_off_there_again() -> None:
    """The last of three knows all that the caller has seen."""
    source = {**pool({"a": {**ANSWERS, "fail": 1.0}, "b": ANSWERS}), "name": "twice"}
    with nearby(source) as twice, here(twice) as mesh:
        mesh.add_agent({"name": "half", "cost": 0.2, "engine": {"kind": "scripted", **ANSWERS, "fail": 1.0}})
        reply = mesh.ask("count")
        assert (reply.text, reply.agent) == (WORDS, "berlin")
        assert [hop[:2] for hop in told(reply)][-2:] == [("berlin/a", "failed"), ("berlin/b", "answered")]


def test_one_that_is_killed_is_one_agent_that_died() -> None:
    with Elsewhere({**THERE, "agents": [*pool({"b": SLOW})["agents"]]}) as there, here(there.target, last()) as mesh:
        stream = mesh.stream("count")
        seen = [next(stream) for _ in range(3)]
        there.kill()  # in mid-answer
        *more, reply = stream
        assert "".join(str(piece) for piece in (*seen, *more)) == WORDS
        assert isinstance(reply, Reply)
        assert (reply.agent, reply.attempts) == ("last", 2)
        assert [hop[1:] for hop in told(reply) if hop[0] == "berlin"] == [("failed", "died")]
        reply = mesh.ask("count")  # while it is gone
        assert (reply.agent, reply.attempts) == ("last", 1)
        assert [hop[1:] for hop in told(reply) if hop[0] == "berlin"] == [("failed", "died")]
        there.start()  # and it is found again
        assert until(lambda: mesh.ask("count").agent == "berlin")


def test_one_that_falls_silent_has_stalled(slow: Elsewhere) -> None:
    """Also where nothing says that it is gone."""
    with here(slow.target, last()) as mesh:
        mesh.remove_agent("berlin")
        engine = {"kind": "mesh", "target": slow.target}
        mesh.add_agent({"name": "paris", "cost": 0.5, "engine": engine, "limits": {"stall_s": 1.0}})
        stream = mesh.stream("count")
        seen = [next(stream) for _ in range(2)]
        slow.process.send_signal(signal.SIGSTOP)
        try:
            *more, reply = stream
        finally:
            slow.process.send_signal(signal.SIGCONT)
        assert "".join(str(piece) for piece in (*seen, *more)) == WORDS
        assert isinstance(reply, Reply)
        assert [hop[1:] for hop in told(reply) if hop[0] == "paris"] == [("failed", "stalled")]
        assert until(lambda: idle(slow))


def test_a_client_does_not_wait_for_one_that_has_fallen_silent(
    slow: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = dict.fromkeys(("grpc.keepalive_time_ms", "grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms"), 500)
    assert soon.keys() < dict(grpc_client.OPTIONS).keys()
    monkeypatch.setattr(grpc_client, "OPTIONS", [*(dict(grpc_client.OPTIONS) | soon).items()])
    with grpc_client.Remote(slow.target) as remote:
        stream = remote.stream("count")
        next(stream)
        slow.process.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        try:
            with pytest.raises(MeshClosed):
                list(stream)
        finally:
            slow.process.send_signal(signal.SIGCONT)
    assert time.monotonic() - begun < 30  # a ping of gRPC's own, behind which ours waits, would have a minute
    assert until(lambda: idle(slow))


def test_nobody_left(there: Elsewhere) -> None:
    with (
        here(f"127.0.0.1:{free_port()}", policy="always") as mesh,
        pytest.raises(NoAgentLeft, match="berlin died"),
    ):
        mesh.ask("count", entry="berlin", max_hops=0)


def test_meshes_that_name_each_other_ask_each_other_once() -> None:
    ports = {"east": free_port(), "west": free_port()}

    def source(name: str, other: str, *more: dict[str, Any]) -> dict[str, Any]:
        neighbour = {"kind": "mesh", "target": f"127.0.0.1:{ports[other]}"}
        agents = [{"name": "nano", "cost": 0.1, "engine": {"kind": "scripted", **REFUSES}}]
        return {
            "name": name,
            "runtime": "local",
            "agents": [*agents, {"name": f"to-{other}", "cost": 0.5, "engine": neighbour}, *more],
        }

    west = source("west", "east", last())
    with Elsewhere(west, ports["west"]), Elsewhere(source("east", "west"), ports["east"]):
        with Mesh.from_yaml({**west, "name": "third"}) as mesh:
            reply = mesh.ask("count")
            assert reply.text == WORDS
            assert told(reply) == [
                ("nano", "refused", ""),
                ("to-east/nano", "refused", ""),
                ("to-east/to-west/nano", "refused", ""),
                ("to-east/to-west/to-east", "failed", "failed"),
                ("to-east/to-west/last", "answered", ""),
            ]
        with Mesh.from_yaml(west) as mesh:  # which west itself asks is not asked of west again
            assert told(mesh.ask("count")) == [
                ("nano", "refused", ""),
                ("to-east/nano", "refused", ""),
                ("to-east/to-west", "failed", "failed"),
                ("to-east/nano", "declined", ""),
                ("to-east", "refused", ""),
                ("last", "answered", "forced"),
            ]


def test_who_goes_away_stops_the_work_there(slow: Elsewhere) -> None:
    with here(slow.target) as mesh:
        stream = mesh.stream("count")
        next(stream)
        assert slow.status()["b"].in_hand == 1
        stream.close()
        assert until(lambda: idle(slow))


def test_the_deadline_is_the_same_there(slow: Elsewhere) -> None:
    with here(slow.target) as mesh:
        with pytest.raises(DeadlineExceeded):
            mesh.ask("count", deadline_s=0.5)
        assert until(lambda: idle(slow))


def test_the_budget_is_converted(there: Elsewhere) -> None:
    """b costs .9 there, which is .72 here at a rate of .8, and .09 at one of .1."""
    for rate, budget, answers in ((0.8, 0.7, "berlin/a"), (0.1, 0.7, "berlin/b"), (0.8, 0.9, "berlin/b")):
        with here(there.target, rate=rate) as mesh:
            reply = mesh.ask("count", max_cost=budget)
            assert (reply.path[-1].agent, reply.text != "") == (answers, True)
            assert reply.full_cost <= budget
    with here(there.target) as mesh, pytest.raises(BudgetExceeded):
        mesh.ask("count", max_cost=1e-6, entry="berlin", max_hops=0)


def test_what_is_too_long_there_goes_elsewhere() -> None:
    with nearby({**pool({"a": {"context": 4}}), "name": "short"}) as short:
        with here(short, last()) as mesh:
            reply = mesh.ask("one two three four five six seven")
            assert ("berlin", "failed", "too_long") in told(reply)
            assert reply.agent == "last"
        with here(short) as mesh, pytest.raises(QueryTooLong):
            mesh.ask("one two three four five six seven", entry="berlin", max_hops=0)


def test_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with nearby(THERE, KEYS) as guarded:
        for key, agent in ((USER, "berlin"), ("wrong", "last")):
            monkeypatch.setenv("BERLIN_KEY", key)
            with here(guarded, last(), api_key_env="BERLIN_KEY") as mesh:
                assert mesh.ask("count").agent == agent
                row = next(row for row in mesh.status() if row["agent"] == "berlin")
                assert (row["api_key_env"], key in str(row)) == ("BERLIN_KEY", False)


def test_both_show_their_certificates(tmp_path: Path) -> None:
    files = certificates(tmp_path)
    names = {"tls_ca": files["ca"], "tls_cert": files["client"], "tls_key": files["client_key"]}
    with nearby(THERE, tls=ServerTLS(files["server"], files["server_key"], files["ca"])) as target:
        with here(target, last(), **names) as mesh:
            assert mesh.ask("count").agent == "berlin"
        strange = {"tls_cert": files["stranger"], "tls_key": files["stranger_key"]}
        for wrong in ({**names, **strange}, {"tls_ca": files["ca"]}, {}):
            with here(target, last(), **wrong) as mesh:
                assert mesh.ask("count").agent == "last"


def test_no_log_has_the_question(caplog: pytest.LogCaptureFixture) -> None:
    """Also where the other mesh says what it could not read."""
    caplog.set_level(logging.INFO)
    reads = {**THERE, "understands": {"pattern": "[0-9]+"}}
    with nearby(reads) as there, here(there, last()) as mesh:
        assert told(mesh.ask("xylophone"))[1] == ("berlin", "failed", "failed")
    assert "INVALID_ARGUMENT (not_understood)" in caplog.text
    assert "xylophone" not in caplog.text


@pytest.mark.parametrize("hops", [(), (Hop("a", "answered", full_cost=-1.0),), (Hop("a", "answered", full_cost=nan),)])
def test_a_reply_that_cannot_be(hops: tuple[Hop, ...]) -> None:
    """What others tell must not make budgets larger."""

    async def said(engine: RemoteMesh) -> list[Piece]:
        await engine.start()
        try:
            request = Request(("q", 1), 1, (Message("user", "count"),), 5)
            return [piece async for piece in engine.generate(request)]
        finally:
            await engine.close()

    async def asked() -> None:
        class Lying(MeshServicer):  # type: ignore[misc]
            async def AskStream(self, request: Any, context: Any) -> AsyncIterator[Any]:
                yield pb.Piece(reply=packed(Reply("q", "4", "a", 0.5, 0.5, 0.5, hops, 0.1)))

        server = grpc.aio.server()
        add_MeshServicer_to_server(Lying(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        with pytest.raises(RuntimeError, match="tells no path, or costs below 0"):
            await said(RemoteMesh(Setup("berlin"), target=f"127.0.0.1:{port}"))
        await server.stop(None)

    asyncio.run(asked())


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ({"target": "berlin"}, "target: 'berlin'; it must be HOST:PORT"),
        ({"target": "berlin:9", "rate": 0}, "rate: 0; it must be a number > 0"),
        ({"target": "berlin:9", "rate": True}, "rate: True; it must be a number > 0"),
        ({"target": "berlin:9", "api_key_env": "NO_SUCH"}, "api_key_env: the environment variable NO_SUCH is unset"),
        ({"target": "berlin:9", "tls_ca": "nowhere.pem"}, "nowhere.pem' cannot be read"),
        ({"target": "berlin:9", "tls_key": "nowhere.pem"}, "it needs tls_cert too"),
        ({"target": "berlin:9", "port": 9}, "no option of engine 'mesh'"),
        ({"target": "berlin:9", "tls_ca": 3}, "should be a path"),
    ],
)
def test_wrong_settings(engine: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        here(**engine).start()  # type: ignore[arg-type]
    assert words in str(caught.value)


def test_over_the_network_no_file_of_the_servers_is_named() -> None:
    engine = {"kind": "mesh", "target": "berlin:9"}
    check_newcomer({"name": "x", "cost": 0.5, "engine": engine})
    for more in ({"tls_key": "key.pem", "tls_cert": "cert.pem"}, {"tls_ca": "ca.pem"}, {"api_key_env": "SECRET"}):
        with pytest.raises(Refused, match="over the network"):
            check_newcomer({"name": "x", "cost": 0.5, "engine": {**engine, **more}})
        check_newcomer({"name": "x", "cost": 0.5, "engine": {**engine, **more}}, trusted=True)
