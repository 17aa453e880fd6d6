"""The server's pure parts: model names, keys, limits, the gate, errors, wire types, and what it is told to start."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import signal
import time
import types
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from typer.testing import CliRunner, Result

import agents.errors
import mesh.cli
from agents.errors import ConfigError, MeshClosed, MeshError
from agents.messages import Hop, Reply
from benchmarks.results import routing
from benchmarks.served import free_port
from mesh.ingress import command, wire
from mesh.ingress.errors import STATUSES, Refused, refusal
from mesh.ingress.gate import Bucket, Gate
from mesh.ingress.keys import Key, Keys, bearer, environment_keys, gather_keys, new_key, read_keys
from mesh.ingress.ledger import Ledger, LedgerActor, Record, SharedLedger
from mesh.ingress.limits import Limits, read_limits
from mesh.ingress.meters import COUNTERS, GAUGES, HISTOGRAMS, measure
from mesh.ingress.names import Model, read_alpha, read_model
from mesh.ingress.page import page
from mesh.ingress.settings import Settings

REPO = Path(mesh.cli.__file__).parents[1]
AGENTS = ("small", "mesh-alpha-tester", "large")


# ---------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("mesh", Model()),
        ("mesh-alpha-0.3", Model(alpha=0.3)),
        ("mesh-alpha-0", Model(alpha=0.0)),
        ("mesh-alpha-1.0", Model(alpha=1.0)),
        ("large", Model(agent="large")),
        ("mesh-alpha-tester", Model(agent="mesh-alpha-tester")),  # an agent's name is an agent's name
    ],
)
def test_names_of_models(name: str, model: Model) -> None:
    assert read_model(name, AGENTS) == model


@pytest.mark.parametrize("name", ["mesh-alpha-1.1", "mesh-alpha--1", "mesh-alpha-", "mesh-alpha-1e0", "mesh-alpha-inf"])
def test_an_alpha_that_is_none(name: str) -> None:
    with pytest.raises(Refused, match="it must be a number from 0") as caught:
        read_model(name, AGENTS)
    assert (caught.value.status, caught.value.param) == (400, "model")


@pytest.mark.parametrize("name", ["", "Mesh", "mesh ", "gpt-4", "tiny"])
def test_a_model_that_is_not_there(name: str) -> None:
    with pytest.raises(Refused, match=f"model: {name!r}; it must be one of mesh, .*, small, ") as caught:
        read_model(name, AGENTS)
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")


def test_whose_alpha_counts() -> None:
    model = Model(alpha=0.3)
    assert [read_alpha(*given, model) for given in [(0.1, "0.2"), (0, "0.2"), (None, "0.2"), (None, None)]] == [
        0.1, 0, 0.2, 0.3,
    ]  # fmt: skip
    assert read_alpha(None, None, Model()) is None


# ---------------------------------------------------------------------------------- keys


def test_keys_are_kept_as_hashes() -> None:
    (ada, line), (root, admin_line) = new_key("ada", "user"), new_key("root", "admin")
    assert line == f"user ada sha256:{hashlib.sha256(ada.encode()).hexdigest()}"
    keys = Keys(read_keys(f"# who may ask\n\n{line}\n  {admin_line}  \n"))
    assert (keys.find(ada), keys.find(root)) == (keys.keys[0], keys.keys[1])
    assert (keys.keys[0].name, keys.keys[0].role, keys.keys[1].role) == ("ada", "user", "admin")
    assert ada not in repr(keys.keys)
    for wrong in ("", ada + " ", ada.upper(), "\ud800", line):
        assert keys.find(wrong) is None
    assert not Keys()


def test_a_key_file_that_is_none_does_not_tell_what_stands_in_it() -> None:
    for line in ("user ada mesh-secret", "king ada sha256:" + "0" * 64, "user a/b sha256:" + "0" * 64, "mesh-secret"):
        with pytest.raises(ConfigError, match=r"keys\.txt:2: no key; it must be `user") as caught:
            read_keys("\n" + line, "keys.txt")
        assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match="'ada' has the name of another"):
        read_keys("\n".join(new_key("ada", "user")[1] for _ in range(2)))


def test_keys_of_the_environment_are_taken_out_of_it(tmp_path: Path) -> None:
    environ = {"MESH_USER_KEYS": "a" * 20 + ", " + "b" * 20, "MESH_ADMIN_KEYS": "c" * 20, "HOME": "/"}
    (tmp_path / "keys").write_text(new_key("ada", "user")[1])
    found = gather_keys(tmp_path / "keys", environ)
    assert [(key.name, key.role) for key in found] == [
        ("ada", "user"), ("user-1", "user"), ("user-2", "user"), ("admin-1", "admin"),
    ]  # fmt: skip
    assert environ == {"HOME": "/"}
    assert Keys(found).find("c" * 20) == found[-1]
    with pytest.raises(ConfigError, match="MESH_USER_KEYS: key 2 has 5 characters") as caught:
        environment_keys({"MESH_USER_KEYS": "a" * 20 + ",short"})
    assert "short" not in str(caught.value)


def test_bearer_keys() -> None:
    assert bearer("Bearer abc") == bearer("bearer  abc ") == "abc"
    assert [bearer(each) for each in (None, "", "Bearer", "Bearer ", "Basic abc", "abc")] == [None] * 6


# ---------------------------------------------------------------------------------- limits and the gate


def test_limits() -> None:
    limits = read_limits(["streams=3", "queue_s=0.5"])
    assert (limits.streams, limits.queue_s, limits.messages) == (3, 0.5, Limits().messages)
    assert (limits.share(2).streams, limits.share(4).streams, limits.share(4).queue_s) == (2, 1, 0.5)
    for wrong, words in (
        ("streams", "limit: 'streams'; it must be NAME=NUMBER"),
        ("floods=3", "limit: 'floods=3'; .* NAME one of body_bytes"),
        ("streams=0", "limit streams: '0'; Input should be greater"),
        ("queue_s=nan", "limit queue_s: 'nan'"),
        ("body_bytes=much", "limit body_bytes: 'much'; Input should be a valid integer"),
    ):
        with pytest.raises(ConfigError, match=words):
            read_limits([wrong])


def test_a_bucket_fills_steadily() -> None:
    bucket = Bucket(60, now=0.0)
    assert [bucket.take(0.0) for _ in range(60)] == [0.0] * 60
    assert bucket.take(0.0) == pytest.approx(1.0)  # one a second
    assert bucket.take(0.25) == pytest.approx(0.75)
    assert (bucket.take(1.0), bucket.take(1.0)) == (0.0, pytest.approx(1.0))
    assert [bucket.take(1_000.0) for _ in range(61)] == [0.0] * 60 + [pytest.approx(1.0)]  # no more than it holds


async def test_the_queue_is_first_come_first_served_and_survives_those_who_leave() -> None:
    gate, order = Gate(Limits(running=1, waiting=3)), list[int]()

    async def come(number: int) -> None:
        async with gate.admitted("", streams=False):
            order.append(number)
            await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(come(number)) for number in range(4)]
    await asyncio.sleep(0)
    assert (gate.running, gate.waiting) == (1, 3)
    with pytest.raises(Refused, match="3 queries wait already"):
        await come(9)
    tasks[2].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (order, gate.running, gate.waiting) == ([0, 1, 3], 0, 0)


async def test_in_a_full_queue_the_last_of_the_lowest_priority_gives_way() -> None:
    gate, order = Gate(Limits(running=1, waiting=3)), list[str]()

    async def come(name: str) -> None:
        async with gate.admitted("", False, name.partition(" ")[0]):
            order.append(name)
            await asyncio.sleep(0.01)

    names = ("normal 0", "low 1", "low 2", "normal 3", "high 4", "low 5", "high 6", "high 7", "high 8")
    tasks = [asyncio.create_task(come(name)) for name in names]
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert order == ["normal 0", "high 4", "high 6", "high 7"]
    refusals = {name: str(error) for name, error in zip(names, done, strict=True) if isinstance(error, Refused)}
    gave_way = "it gave way to a query of higher priority"
    assert refusals == {
        **dict.fromkeys(("low 1", "low 2", "normal 3"), gave_way),
        **dict.fromkeys(("low 5", "high 8"), "3 queries wait already"),
    }
    assert (gate.running, gate.waiting) == (0, 0)


async def test_a_turn_that_comes_as_one_leaves_is_handed_on() -> None:
    gate, order = Gate(Limits(running=1, waiting=3)), list[int]()

    async def come(number: int) -> None:
        async with gate.admitted("", streams=False):
            order.append(number)

    first = gate.admitted("", streams=False)
    await first.__aenter__()
    second, third = asyncio.create_task(come(2)), asyncio.create_task(come(3))
    await asyncio.sleep(0)
    await first.__aexit__(None, None, None)  # it is the second's turn, which has not woken up yet
    second.cancel()
    await asyncio.gather(second, third, return_exceptions=True)
    assert (order, gate.running, gate.waiting) == ([3], 0, 0)


# ---------------------------------------------------------------------------------- errors


def test_every_error_of_the_mesh_has_a_status() -> None:
    kinds = [
        kind
        for kind in vars(agents.errors).values()
        if isinstance(kind, type) and issubclass(kind, MeshError) and kind is not MeshError
    ]
    told = {kind.__name__: refusal(kind("query[0]: x")) for kind in kinds}
    assert {name: (each.status, each.code) for name, each in told.items()} == {
        "ConfigError": (400, "invalid_value"),
        "ModelNotFound": (400, "invalid_value"),
        "AdapterError": (400, "invalid_value"),
        "QueryError": (400, "invalid_value"),
        "NotUnderstood": (400, "not_understood"),
        "QueryTooLong": (400, "context_length_exceeded"),
        "BudgetExceeded": (400, "budget_exceeded"),
        "PlacementError": (503, "no_place"),
        "AgentError": (502, "agent_failed"),
        "AgentDied": (502, "agent_failed"),
        "AgentStalled": (502, "agent_failed"),
        "AgentBusy": (503, "busy"),
        "EngineError": (502, "agent_failed"),
        "NoAgentLeft": (502, "no_agent_left"),
        "DeadlineExceeded": (504, "deadline_exceeded"),
        "MeshClosed": (503, "mesh_down"),
    }
    assert {each.status for each in told.values()} <= set(STATUSES)
    assert told["QueryError"].body == {
        "error": {
            "message": "messages[0]: x", "type": "invalid_request_error", "param": "messages", "code": "invalid_value",
        }
    }  # fmt: skip
    assert told["AgentBusy"].headers == {"Retry-After": "1"}
    assert told["DeadlineExceeded"].headers == {"X-Should-Retry": "false"}
    ours = refusal(ZeroDivisionError("a prompt"))
    assert (ours.status, "prompt" in ours.message) == (500, False)


def test_a_long_message_is_cut() -> None:
    assert len(refusal(ConfigError("x" * 5_000)).message) == 1_000


# ---------------------------------------------------------------------------------- wire

PATH = (Hop("a", "refused", 0.1, 0.1, 7, 1, 0.01), Hop("b", "failed", None, 0.2, 7, 2, reason="died"))
REPLY = Reply("id", "one two", "c", 0.5, 0.9, 1.2, (*PATH, Hop("c", "answered", 0.8, 0.3, 9, 3, 0.9)), 0.6, 0.4, 2)


def test_a_whole_reply() -> None:
    body = wire.Shape("chat", "id", "mesh", 1_700_000_000).whole(REPLY)
    read = ChatCompletion.model_validate(body)
    assert (read.choices[0].message.content, read.choices[0].finish_reason) == ("one two", "stop")
    assert body["usage"] == {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}  # 2 of them b's
    assert (body["mesh"]["confidence"], body["mesh"]["path"][1]["reason"]) == (0.8, "died")


def test_a_stream_of_chunks() -> None:
    shape = wire.Shape("chat", "id", "mesh", 1_700_000_000, count=True)
    chunks = [shape.piece("one "), shape.piece("two"), *shape.last(REPLY)]
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:3]]
    assert deltas == [{"content": "one ", "role": "assistant"}, {"content": "two"}, {}]
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["total_tokens"]) == ([], 14)


def test_a_reply_without_text_has_a_role() -> None:
    (end,) = wire.Shape("chat", "id", "mesh", 0).last(REPLY)
    assert end["choices"][0]["delta"] == {"role": "assistant", "content": ""}


async def test_the_ledger_forgets_the_oldest() -> None:
    ledger = Ledger(kept=2)
    for number in range(3):
        await ledger.write(Record(str(number), "ada" if number else "bob", float(number), 0.5, REPLY))
    assert await ledger.find("0") is None
    assert [record.id for record in await ledger.last(5, None)] == ["2", "1"]
    assert [record.id for record in await ledger.last(1, "ada")] == ["2"]
    assert await ledger.last(5, "bob") == []
    assert [await ledger.judge("2", True), await ledger.judge("2", False), await ledger.judge("0", True)] == [
        True, False, False,
    ]  # fmt: skip
    (record,) = await ledger.last(1, None)
    assert record.told()["right"] is True


async def test_records_that_come_meanwhile_are_sent_together() -> None:
    there, calls = LedgerActor(), list[int]()

    class Here(SharedLedger):
        async def _reach(self, method: str, *args: Any) -> Any:
            await asyncio.sleep(0.01)
            before = len(await there.last(99, None))
            await getattr(there, method)(*args)
            calls.append(len(await there.last(99, None)) - before)
            if len(calls) == 1:
                raise MeshClosed("it does not answer")  # costs nobody else anything

    ledger = Here("lab")
    await asyncio.gather(*(ledger.write(Record(str(n), "ada", float(n), 0.5, REPLY)) for n in range(5)))
    assert calls == [1, 4]
    assert await there.last(1, None) == [Record("4", "ada", 4.0, 0.5, REPLY)]
    await ledger.write(Record("5", "ada", 5.0, 0.5, error="busy"))
    assert calls == [1, 4, 1]


# ---------------------------------------------------------------------------------- starting it


def test_who_is_let_in_without_keys() -> None:
    key = Key("ada", "user", "0" * 64)
    for host in ("127.0.0.1", "::1", "localhost", "127.8.9.10"):
        assert Settings("lab", host).local_only
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.com", ""):
        with pytest.raises(ConfigError, match=f"host: {host!r}; without API keys"):
            Settings("lab", host)
        assert not Settings("lab", host, keys=(key,)).local_only
        assert not Settings("lab", host, insecure=True).local_only


@pytest.fixture
def serving() -> Any:
    """The module, which takes a while to import."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray Serve's own
        from mesh.ingress import serving
    return serving


@pytest.fixture
def signals() -> Iterator[None]:
    """Whoever listens to signals does so no longer afterwards."""
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


def test_a_serve_with_options_of_its_own_is_not_taken(serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would ignore ours, certificates among them, and serve without."""
    actors = [{"name": "lab/nano", "namespace": "mesh"}]
    status = types.SimpleNamespace(applications={})
    monkeypatch.setattr(serving.serve, "status", lambda: status)
    monkeypatch.setattr(serving.ray.util, "list_named_actors", lambda all_namespaces: actors)
    serving._check_free(Settings("lab", port=free_port()))
    actors.append({"name": "SERVE_CONTROLLER_ACTOR", "namespace": "serve"})
    with pytest.raises(ConfigError, match=r"Ray Serve runs on this cluster already.*certificates"):
        serving._check_free(Settings("lab", port=free_port()))


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_start_can_be_broken_off(serving: Any, monkeypatch: pytest.MonkeyPatch, sent: signal.Signals) -> None:
    ending = command._Ending()
    ended: list[str] = []

    def starts(settings: Settings) -> None:
        try:
            os.kill(os.getpid(), sent)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), sent)  # once more, while it cleans up
            ended.append("cleaned up")

    monkeypatch.setattr(serving, "start", starts)
    with pytest.raises(KeyboardInterrupt):
        command._serve_until_told(Settings("lab"), ending)
    assert ended == ["cleaned up"]


@pytest.mark.usefixtures("signals")
def test_what_is_served_ends_when_told(serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []
    monkeypatch.setattr(serving, "start", lambda settings: None)
    monkeypatch.setattr(serving, "stop", lambda settings: ended.append(settings.mesh))
    monkeypatch.setattr(command, "_tell", lambda settings: os.kill(os.getpid(), signal.SIGTERM))
    command._serve_until_told(Settings("lab"), command._Ending())
    assert ended == ["lab"]


def test_serve_is_shut_down_also_where_the_application_cannot_be_deleted(
    serving: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    down: list[str] = []

    def fails(name: str) -> None:
        raise RuntimeError("it will not go")

    def none(name: str, namespace: str) -> None:
        raise ValueError

    monkeypatch.setattr(serving.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(serving.ray, "get_actor", none)
    monkeypatch.setattr(serving.serve, "delete", fails)
    monkeypatch.setattr(serving.serve, "shutdown", lambda: down.append("down"))
    applications = {serving.APP: object()}
    monkeypatch.setattr(serving.serve, "status", lambda: SimpleNamespace(applications=applications))
    serving.stop(Settings("lab"))
    assert down == ["down"]
    assert "it will not go" in caplog.text
    applications["another"] = object()
    serving.stop(Settings("lab"))
    assert down == ["down"]


def run(*words: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(mesh.cli.app, words)


def test_the_command_says_what_is_wrong_before_it_starts_anything(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("mesh-secret\n")
    for words, told in (
        (["nowhere"], "unknown pool 'nowhere'"),
        (["lab", "--host", "0.0.0.0"], "host: '0.0.0.0'; without API keys"),
        (["lab", "--port", "70000"], "port: 70000; it must be a port"),
        (["lab", "--replicas", "0"], "replicas: 0; it must be 1 or more"),
        (["lab", "--grpc-port", "8000"], "grpc_port: 8000; it must be another port"),
        (["lab", "--limit", "streams"], "limit: 'streams'"),
        (["lab", "--keys", str(tmp_path / "keys")], "keys:1: no key"),
        (["lab", "--results", str(tmp_path / "keys")], "it must be a result of `mesh bench routing`"),
    ):
        result = run("serve", *words)
        assert (result.exit_code, result.stdout) == (2, "")
        assert told in result.stderr


@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")  # Ray Serve's own
def test_the_deploy_file() -> None:
    from ray.serve.schema import ServeDeploySchema

    words = ("--replicas", "3", "--print-config", "--limit", "streams=9", "--port", "8123", "--results", str(routing()))
    result = run("serve", "lab", *words)
    assert result.exit_code == 0, result.stderr
    file = yaml.safe_load(result.stdout)
    ServeDeploySchema.model_validate(file)
    (application,) = file["applications"]
    assert application["import_path"] == "mesh.ingress.deploy:app"
    assert (application["args"]["pool"], application["args"]["limits"]["streams"]) == ("lab", 9)
    assert application["args"]["results_file"] == str(routing())
    assert file["http_options"] == {"host": "127.0.0.1", "port": 8123}


def test_a_key_is_made() -> None:
    result = run("key", "ada", "--role", "admin")
    (key,) = read_keys(result.stdout)
    assert (key.name, key.role) == ("ada", "admin")
    assert Keys([key]).find(result.stderr.strip()) == key
    assert run("key", "a/b").exit_code == 2


# ---------------------------------------------------------------------------------- what is measured


class Written:
    """Keeps what is measured."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, float, dict[str, str]]] = []

    def count(self, name: str, by: float, tags: Mapping[str, str]) -> None:
        assert set(tags) == set(COUNTERS[name][1])
        self.seen.append((name, by, dict(tags)))

    def observe(self, name: str, value: float, tags: Mapping[str, str]) -> None:
        assert set(tags) == set(HISTOGRAMS[name][2])
        self.seen.append((name, value, dict(tags)))

    def level(self, name: str, value: float) -> None:
        assert name in GAUGES


def test_all_that_a_reply_tells_is_measured() -> None:
    meters = Written()
    measure(meters, REPLY)
    assert ("mesh_queries", 1, {"ended": "answered", "alpha": "0.5"}) in meters.seen
    verdicts = [tags["agent"] + " " + tags["verdict"] for name, _, tags in meters.seen if name == "mesh_verdicts"]
    assert verdicts == ["a refused", "b failed", "c answered"]
    assert sum(by for name, by, tags in meters.seen if tags.get("kind") == "generated") == 6
    assert ("mesh_hops", 3, {"alpha": "0.5"}) in meters.seen
    assert ("mesh_first_token_seconds", 0.4, {"alpha": "0.5"}) in meters.seen


def test_the_dashboard_shows_only_what_is_measured() -> None:
    dashboard = json.loads((REPO / "deploy" / "grafana.json").read_text(encoding="utf-8"))
    shown = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    endings = {name: f"ray_{name}_total" for name in COUNTERS} | {name: f"ray_{name}" for name in GAUGES}
    endings |= {name: f"ray_{name}_bucket" for name in HISTOGRAMS if name != "mesh_hops"} | {
        "mesh_hops": "ray_mesh_hops_sum"
    }
    assert [name for name, exported in endings.items() if exported not in shown] == []
    measured = {
        *endings.values(),
        *(f"ray_{name}_{part}" for name in HISTOGRAMS for part in ("sum", "count", "bucket")),
    }
    assert set(re.findall(r"ray_mesh_\w+", shown)) <= measured


def test_the_page_runs_nothing_but_its_own() -> None:
    answer = page(needs_key=False)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    html = bytes(answer.body).decode()
    assert "http://" not in html.replace("http://www.w3.org/", "")
    assert "https://" not in html
    assert '<meta name="mesh-keys" content="no">' in html
    assert '<meta name="mesh-keys" content="yes">' in bytes(page(needs_key=True).body).decode()
