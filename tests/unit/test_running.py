"""A client's hold on a running mesh, and a server's on its ledger, where what they call hangs, dies or is replaced."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError, RayTaskError

from agents.errors import ConfigError, MeshClosed, MeshError
from mesh import running
from mesh.config import load
from mesh.directory import Directory
from mesh.ingress import ledger
from mesh.ingress.errors import refusal
from mesh.ingress.ledger import LedgerActor, Record, SharedLedger
from mesh.running import Info, RunningControl
from mesh.runtimes import ray as runtime
from tests.serving import pool
from topologies import TopologyError

INFO = Info("test", load(pool({"a": {}})))


class Actor:
    """Every method of it is called as an actor's, and does the same."""

    def __init__(self, does: Callable[..., Awaitable[Any]]) -> None:
        self.remote = does

    def __getattr__(self, method: str) -> Actor:
        return self


async def hangs(*_: object) -> None:
    await asyncio.Event().wait()


def raises(error: Exception) -> Actor:
    async def fails(*_: object) -> None:
        raise error

    return Actor(fails)


async def rows(*_: object) -> list[dict[str, str]]:
    return [{"agent": "a"}]


async def test_a_supervisor_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_STATUS_S", 0.05)
    with pytest.raises(MeshClosed, match="its supervisor hangs"):
        await RunningControl(INFO, Actor(hangs)).status()


async def test_no_query_waits_for_a_supervisor_that_is_slow() -> None:
    answers = [Directory(None, {}), Directory(None, {}, frozenset("a"))]
    slow = asyncio.Event()

    async def directory(*_: object) -> Directory:
        if len(answers) == 1:
            await slow.wait()
        return answers.pop(0)

    control = RunningControl(INFO, Actor(directory))
    first = await control.directory()
    control._until = 0.0
    assert await control.directory() is first
    assert await control.directory() is first
    slow.set()
    assert control._refreshing is not None
    await control._refreshing  # the only one under way
    assert (await control.directory()).down == {"a"}


async def test_a_mesh_that_is_down_is_told_to_whoever_asks_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_members", lambda name: [])
    control = RunningControl(INFO, raises(RayActorError()))
    monkeypatch.setattr(ray, "get_actor", raises_value_error)
    control._known = Directory(None, {})
    await control.directory()
    assert control._refreshing is not None
    await control._refreshing
    with pytest.raises(MeshClosed, match="mesh 'test' is down"):
        await control.directory()


def raises_value_error(name: str, namespace: str) -> None:
    raise ValueError("there is no such actor")


async def test_the_supervisor_of_a_mesh_that_is_up_again_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Actor] = [Actor(rows)]

    def get_actor(name: str, namespace: str) -> Actor:
        if not found:
            raise ValueError("a Ray cluster at 10.0.0.1 has none")
        return found[0]

    monkeypatch.setattr(ray, "get_actor", get_actor)
    control = RunningControl(INFO, raises(RayActorError()))
    assert await control.status() == [{"agent": "a"}]
    found.clear()
    assert await control.status() == [{"agent": "a"}]  # and is known from now on
    with pytest.raises(MeshClosed, match="mesh 'test' is down, or at least its supervisor") as caught:
        await RunningControl(INFO, raises(RayActorError())).status()
    assert "10.0.0.1" not in str(caught.value)


async def test_what_a_supervisor_may_have_done_is_not_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[object]()

    async def unreachable(*args: object) -> None:
        calls.append(args)
        raise RayActorError

    same = Actor(unreachable)
    monkeypatch.setattr(ray, "get_actor", lambda name, namespace: same)
    with pytest.raises(MeshClosed):
        await RunningControl(INFO, same).update("a", None)
    assert calls == [("a", None)]


@pytest.mark.parametrize("cause", [ConfigError("name: x"), TopologyError("the last one"), ValueError("a secret")])
async def test_what_the_supervisor_raises_comes_without_rays_traceback(cause: Exception) -> None:
    error = RayTaskError("remove", "Traceback: /home/somebody, ip=10.0.0.1", cause).as_instanceof_cause()
    with pytest.raises(type(cause)) as caught:
        await RunningControl(INFO, raises(error)).remove("a")
    told = refusal(caught.value)
    if isinstance(cause, ConfigError | TopologyError):
        assert caught.value is cause
        assert (told.status, told.message) == (400, str(cause))
    assert not any(word in told.message for word in ("Traceback", "10.0.0.1", "secret"))
    assert "10.0.0.1" not in refusal(error).message


RECORD = Record("1", "ada", 0.0, 0.5, None, "busy")


async def test_a_ledger_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "_ANSWER_S", 0.05)
    monkeypatch.setattr(running, "running", lambda: ["test"])
    monkeypatch.setattr(ledger, "open_ledger", lambda mesh: Actor(hangs))
    books = SharedLedger("test")
    with pytest.raises(MeshClosed, match="does not answer"):
        await books.last(1, None)
    await books.write(RECORD)


async def test_a_mesh_that_is_up_again_gets_a_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    class Remote:
        """A ledger as an actor."""

        def __init__(self) -> None:
            self.books = LedgerActor()

        def __getattr__(self, method: str) -> Any:
            return Actor(getattr(self.books, method))

    up, opened = ["test"], [raises(RayActorError()), Remote()]
    monkeypatch.setattr(running, "running", lambda: up)
    monkeypatch.setattr(ledger, "open_ledger", lambda mesh: opened.pop(0))
    books = SharedLedger("test")
    await books.write(RECORD)
    assert await books.find("1") == RECORD
    up.clear()
    with pytest.raises(MeshClosed, match="mesh 'test' is down"):  # and none is left that belongs to nothing
        await SharedLedger("test").find("1")


@pytest.mark.parametrize("name", ["Berlin", "a/b", "", "."])
def test_a_mesh_has_a_name_that_others_can_say(name: str) -> None:
    """It stands in its actors' names, and tells other meshes where a query has been; told before Ray is touched."""
    with pytest.raises(ConfigError, match=r"name is .*should be a name of a-z"):
        running.up(pool({"a": {}}), name=name)


@pytest.mark.parametrize(("head", "private"), [("10.0.0.1", False), ("10.0.0.2", True)])
def test_a_process_of_this_machine_has_not_started_the_head_on_another(
    monkeypatch: pytest.MonkeyPatch, head: str, private: bool
) -> None:
    """The head's machine counts its processes, this one its own: one of the same number is another."""
    place = SimpleNamespace(gcs_address=f"{head}:6379")
    monkeypatch.setattr(runtime, "starter", os.getppid)  # it runs here, and is no `ray start`
    monkeypatch.setattr(ray, "get_runtime_context", lambda: place)
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "10.0.0.2")
    assert runtime._is_private() == private


def test_from_a_machine_that_is_none_of_the_clusters_one_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def finds_no_node_here(address: str) -> None:
        raise RuntimeError("No node info found matching attributes: ''")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # whatever other tests have left
    monkeypatch.setattr(runtime, "_answers", lambda address: True)
    monkeypatch.setattr(runtime, "_init", finds_no_node_here)
    with pytest.raises(MeshError, match=r"at 10\.0\.0\.1:6379 cannot be joined from here .*only its own machines"):
        runtime.join_cluster("10.0.0.1:6379")


@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")  # Ray Serve's own
def test_who_serves_is_where_the_address_is() -> None:
    from mesh.ingress.serving import deployment
    from mesh.ingress.settings import Settings

    made = deployment(Settings("lab", grpc_port=9000))._bound_deployment
    assert made.ray_actor_options["resources"] == {"node:__internal_head__": 0.001}
    assert made.ray_actor_options["num_cpus"] == 0
