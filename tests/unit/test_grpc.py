"""The gRPC service on loopback, with the generated client and with ``mesh ask --grpc``."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from typer.testing import CliRunner, Result

import mesh.cli
from mesh.ingress import grpc_server
from mesh.ingress import mesh_pb2 as pb
from mesh.ingress.limits import Limits
from mesh.ingress.mesh_pb2_grpc import MeshStub
from tests.ray.conftest import until
from tests.serving import WORDS, pool, served
from tests.unit.test_http import ADMIN, KEYS, TWO, USER

SLOW = pool({"a": {"answer": WORDS, "pieces": 10, "piece_s": 0.1}})


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    with served(TWO, grpc=True) as (_, door):
        yield f"127.0.0.1:{door.grpc_port}"


@pytest.fixture
def stub(target: str) -> Iterator[MeshStub]:
    with grpc.insecure_channel(target) as channel:
        yield MeshStub(channel)


def query(**fields: Any) -> pb.Query:
    return pb.Query(messages=[pb.Message(role="user", content="count")], **fields)


def refused(call: Callable[[], object], status: grpc.StatusCode, code: str, words: str) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    assert (error.code(), dict(error.trailing_metadata())["mesh-code"]) == (status, code)
    assert words in error.details()
    return error


def test_ask(stub: MeshStub) -> None:
    reply = stub.Ask(query(alpha=0.3))
    assert (reply.text, reply.agent, reply.alpha, reply.finish) == (WORDS, "b", 0.3, "stop")
    assert [(hop.agent, hop.verdict) for hop in reply.path] == [("a", "refused"), ("b", "answered")]
    assert reply.path[1].generated_tokens == 5
    assert [hop.agent for hop in stub.Ask(query(model="b")).path] == ["b"]
    assert stub.Ask(query(model="mesh-alpha-0.7")).alpha == 0.7
    assert stub.Ask(query(max_tokens=2)).path[-1].generated_tokens <= 2
    assert stub.Ask(query(priority="high")).alpha_used == 0.5
    wrong = query(priority="urgent")
    refused(lambda: stub.Ask(wrong), grpc.StatusCode.INVALID_ARGUMENT, "invalid_value", "one of low, normal, high")


def test_a_stream(stub: MeshStub) -> None:
    pieces = list(stub.AskStream(query()))
    assert [piece.WhichOneof("what") for piece in pieces] == ["text"] * 5 + ["reply"]
    assert "".join(piece.text for piece in pieces) == WORDS == pieces[-1].reply.text


async def test_the_asynchronous_client(target: str) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        stub = MeshStub(channel)
        assert (await stub.Ask(query())).text == WORDS
        stream: AsyncIterator[pb.Piece] = stub.AskStream(query())
        assert "".join([piece.text async for piece in stream]) == WORDS


@pytest.mark.parametrize(
    ("fields", "status", "code", "words"),
    [
        ({"alpha": 2}, grpc.StatusCode.INVALID_ARGUMENT, "invalid_value", "alpha: 2.0; it must be"),
        ({"alpha": float("nan")}, grpc.StatusCode.INVALID_ARGUMENT, "invalid_value", "alpha: nan"),
        ({"model": "c"}, grpc.StatusCode.NOT_FOUND, "model_not_found", "model: 'c'"),
        ({"model": "b", "entry": "a"}, grpc.StatusCode.INVALID_ARGUMENT, "invalid_value", "entry: 'a'"),
        ({"entry": "é"}, grpc.StatusCode.INVALID_ARGUMENT, "invalid_value", "entry: unknown agent"),
        ({"max_tokens": -1}, grpc.StatusCode.INVALID_ARGUMENT, "invalid_value", "max_tokens: -1"),
        ({"max_cost": 1e-9}, grpc.StatusCode.INVALID_ARGUMENT, "budget_exceeded", "max_cost"),
    ],
)
def test_wrong_queries(stub: MeshStub, fields: dict[str, Any], status: grpc.StatusCode, code: str, words: str) -> None:
    refused(lambda: stub.Ask(query(**fields)), status, code, words)
    refused(lambda: list(stub.AskStream(query(**fields))), status, code, words)


def test_an_error_with_a_long_message_arrives(stub: MeshStub) -> None:
    long = pb.Query(messages=[pb.Message(role="é" * 20_000, content="x")])
    error = refused(lambda: stub.Ask(long), grpc.StatusCode.INVALID_ARGUMENT, "invalid_value", "messages")
    assert len(error.details()) <= 1_000


def test_no_question_at_all(stub: MeshStub) -> None:
    refused(lambda: stub.Ask(pb.Query()), grpc.StatusCode.INVALID_ARGUMENT, "invalid_value", "messages: []")


def test_the_calls_deadline_is_the_querys_and_who_cancels_stops_the_generation() -> None:
    with served(SLOW, grpc=True) as (_, door), grpc.insecure_channel(f"127.0.0.1:{door.grpc_port}") as channel:
        stub = MeshStub(channel)

        def working() -> int:
            running: int = door.mesh.status()[0]["engine_running"]
            return running

        with pytest.raises(grpc.RpcError) as caught:
            stub.Ask(query(), timeout=0.3)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert until(lambda: working() == 0, 1.0)
        refused(
            lambda: stub.Ask(query(deadline_s=0.3)), grpc.StatusCode.DEADLINE_EXCEEDED, "deadline_exceeded", "0.3 s"
        )
        stream = stub.AskStream(query())
        next(stream)
        assert working() == 1
        stream.cancel()
        assert until(lambda: working() == 0, 0.5)


def test_a_calls_deadline_does_not_lengthen_the_pools() -> None:
    source = {**SLOW, "deadline_s": 0.3}
    with served(source, grpc=True) as (_, door), grpc.insecure_channel(f"127.0.0.1:{door.grpc_port}") as channel:
        for timeout in (None, 60):
            refused(
                lambda timeout=timeout: MeshStub(channel).Ask(query(), timeout=timeout),
                grpc.StatusCode.DEADLINE_EXCEEDED, "deadline_exceeded", "0.3 s",
            )  # fmt: skip


def test_status_and_feedback(stub: MeshStub) -> None:
    told = stub.Status(pb.StatusRequest())
    assert (told.name, told.alpha, told.entry) == ("test", 0.5, "a")
    assert [(agent.name, agent.state, list(agent.neighbours)) for agent in told.agents] == [
        ("a", "up", ["b"]), ("b", "up", []),
    ]  # fmt: skip
    reply = stub.Ask(query())
    assert stub.Feedback(pb.Judgement(id=reply.id, right=True)).right
    refused(
        lambda: stub.Feedback(pb.Judgement(id="none", right=True)),
        grpc.StatusCode.NOT_FOUND, "no_such_query", "'none'",
    )  # fmt: skip


def test_keys_and_agents() -> None:
    with served(TWO, KEYS, grpc=True) as (_, door), grpc.insecure_channel(f"127.0.0.1:{door.grpc_port}") as channel:
        stub = MeshStub(channel)
        user, admin = [(("authorization", f"Bearer {key}"),) for key in (USER, ADMIN)]
        for metadata in ((), (("authorization", "Bearer wrong"),)):
            refused(
                lambda metadata=metadata: stub.Ask(query(), metadata=metadata),
                grpc.StatusCode.UNAUTHENTICATED, "invalid_api_key", "API key",
            )  # fmt: skip
            refused(
                lambda metadata=metadata: list(stub.AskStream(query(), metadata=metadata)),
                grpc.StatusCode.UNAUTHENTICATED, "invalid_api_key", "API key",
            )  # fmt: skip
        assert stub.Ask(query(), metadata=user).text == WORDS
        new = pb.AgentsRequest(add=json.dumps({"name": "c", "cost": 0.5, "engine": {"kind": "scripted"}}))
        refused(lambda: stub.Agents(new, metadata=user), grpc.StatusCode.PERMISSION_DENIED, "admin_only", "admin")
        assert list(stub.Agents(new, metadata=admin).names) == ["a", "c", "b"]
        refused(lambda: stub.Agents(new, metadata=admin), grpc.StatusCode.ALREADY_EXISTS, "agent_exists", "'c'")
        assert list(stub.Agents(pb.AgentsRequest(remove="c"), metadata=admin).names) == ["a", "b"]
        refused(
            lambda: stub.Agents(pb.AgentsRequest(add="{"), metadata=admin),
            grpc.StatusCode.INVALID_ARGUMENT, "invalid_json", "add",
        )  # fmt: skip


def test_too_much_and_what_is_no_message() -> None:
    few = Limits(body_bytes=2_000, messages=2)
    with (
        served(TWO, limits=few, grpc=True) as (_, door),
        grpc.insecure_channel(f"127.0.0.1:{door.grpc_port}") as channel,
    ):
        stub, one = MeshStub(channel), pb.Message(role="user", content="count")
        invalid = grpc.StatusCode.INVALID_ARGUMENT
        refused(lambda: stub.Ask(pb.Query(messages=[one] * 3)), invalid, "too_many_messages", "3 of them")
        with pytest.raises(grpc.RpcError) as caught:
            stub.Ask(pb.Query(messages=[pb.Message(role="user", content="x" * 3_000)]))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        for method, kind in (("Ask", channel.unary_unary), ("Status", channel.unary_unary)):
            call = kind(f"/mesh.v1.Mesh/{method}")
            refused(lambda call=call: call(b"\xff"), invalid, "invalid_message", "the message cannot be read")
        stream = channel.unary_stream("/mesh.v1.Mesh/AskStream")
        refused(lambda: list(stream(b"\xff")), invalid, "invalid_message", "AskStream")


def test_health_and_reflection(target: str) -> None:
    with grpc.insecure_channel(target) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        serving = health_pb2.HealthCheckResponse.SERVING
        assert until(lambda: check(health_pb2.HealthCheckRequest(service="mesh.v1.Mesh")).status == serving)
        services = ProtoReflectionDescriptorDatabase(channel).get_services()
        assert {"mesh.v1.Mesh", "grpc.health.v1.Health"} <= set(services)


def test_what_is_open_to_all_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_server, "_MORE", 1)
    with served(TWO, limits=Limits(running=1, waiting=1), grpc=True) as (_, door):
        target = f"127.0.0.1:{door.grpc_port}"
        with grpc.insecure_channel(target) as one, grpc.insecure_channel(target, [("other", 1)]) as other:
            first, second = [health_pb2_grpc.HealthStub(channel) for channel in (one, other)]
            watches = [first.Watch(health_pb2.HealthCheckRequest()) for _ in range(3)]
            for watch in watches:
                next(watch)
            with pytest.raises(grpc.RpcError) as caught:
                next(second.Watch(health_pb2.HealthCheckRequest()))
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            for watch in watches:
                watch.cancel()


def test_health_goes_on_after_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_server, "_HEALTH_S", 0.05)
    states = health_pb2.HealthCheckResponse
    with served(TWO, grpc=True) as (_, door), grpc.insecure_channel(f"127.0.0.1:{door.grpc_port}") as channel:

        def state() -> int:
            told: int = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status
            return told

        async def broken() -> bool:
            raise RuntimeError

        assert until(lambda: state() == states.SERVING)
        with monkeypatch.context() as patched:
            patched.setattr(door, "ready", broken)
            assert until(lambda: state() == states.NOT_SERVING)
        assert until(lambda: state() == states.SERVING)


def run(*words: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(mesh.cli.app, words)


def test_the_command(target: str) -> None:
    shown = run("ask", "count", "--grpc", target)
    assert shown.stdout.startswith(f"{WORDS}\n\n[a refused")
    told = json.loads(run("ask", "count", "--grpc", target, "--alpha", "0.3", "--json").stdout)
    assert (told["text"], told["alpha"], told["path"][0]["verdict"]) == (WORDS, 0.3, "refused")
    for words, code, why in (
        (["--grpc", "here"], 2, "grpc: 'here'; it must be HOST:PORT"),
        (["--grpc", target, "--pool", "lab"], 2, "pool: not with --grpc"),
        (["--grpc", target, "--entry", "z"], 2, "unknown agent 'z'"),
        (["--grpc", "127.0.0.1:1"], 1, "refused"),
    ):
        result = run("ask", "count", *words)
        assert (result.exit_code, result.stdout) == (code, "")
        assert why in result.stderr


def test_the_commands_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(TWO, KEYS, grpc=True) as (_, door):
        words = ("ask", "count", "--grpc", f"127.0.0.1:{door.grpc_port}")
        result = run(*words)
        assert (result.exit_code, "MESH_API_KEY: no API key" in result.stderr) == (2, True)
        monkeypatch.setenv("MESH_API_KEY", USER)
        assert run(*words).stdout.startswith(WORDS)
