"""Clients that people have, against the real server: OpenAI's, LangChain's, curl, and gRPC from the .proto alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from langchain_openai import ChatOpenAI

from mesh.ingress.keys import new_key
from tests.models.conftest import MODELS
from tests.ray.conftest import until
from tests.ray.test_serving import Server

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
PROTO = Path(__file__).parents[2] / "mesh" / "ingress" / "mesh.proto"
SUM: Any = [{"role": "user", "content": "37+58="}]


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    made, line = new_key("ada", "user")
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text(line)
    return made, path


@pytest.fixture(scope="module")
def lab(key: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The lab's five models behind a key."""
    yield from serving("lab", "--keys", str(key[1]), log=tmp_path_factory.mktemp("lab") / "log")


def serving(*words: str, log: Path, within_s: float = 200) -> Iterator[Server]:
    started = Server(*words, log=log)
    try:
        assert until(started.ready, within_s), log.read_text()
        yield started
    finally:
        if started.process.poll() is None:
            started.end()


STRANGER = """
import json, sys, grpc, theirs_pb2, theirs_pb2_grpc
target, key, model, question = sys.argv[1:]
key = (("authorization", "Bearer " + key),) if key else ()
query = theirs_pb2.Query(messages=[theirs_pb2.Message(role="user", content=question)], model=model, max_tokens=24)
with grpc.insecure_channel(target) as channel:
    mesh = theirs_pb2_grpc.MeshStub(channel)
    reply = mesh.Ask(query, metadata=key)
    pieces = list(mesh.AskStream(query, metadata=key))
    mesh.Feedback(theirs_pb2.Judgement(id=reply.id, right=True), metadata=key)
    agents = [agent.name for agent in mesh.Status(theirs_pb2.StatusRequest(), metadata=key).agents]
    try:
        code = mesh.Ask(query) and "OK"
    except grpc.RpcError as error:
        code = error.code().name
streamed = "".join(piece.text for piece in pieces)
assert streamed == pieces[-1].reply.text
told = {"text": reply.text, "verdict": reply.path[-1].verdict, "streamed": streamed, "agents": agents}
print(json.dumps({**told, "without_key": code}))
"""


def ask_as_a_stranger(folder: Path, server: Server, key: str, model: str, question: str) -> dict[str, Any]:
    """What a client hears whose gRPC code is made here from ``mesh.proto`` alone, in a process that has no mesh."""
    shutil.copy(PROTO, folder / "theirs.proto")
    words = [f"-I{folder}", f"--python_out={folder}", f"--grpc_python_out={folder}", str(folder / "theirs.proto")]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *words], check=True, timeout=60)
    (folder / "client.py").write_text(STRANGER)
    command = [sys.executable, "client.py", f"127.0.0.1:{server.grpc_port}", key, model, question]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


# ---------------------------------------------------------------------------------- the lab


def test_openais_client_and_its_streams(lab: Server, key: tuple[str, Path]) -> None:
    with openai.OpenAI(base_url=f"{lab.url}/v1", api_key=key[0], max_retries=0) as client:
        reply: Any = client.chat.completions.create(model="mesh-alpha-0.2", messages=SUM)
        assert reply.choices[0].message.content == "95"
        assert reply.mesh["path"][-1]["verdict"] == "answered"
        assert reply.mesh["full_cost"] >= reply.mesh["path"][-1]["full_cost"] > 0
        assert reply.usage.completion_tokens > 0
        cheap: Any = client.chat.completions.create(model="mesh-alpha-1.0", messages=SUM)
        assert cheap.mesh["cost"] <= reply.mesh["cost"]
        stream = client.chat.completions.create(model="large", messages=SUM, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "95"
        with client.chat.completions.stream(model="large", messages=SUM) as events:  # its helper, which checks more
            assert events.get_final_completion().choices[0].message.content == "95"


async def test_openais_asynchronous_client_and_its_streams(lab: Server, key: tuple[str, Path]) -> None:
    async with openai.AsyncOpenAI(base_url=f"{lab.url}/v1", api_key=key[0], max_retries=0) as client:
        reply = await client.chat.completions.create(model="large", messages=SUM)
        assert reply.choices[0].message.content == "95"
        stream = await client.chat.completions.create(model="large", messages=SUM, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "95"


async def test_langchain(lab: Server, key: tuple[str, Path]) -> None:
    model = ChatOpenAI(model="large", base_url=f"{lab.url}/v1", api_key=key[0], max_retries=0, stream_usage=True)
    reply = model.invoke("37+58=")
    assert reply.content == "95"
    assert reply.usage_metadata["output_tokens"] > 0
    pieces = list(model.stream("37+58="))
    assert "".join(piece.content for piece in pieces) == "95"
    assert sum(piece.usage_metadata["output_tokens"] for piece in pieces if piece.usage_metadata) > 0
    assert [each.content for each in model.batch(["37+58=", "204-315="])] == ["95", "-111"]
    assert (await model.ainvoke([("system", "be right"), ("human", "37+58=")])).content == "95"
    assert "".join([piece.content async for piece in model.astream("37+58=")]) == "95"
    at_alpha = model.bind(model="mesh", extra_body={"alpha": 0.2})
    assert at_alpha.invoke("37+58=").content == "95"
    wrong = ChatOpenAI(model="nobody", base_url=f"{lab.url}/v1", api_key=key[0], max_retries=0)
    with pytest.raises(openai.NotFoundError, match="'nobody'; it must be one of mesh"):
        wrong.invoke("37+58=")


def test_curl(lab: Server, key: tuple[str, Path]) -> None:
    body = json.dumps({"model": "large", "messages": SUM})
    command = ["curl", "-sS", f"{lab.url}/v1/chat/completions", "-H", "Content-Type: application/json", "-d", body]
    told = subprocess.run(
        [*command, "-H", f"Authorization: Bearer {key[0]}"], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(told.stdout)["choices"][0]["message"]["content"] == "95"
    told = subprocess.run([*command, "-w", "%{http_code}"], capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout.endswith("401")


def test_a_grpc_client_that_is_made_from_the_proto_alone(lab: Server, key: tuple[str, Path], tmp_path: Path) -> None:
    told = ask_as_a_stranger(tmp_path, lab, key[0], "large", "37+58=")
    assert (told["text"], told["streamed"], told["verdict"]) == ("95", "95", "answered")
    assert told["agents"] == ["nano", "micro", "mini", "base", "large"]
    assert told["without_key"] == "UNAUTHENTICATED"


def test_what_is_refused(lab: Server, key: tuple[str, Path]) -> None:
    """Also through Ray Serve's proxy, which stands before our own checks."""
    user = {"Authorization": f"Bearer {key[0]}"}
    chat = {"model": "large", "messages": SUM}
    large = {**chat, "messages": [{"role": "user", "content": "x" * 1_100_000}]}
    for path, body, headers, status, code in (
        ("chat/completions", chat, {}, 401, "invalid_api_key"),
        ("chat/completions", chat, {"Authorization": "Bearer mesh-wrong"}, 401, "invalid_api_key"),
        ("mesh/agents", {"name": "x"}, user, 403, "admin_only"),
        ("chat/completions", large, user, 413, "too_large"),
        ("chat/completions", {**chat, "messages": SUM * 300}, user, 400, "too_many_messages"),
        ("chat/completions", {**chat, "alpha": 2}, user, 400, "invalid_value"),
    ):
        answer = httpx.post(f"{lab.url}/v1/{path}", json=body, headers=headers, timeout=60)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert httpx.delete(f"{lab.url}/v1/mesh/agents/nano", headers=user, timeout=60).status_code == 403
    assert httpx.put(f"{lab.url}/v1/mesh", headers=user, timeout=60).headers["allow"] == "GET"


# ---------------------------------------------------------------------------------- real LLMs


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.timeout(900)
def test_three_llms(tmp_path: Path) -> None:
    """The pool ``small`` on vLLM: all four kinds of clients get words, at once and as a stream."""
    pytest.importorskip("vllm")
    names = ("smollm2-135m", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b")
    if missing := [name for name in names if not (MODELS / name).is_dir()]:
        pytest.skip(f"the pool small wants {', '.join(missing)} in {MODELS} (MESH_MODELS)")
    question: Any = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
    for server in serving("small", "--models-dir", str(MODELS), log=tmp_path / "log", within_s=400):
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=300) as client:
            reply: Any = client.chat.completions.create(model="mesh-alpha-0.2", messages=question, max_tokens=24)
            assert "Paris" in reply.choices[0].message.content
            assert reply.mesh["agent"] in names
            stream = client.chat.completions.create(model=names[2], messages=question, stream=True, max_tokens=24)
            texts = [chunk.choices[0].delta.content or "" for chunk in stream]
            assert "Paris" in "".join(texts)
            assert reply.usage.completion_tokens > 0
        chain: Any = ChatOpenAI(model=names[1], base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=300)
        assert len([piece.content for piece in chain.stream("Count from one to five.") if piece.content]) > 1
        told = ask_as_a_stranger(tmp_path, server, "", names[2], question[0]["content"])
        assert "Paris" in told["text"]
        assert "Paris" in told["streamed"]
