"""Named meshes on a Ray cluster that outlive whoever started them: up, down, connect."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray

from agents.actor import CALLS, NAMESPACE, PROBE_S, call
from agents.errors import ConfigError, MeshClosed, MeshError
from agents.spec import AgentSpec
from mesh.assemble import agent_specs, models_folder
from mesh.client import Mesh
from mesh.config import MeshConfig, load, with_overrides
from mesh.control import OwnControl, supervise
from mesh.desired import Desired
from mesh.directory import Directory
from mesh.members import Saved
from mesh.runtimes.ray import ON_HEAD, RayRuntime, is_ray_start, join_cluster, start_cluster, starter
from mesh.tracing import Trace
from mesh.versions import Version
from topologies import TopologyError

log = logging.getLogger(__name__)
M = TypeVar("M", bound=Mesh)
EMBEDDED = "lab"  # the pool that is asked where no mesh is up
_SUFFIX = "/@supervisor"
_MARK = "--node-name=started-by-mesh-up"  # by which `down` knows the Ray that it may stop
_FRESH_S = 2.0  # how long a client trusts what it knows of the members
_CLOSE_S = 30.0  # what a supervisor may take to end everybody
_READS = ("directory", "status", "info")  # what may be asked twice
_STATUS_S = 30.0  # and to ask everybody, some of whom may be silent


@dataclass(frozen=True, slots=True)
class Info:
    """A running mesh."""

    name: str
    config: MeshConfig


class SupervisorActor(OwnControl):
    """The supervisor of a mesh that outlives its starter, as a detached actor."""

    def __init__(self, info: Info, specs: Mapping[str, AgentSpec]) -> None:
        logging.basicConfig(level=logging.INFO)
        config = info.config
        self._info, self._trace, self._desired = info, Trace(config.trace), Desired(info.name)
        runtime = RayRuntime(info.name, config, detached=True)
        super().__init__(supervise(config, specs, runtime, self._trace, self._save))
        self._ready, self._missed = asyncio.Event(), runtime.balance.missed
        self._saved = self._desired.read()
        if self._saved is not None:  # Ray has started this again: its process or its node had died
            ray.get_runtime_context().current_actor.resume.remote()

    async def start(self) -> Directory:
        directory = await self._supervisor.start()
        self._begin()
        return directory

    async def resume(self) -> None:
        """Take over from the supervisor before."""
        assert self._saved is not None
        there = {f"{self._info.name}/{address}" for address in self._saved.up}
        try:
            _kill(actor for actor in _members(self._info.name) if actor not in there and not actor.endswith(_SUFFIX))
            await self._supervisor.resume(self._saved)
        except Exception:  # nobody waits for this call
            log.exception("mesh %r cannot be taken up again", self._info.name)
            raise
        self._begin()

    def _save(self, saved: Saved) -> None:
        try:
            self._desired.write(saved)
        except ray.exceptions.RayError as error:  # Ray's head is away: the mesh goes on, the next change is written
            log.error("what mesh %r is to be could not be kept: %s", self._info.name, error)

    def _begin(self) -> None:
        self._ready.set()
        self.watch()

    async def directory(self, *missed: str) -> Directory:
        await self._ready.wait()
        self._missed.update(missed)
        return await super().directory()

    async def info(self) -> Info:
        return self._info

    async def close(self) -> None:
        self._desired.forget()  # first: else it would be taken up again
        await super().close()
        self._desired.forget()
        self._trace.close()


class RunningControl:
    """A client's hold on a mesh that runs already; closing it ends nothing."""

    def __init__(self, info: Info, supervisor: Any) -> None:
        self.runtime = RayRuntime(info.name, info.config)
        self.runtime.renew = self._renew
        self._name, self._supervisor = info.name, supervisor
        self._known: Directory | None = None
        self._until = 0.0
        self._reading = asyncio.Lock()
        self._refreshing: asyncio.Task[None] | None = None

    async def directory(self) -> Directory:
        """Who is there; no query waits for a supervisor that has much to do: it is asked beside."""
        if self._known is None:
            return await self._read()
        if time.monotonic() > self._until and (self._refreshing is None or self._refreshing.done()):
            self._refreshing = asyncio.create_task(self._refresh())
        return self._known

    async def _refresh(self) -> None:
        try:
            await self._read()
        except MeshClosed:
            self._known = None  # whoever asks next is told

    async def _renew(self) -> None:
        """Read the directory again: one of those in it is gone."""
        asked = time.monotonic()
        async with self._reading:
            if self._until - _FRESH_S < asked:  # else somebody has just done so
                await self._read()

    async def _read(self) -> Directory:
        try:
            async with asyncio.timeout(PROBE_S):
                self._learn(await self._reach("directory", *self.runtime.take_missed()))
        except (MeshClosed, TimeoutError) as error:
            if self._known is None or not _members(self._name):
                raise MeshClosed(f"mesh {self._name!r} is down ({str(error) or 'no answer'})") from None
            log.error("%s: those known before are asked", str(error) or f"no answer from mesh {self._name!r}")
        self._until = time.monotonic() + _FRESH_S
        assert self._known is not None
        return self._known

    def _learn(self, directory: Directory) -> None:
        self._known, self._until = directory, time.monotonic() + _FRESH_S
        self.runtime.know(directory)

    async def add(self, spec: AgentSpec) -> Directory:
        return await self._changed("add", spec)

    async def remove(self, name: str, drain_s: float = 0.0) -> Directory:
        return await self._changed("remove", name, drain_s)

    async def scale(self, name: str, replicas: int, drain_s: float = 0.0) -> Directory:
        return await self._changed("scale", name, replicas, drain_s)

    async def upgrade(self, spec: AgentSpec, drain_s: float = 0.0) -> Directory:
        return await self._changed("upgrade", spec, drain_s)

    async def update(self, name: str, version: Version | None) -> None:
        await self._reach("update", name, version)

    async def status(self) -> list[dict[str, Any]]:
        try:
            async with asyncio.timeout(_STATUS_S):
                rows: list[dict[str, Any]] = await self._reach("status")
        except TimeoutError:
            raise MeshClosed(f"mesh {self._name!r} does not tell its status: its supervisor hangs") from None
        return rows

    async def close(self) -> None:
        """Nothing: the mesh goes on."""

    async def _changed(self, method: str, *args: Any) -> Directory:
        directory: Directory = await self._reach(method, *args)
        self._learn(directory)  # who asked meanwhile heard of the old one
        return directory

    async def _reach(self, method: str, *args: Any) -> Any:
        """Call the supervisor; where it has died, the one of its name since, after `mesh down` and `mesh up`."""
        try:
            try:
                return await self._call(method, *args)
            except ray.exceptions.RayActorError:
                found = ray.get_actor(self._name + _SUFFIX, namespace=NAMESPACE)
                if found._actor_id == self._supervisor._actor_id:  # it may have done it: not twice
                    raise
                self._supervisor = found
                return await self._call(method, *args)
        except ray.exceptions.RayTaskError as error:
            raise _ours(error) from None
        except (ray.exceptions.RayActorError, ValueError):
            raise MeshClosed(
                f"mesh {self._name!r} is down, or at least its supervisor, so that nobody restarts its agents: "
                "`mesh down` ends what is left of it, `mesh up` starts it anew"
            ) from None

    async def _call(self, method: str, *args: Any) -> Any:
        """Call the supervisor; while Ray starts it again, what only reads waits for it."""
        until = time.monotonic() + PROBE_S
        while True:
            try:
                return await call(self._supervisor, method, *args)
            except ray.exceptions.ActorUnavailableError:
                if method not in _READS or time.monotonic() > until:
                    raise
                await asyncio.sleep(0.2)


def up(
    source: str | Path | Mapping[str, Any] | MeshConfig,
    name: str | None = None,
    address: str | None = None,
    models_dir: str | Path | None = None,
) -> Info:
    """Start a named mesh that stays up after this process; on a machine without Ray, that too is started.

    Raises:
        ConfigError: the pool is wrong, or a mesh of this name runs already.
        PlacementError: an agent finds no place; nothing stays behind.
    """
    config = load(source)
    if config.runtime != "ray" or name not in (None, config.name):
        config = with_overrides(config, runtime="ray", name=config.name if name is None else name)
    specs = agent_specs(config, models_folder(models_dir))
    if not join_cluster(address):
        start_cluster(_MARK)
    try:
        info = Info(config.name, config)
        if _members(info.name):
            raise ConfigError(f"name: a mesh {info.name!r} is up already; take it down, or choose another name")
        Desired(info.name).forget()
        options = {"name": info.name + _SUFFIX, "namespace": NAMESPACE, "lifetime": "detached", "num_cpus": 0}
        options["max_restarts"] = -1  # agents it starts again itself, and only it; itself is started again by Ray
        options["resources"] = ON_HEAD  # it needs what Ray's head keeps, and cannot outlive it anywhere
        supervisor = ray.remote(SupervisorActor).options(**options, max_concurrency=CALLS).remote(info, specs)
        try:
            _get(supervisor.start.remote())
        except BaseException:  # Ctrl-C too: whatever has started is detached, and would stay
            _end(info.name)
            raise
    except BaseException:
        _stop_ray()
        raise
    return info


def down(name: str | None = None, address: str | None = None) -> str:
    """End a named mesh and nothing else; after the last one also the Ray that ``up`` started. Returns its name.

    Of a mesh that has lost its supervisor, what is left is ended.

    Raises:
        ConfigError: there is no such mesh, or several and no name.
    """
    try:
        name = _find(name, address)[1].name
    except (ConfigError, MeshClosed):
        if name is None or not _members(name):
            raise
    _end(name)
    _stop_ray()
    return name


def connect(name: str | None = None, address: str | None = None) -> Mesh:
    """A ``Mesh`` that asks a running one; closing it ends nothing.

    Raises:
        ConfigError: there is no such mesh, or several and no name.
    """
    return connect_as(Mesh, name, address)


def connect_as(kind: type[M], name: str | None = None, address: str | None = None) -> M:
    """``connect``, with a class of its own that derives from ``Mesh``."""
    supervisor, info = _find(name, address)

    async def control() -> RunningControl:
        return RunningControl(info, supervisor)

    return kind(info.config, control=control)


def find(name: str | None = None, address: str | None = None) -> Info:
    """The running mesh of that name, or the only one. Raises ConfigError as ``connect``."""
    return _find(name, address)[1]


def default(tell: Callable[[str], object] = log.info) -> Mesh:
    """The mesh that is up; where none is, and so it ``tell``s, the pool whose models come with the package.

    Raises:
        ConfigError: several are up.
    """
    if running():
        return connect()
    tell(f"no mesh is up: asking the pool {EMBEDDED!r} (`mesh pools` shows the others)")
    return Mesh.from_yaml(EMBEDDED)


def running(address: str | None = None) -> list[str]:
    """Names of the meshes that run on the cluster."""
    if not join_cluster(address):
        return []
    return sorted(each.removesuffix(_SUFFIX) for each in _actors() if each.endswith(_SUFFIX))


def _actors() -> list[str]:
    if not ray.is_initialized():  # else Ray would look for a cluster by itself, for minutes
        return []
    actors = ray.util.list_named_actors(all_namespaces=True)
    return [actor["name"] for actor in actors if actor["namespace"] == NAMESPACE]


def _members(name: str) -> list[str]:
    """What runs of a mesh: its agents' actors, and its supervisor's where that still lives."""
    return [actor for actor in _actors() if actor.rpartition("/")[0] == name]


def _end(name: str) -> None:
    """End all that runs of a mesh, in good order where its supervisor still answers."""
    try:
        supervisor = ray.get_actor(name + _SUFFIX, namespace=NAMESPACE)
        ray.get(supervisor.close.remote(), timeout=_CLOSE_S)
    except (ValueError, ray.exceptions.RayError) as error:
        log.warning("the supervisor of mesh %r cannot end it: %s", name, error)
    Desired(name).forget()
    _kill(sorted(_members(name), reverse=True))  # the supervisor last
    Desired(name).forget()


def _kill(actors: Iterable[str]) -> None:
    for actor in actors:
        with contextlib.suppress(ValueError):  # it has ended by itself
            ray.kill(ray.get_actor(actor, namespace=NAMESPACE))


def _find(name: str | None, address: str | None) -> tuple[Any, Info]:
    names = running(address)
    if name is None and len(names) == 1:
        name = names[0]
    if name not in names:
        told = f"up are {', '.join(names)}" if names else "none is up; start one with `mesh up POOL`"
        if name is not None and _members(name):
            told = "its supervisor has died; `mesh down` ends the agents it has left, `mesh up` starts it anew"
        raise ConfigError(f"name: {'which mesh?' if name is None else f'no mesh {name!r}'}: {told}")
    supervisor = ray.get_actor(name + _SUFFIX, namespace=NAMESPACE)
    return supervisor, _get(supervisor.info.remote(), _CLOSE_S)


def _get(call: Any, within_s: float | None = None) -> Any:
    try:
        return ray.get(call, timeout=within_s)
    except ray.exceptions.RayTaskError as error:
        raise _ours(error) from None
    except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError) as error:
        raise MeshClosed(f"the supervisor of the mesh has died, or does not answer ({type(error).__name__})") from error


def _ours(error: ray.exceptions.RayTaskError) -> Exception:
    """What one of us has raised over there; else Ray's error, whose text is a traceback."""
    cause = error.cause
    return cause if isinstance(cause, MeshError | TopologyError) else error


def _stop_ray() -> None:
    """End the Ray that ``up`` started, once no mesh runs on it, and wait until it is gone."""
    if not ray.is_initialized() or running() or not is_ray_start(pid := starter(), _MARK):
        return
    ray.shutdown()
    os.kill(pid, signal.SIGTERM)  # its --block ends its children
    until = time.monotonic() + 20
    while is_ray_start(pid) and time.monotonic() < until:
        time.sleep(0.2)
