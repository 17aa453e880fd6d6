"""The real server: Ray Serve replicas on loopback, asked by OpenAI's client, curl and plain requests."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import openai
import pytest

from benchmarks.served import free_port
from mesh.ingress import mesh_pb2 as pb
from mesh.ingress.keys import new_key
from mesh.ingress.mesh_pb2_grpc import MeshStub
from tests.ray.conftest import kill, until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

WORDS = "one two three four five six seven eight nine ten"
MESSAGES: Any = [{"role": "user", "content": "count"}]
POOL = f"""
name: served
limits: {{stall_s: 2}}
agents:
  - {{name: a, cost: 0.1, engine: {{kind: scripted, refuse: 1.0}}}}
  - {{name: b, cost: 0.5, engine: {{kind: scripted, answer: {WORDS}, pieces: 10, piece_s: 0.15}}}}
  - {{name: c, cost: 0.9, engine: {{kind: scripted, answer: {WORDS}, pieces: 3}}}}
  - {{name: slow, cost: 1.0, engine: {{kind: scripted, answer: {WORDS}, pieces: 10, piece_s: 1.5}}}}
"""


class Server:
    """``mesh serve`` as a process of its own, on the tests' own cluster; or another ``command`` that serves."""

    def __init__(
        self, *words: str, log: Path, command: tuple[str, ...] = (), port: int = 0, **environment: str
    ) -> None:
        import ray

        self.port, self.grpc_port, self.log = port or free_port(), free_port(), log
        self.url = f"http://127.0.0.1:{self.port}"
        address = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
        ports = ("--port", str(self.port), "--grpc-port", str(self.grpc_port))
        asked = (*command, *words) if command else ("mesh", "serve", *words, *ports)
        command = (sys.executable, "-m", *asked)
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=out, env={**os.environ, **address, **environment}
            )

    def ready(self) -> bool:
        if self.process.poll() is not None:
            pytest.fail(f"it ended with {self.process.returncode}: {self.log.read_text()}")
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("serving")
    (folder / "pool.yaml").write_text(POOL)
    started = Server(str(folder / "pool.yaml"), "--replicas", "2", log=folder / "log")
    try:
        assert until(started.ready, 120)
        yield started
    finally:
        if started.process.poll() is None:
            started.end()


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as made:
        yield made


def rows(server: Server) -> dict[str, dict[str, Any]]:
    return {row["agent"]: row for row in httpx.get(f"{server.url}/v1/mesh", timeout=30).json()["agents"]}


def test_openais_client(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="mesh", messages=MESSAGES)
    assert reply.choices[0].message.content == WORDS
    told: Any = reply.model_extra
    assert [hop["agent"] for hop in told["mesh"]["path"]] == ["a", "b"]
    assert client.completions.create(model="c", prompt="count").choices[0].text == WORDS
    assert [model.id for model in client.models.list()][-4:] == ["a", "b", "c", "slow"]


def test_the_first_token_comes_at_once(client: openai.OpenAI) -> None:
    began = time.monotonic()
    stream = client.chat.completions.create(model="b", messages=MESSAGES, stream=True)
    times = [time.monotonic() - began for _ in stream]
    assert len(times) == 11
    assert times[0] < times[-1] / 3  # the rest takes 1.35 s


async def test_openais_asynchronous_client(server: Server) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        stream = await client.chat.completions.create(model="c", messages=MESSAGES, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == WORDS


def test_curl(server: Server) -> None:
    body = json.dumps({"model": "c", "messages": MESSAGES, "stream": True})
    command = ["curl", "-sN", f"{server.url}/v1/chat/completions", "-H", "Content-Type: application/json", "-d", body]
    head = subprocess.run(["curl", "-sI", server.url], capture_output=True, text=True, timeout=60, check=True).stdout
    assert head.lower().count("x-request-id:") == 1
    lines = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split("\n\n")
    assert [line.partition(" ")[0] for line in lines if line] == ["data:"] * 5
    assert lines[-2] == "data: [DONE]"


def test_every_replica_knows_every_query(server: Server, client: openai.OpenAI) -> None:
    """Also the replicas that have not answered it."""
    reply = client.chat.completions.create(model="c", messages=MESSAGES)
    assert until(lambda: httpx.get(f"{server.url}/v1/mesh/trace/{reply.id}").status_code == 200)
    for _ in range(10):
        with httpx.Client(base_url=server.url) as each:
            assert each.get(f"/v1/mesh/trace/{reply.id}").json()["agent"] == "c"
            assert each.post("/v1/mesh/feedback", json={"id": reply.id, "right": True}).status_code == 200


def test_who_goes_away_stops_the_generation(server: Server, client: openai.OpenAI) -> None:
    """Whether something of the answer has come yet or not; it would take 15 seconds by itself."""

    def generates(many: int) -> bool:
        return until(lambda: rows(server)["slow"]["engine_running"] == many, 8)

    stream = client.chat.completions.create(model="slow", messages=MESSAGES, stream=True)
    next(stream)
    assert generates(1)
    stream.close()
    assert generates(0)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/chat/completions", json={"model": "slow", "messages": MESSAGES}, timeout=2)
    assert generates(0)


def test_who_goes_away_takes_nobody_along(client: openai.OpenAI) -> None:
    """All streams at one replica wait for their pieces by the same call; whichever began it."""
    streams = [client.chat.completions.create(model="b", messages=MESSAGES, stream=True) for _ in range(8)]
    for stream in streams:
        next(stream)
    for gone in streams[:4]:
        gone.close()
    for stream in streams[4:]:
        told: Any = list(stream)[-1].model_extra
        assert told["mesh"]["attempts"] == 1


def test_an_agent_killed_in_mid_stream_is_continued_by_another(server: Server, client: openai.OpenAI) -> None:
    import mesh

    with mesh.connect("served") as connected:
        stream = client.chat.completions.create(model="mesh", messages=MESSAGES, stream=True)
        chunks = [next(stream) for _ in range(3)]
        pid = kill(connected, "b")
        chunks.extend(stream)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == WORDS
        told: Any = chunks[-1].model_extra
        assert (chunks[-1].choices[0].finish_reason, told["mesh"]["agent"], told["mesh"]["attempts"]) == (
            "stop",
            "c",
            2,
        )
        assert until(lambda: rows(server)["b"]["state"] == "up" and rows(server)["b"]["incarnation"] == 2)
        assert not os.path.exists(f"/proc/{pid}")


def test_grpc(server: Server) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub = MeshStub(channel)
        pieces = list(stub.AskStream(pb.Query(messages=[pb.Message(role="user", content="count")], model="b")))
        assert "".join(piece.text for piece in pieces) == WORDS == pieces[-1].reply.text
        assert {agent.name for agent in stub.Status(pb.StatusRequest()).agents} == {"a", "b", "c", "slow"}


def test_prometheus(server: Server, client: openai.OpenAI) -> None:
    import ray

    client.chat.completions.create(model="mesh", messages=MESSAGES)
    to = f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"

    def told() -> str:
        return httpx.get(to, timeout=30).text

    # The agents' processes and the ingress report each for itself, some seconds apart.
    names = ("verdicts_total", "queries_total", "query_seconds_bucket", "running")
    assert until(lambda: all(f"ray_mesh_{name}{{" in text for text in [told()] for name in names), 60)
    lines = [line for line in told().splitlines() if line.startswith("ray_mesh_")]
    assert any('agent="a"' in line and 'verdict="refused"' in line and 'mesh="served"' in line for line in lines)


def test_one_server_a_cluster(server: Server, tmp_path: Path) -> None:
    """Who comes second is told so, and leaves the first alone."""
    second = Server("--name", "served", log=tmp_path / "log")
    assert second.process.wait(60) == 2
    assert "this Ray cluster serves mesh already" in second.log.read_text()
    assert httpx.get(f"{server.url}/readyz", timeout=30).status_code == 200
    assert httpx.get(f"{server.url}/v1/mesh", timeout=30).json()["last"]


def test_a_replica_that_is_killed_takes_nothing_along_but_streams_that_had_begun(
    server: Server, client: openai.OpenAI
) -> None:
    """Those end with an error, but properly; others go on, what had not begun is answered by the other replica, that
    one comes back, and traces of what it answered stay.
    """
    replies = [client.chat.completions.create(model="c", messages=MESSAGES).id for _ in range(8)]
    ended, answered, over_grpc = list[str](), list[str](), list[str]()
    threads = [threading.Thread(target=stream_to_its_end, args=(server, ended)) for _ in range(8)]
    threads += [threading.Thread(target=whole_answer, args=(server, answered)) for _ in range(8)]
    threads += [threading.Thread(target=stream_over_grpc, args=(server, over_grpc)) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert until(lambda: rows(server)["b"]["engine_running"] == 24)
    victim = replicas()[0]
    os.kill(victim, signal.SIGKILL)
    for thread in threads:
        thread.join(30)
    assert ended == ["data: [DONE]"] * 8
    assert answered == [WORDS] * 8
    assert len(over_grpc) == 8
    assert set(over_grpc) <= {WORDS, "UNAVAILABLE"}
    assert until(lambda: rows(server)["b"]["engine_running"] == 0)
    assert all(httpx.get(f"{server.url}/v1/mesh/trace/{reply}").status_code == 200 for reply in replies)
    assert until(lambda: len(replicas()) == 2 and victim not in replicas(), 60)
    assert client.chat.completions.create(model="c", messages=MESSAGES).choices[0].message.content == WORDS


def replicas() -> list[int]:
    """Process ids of the server's replicas."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().startswith(b"ray::ServeReplica:mesh:ingress"):
                found.append(int(path.parent.name))
    return found


def stream_to_its_end(server: Server, ended: list[str]) -> None:
    """The last line of an answer of ``b``, or what kind of error ended it."""
    body = {"model": "b", "messages": MESSAGES, "stream": True}
    try:
        with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=60) as answer:
            ended.append([line for line in answer.iter_lines() if line][-1])
    except httpx.TransportError as error:
        ended.append(type(error).__name__)


def whole_answer(server: Server, answered: list[str]) -> None:
    """What ``b`` says to a client that does not ask again by itself, or what it gets instead."""
    body = {"model": "b", "messages": MESSAGES}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    answered.append(answer.json()["choices"][0]["message"]["content"] if answer.status_code == 200 else answer.text)


def stream_over_grpc(server: Server, ended: list[str]) -> None:
    """The text of ``b``, or the status with which it broke off."""
    asked = pb.Query(messages=[pb.Message(role="user", content="count")], model="b")
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            ended.append("".join(piece.text for piece in MeshStub(channel).AskStream(asked)))
        except grpc.RpcError as error:
            ended.append(error.code().name)


def test_many_streams_at_once(server: Server) -> None:
    """None is lost, and they run side by side."""

    ended: list[str] = []
    threads = [threading.Thread(target=stream_to_its_end, args=(server, ended)) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended == ["data: [DONE]"] * 32


def test_what_is_served_ends_with_its_command(server: Server, client: openai.OpenAI) -> None:
    """The last test with this server: it ends everything it has started, and no log has anybody's text in it."""
    import ray

    from mesh import running

    secret = "xylophone-in-confidence"
    for model in ("mesh", "nobody"):
        for stream in (False, True):
            with contextlib.suppress(openai.NotFoundError):
                asked = client.chat.completions.create(
                    model=model, messages=[{"role": "user", "content": secret}], stream=stream
                )
                assert len(list(asked)) > 1
    assert running.running() == ["served"]
    assert server.end() == 0, server.log.read_text()
    assert running.running() == []
    assert not [actor for actor in ray.util.list_named_actors(all_namespaces=True) if "served" in actor["name"]]
    logs = Path(ray._private.worker.global_worker.node.get_logs_dir_path())
    written = [path for path in (*logs.rglob("*"), server.log) if path.is_file()]
    assert len([path for path in written if "serve" in path.name or path.parent.name == "serve"]) > 1
    assert [path for path in written if secret.encode() in path.read_bytes()] == []


def test_with_keys_on_a_mesh_that_runs_already(tmp_path: Path) -> None:
    """Nobody without one, nothing for users that is for admins; the mesh stays up afterwards."""
    from mesh import running

    (tmp_path / "pool.yaml").write_text(POOL)
    user, line = new_key("ada", "user")
    (tmp_path / "keys").write_text(line)
    running.up(str(tmp_path / "pool.yaml"))
    admin = "an-admin-of-twenty-characters"
    keys = ("--keys", str(tmp_path / "keys"), "--host", "0.0.0.0")
    started = Server("--name", "served", *keys, log=tmp_path / "log", MESH_ADMIN_KEYS=admin)
    try:
        assert until(started.ready, 120)
        agents = f"{started.url}/v1/mesh/agents"
        new = {"name": "d", "cost": 0.3, "engine": {"kind": "scripted", "answer": "from d"}}
        for key, status in (("", 401), ("mesh-wrong", 401), (user, 403), (admin, 200)):
            answer = httpx.post(agents, json=new, headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=60)
            assert (answer.status_code, "error" in answer.json()) == (status, status != 200)
        with openai.OpenAI(base_url=f"{started.url}/v1", api_key=user, max_retries=0) as client:
            assert client.chat.completions.create(model="d", messages=MESSAGES).choices[0].message.content == "from d"
        removed = httpx.delete(f"{agents}/d", headers={"Authorization": f"Bearer {admin}"}, timeout=60)
        assert removed.json() == {"agent": "d", "state": "removed"}
        for name, status in (("a", 200), ("b", 200), ("c", 200), ("slow", 400)):  # the last one stays
            removed = httpx.delete(f"{agents}/{name}", headers={"Authorization": f"Bearer {admin}"}, timeout=60)
            assert removed.status_code == status
        told = removed.json()["error"]
        assert told["code"] == "invalid_value"
        assert not any(word in told["message"] for word in ("Traceback", "ray", ".py"))
        log = started.log.read_text()
        assert [secret for secret in (user, admin, "count", "from d") if secret in log] == []
        assert started.end() == 0, log
        assert running.running() == ["served"]
    finally:
        if started.process.poll() is None:
            started.end()
        running.down("served")


@pytest.mark.slow
def test_the_deploy_file(tmp_path: Path) -> None:
    """What ``--print-config`` writes is what Ray's own ``serve`` takes; it starts the mesh too."""
    from mesh import running

    (tmp_path / "pool.yaml").write_text(POOL)
    port, words = free_port(), [sys.executable, "-m", "mesh", "serve", str(tmp_path / "pool.yaml"), "--print-config"]
    written = subprocess.run([*words, "--port", str(port)], capture_output=True, timeout=60, check=True).stdout
    (tmp_path / "serve.yaml").write_bytes(written)
    started = Server(
        str(tmp_path / "serve.yaml"), log=tmp_path / "log", command=("ray.serve.scripts", "run"), port=port
    )
    try:
        assert until(started.ready, 120)
        body = {"model": "c", "messages": MESSAGES}
        answer = httpx.post(f"{started.url}/v1/chat/completions", json=body, timeout=60)
        assert answer.json()["choices"][0]["message"]["content"] == WORDS
        assert running.running() == ["served"]
        running.down("served")  # what is served is gone: that is said, and nothing else
        assert until(lambda: httpx.get(f"{started.url}/readyz", timeout=30).status_code == 503)
        answer = httpx.post(f"{started.url}/v1/chat/completions", json=body, timeout=60)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "mesh_down")
        assert httpx.get(f"{started.url}/v1/mesh", timeout=30).status_code == 503
        running.up(str(tmp_path / "pool.yaml"))  # and so is that it is back
        assert until(lambda: httpx.get(f"{started.url}/readyz", timeout=30).status_code == 200)
        answer = httpx.post(f"{started.url}/v1/chat/completions", json=body, timeout=60)
        assert answer.json()["choices"][0]["message"]["content"] == WORDS
        trace = f"{started.url}/v1/mesh/trace/{answer.json()['id']}"
        assert until(lambda: httpx.get(trace, timeout=30).status_code == 200)
        assert len(httpx.get(f"{started.url}/v1/mesh", timeout=30).json()["agents"]) == 4
    finally:
        started.end()
        if running.running():
            running.down("served")
