"""Every agent an actor on a Ray cluster, pinned to the GPUs that it asks for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import ray
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray._private.utils import read_ray_address

from agents.actor import CALLS, NAMESPACE, actor_name, call
from agents.errors import AgentDied, AgentError, AgentStalled, MeshError, PlacementError
from agents.messages import Card, NodeEvent
from agents.spec import AgentSpec
from mesh.config import MeshConfig
from mesh.directory import NOBODY, Directory
from mesh.runtimes.replica import ReplicaActor, ReplicaTransport

log = logging.getLogger(__name__)
ON_HEAD = {"node:__internal_head__": 0.001}  # of a resource that Ray gives its head's node alone
_LOOK_S = 2.0  # after so long without a place, and again each time, it is told what an agent waits for


class RayRuntime(ReplicaTransport):
    """Launches and reaches the actors of one mesh.

    Args:
        mesh: the mesh's name on the cluster.
        config: how long an agent may wait for a place, take to load, and be silent.
        detached: whether the agents outlive the process that launched them.
    """

    def __init__(self, mesh: str, config: MeshConfig, detached: bool = False) -> None:
        super().__init__(mesh, config.limits.stall_s)
        self.placement_timeout_s, self.start_timeout_s = config.placement_timeout_s, config.start_timeout_s
        self.detached = detached
        self._launched: set[str] = set()

    async def launch(
        self, address: str, spec: AgentSpec, directory: Directory | None, waits: Callable[[str], None] | None = None
    ) -> Card:
        gpus = gpus_for(spec)
        options = {
            "name": actor_name(self.mesh, address),
            "namespace": NAMESPACE,
            "lifetime": "detached" if self.detached else None,
            "num_cpus": spec.num_cpus,
            "num_gpus": gpus,
            "resources": dict(spec.resources) or None,
            "scheduling_strategy": "SPREAD",  # what runs on several nodes outlives the loss of one
            "memory": 1,  # byte: who asks for nothing is placed at random, and does not keep its machine from idling
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": CALLS,
            "enable_task_events": False,  # Ray would write down every call of every query
        }
        actor = ray.remote(ReplicaActor).options(**options).remote(spec, self.mesh, address)
        self.handles[address] = actor
        self._launched.add(address)
        try:
            await self._placed(address, spec, gpus, waits or (lambda told: None))
            return await self.reach(address, actor.start.remote(directory or NOBODY), self.start_timeout_s)
        except BaseException:
            await self.kill(address)
            raise

    async def kill(self, agent: str) -> None:
        for address in self.balance.replicas(agent):
            with contextlib.suppress(AgentDied):
                handle = self.handle(address)
                with contextlib.suppress(AgentError):
                    await self.reach(address, handle.close.remote(), self.probe_s)
                ray.kill(handle)
            self.handles.pop(address, None)
            self._launched.discard(address)

    async def leave(self, address: str) -> int:
        return await self.reach(address, call(self.handle(address), "leave"), self.probe_s)

    async def missed(self, address: str | None = None) -> set[str]:
        if address is None:
            return self.take_missed()
        return await self.reach(address, call(self.handle(address), "missed"), self.probe_s)

    async def tell(self, agent: str, event: NodeEvent) -> None:
        for address in self.balance.replicas(agent):
            await self.reach(address, call(self.handle(address), "tell", event), self.probe_s)

    async def watch(self, address: str) -> None:
        with contextlib.suppress(AgentError):
            await self.reach(address, call(self.handle(address), "lifetime"))

    async def healthy(self, address: str) -> bool:
        return await self.reach(address, call(self.handle(address), "healthy"), self.probe_s)

    async def status(self, address: str) -> dict[str, Any]:
        return await self.reach(address, call(self.handle(address), "status"), self.probe_s)

    async def serve(self, address: str, spec: AgentSpec) -> None:
        await self.reach(address, call(self.handle(address), "serve", spec), self.start_timeout_s)

    async def close(self) -> None:
        known = self.balance.directory
        taken_over = [*known.leaving, *(each for addresses in known.replicas.values() for each in addresses)]
        await asyncio.gather(*(self.kill(address) for address in {*self._launched, *taken_over}))

    async def _placed(self, address: str, spec: AgentSpec, gpus: float, waits: Callable[[str], None]) -> None:
        """Wait until Ray has found a place, or say what the agent waits for."""
        ready = self.handles[address].__ray_ready__.remote()
        waited_s = 0.0
        while True:
            try:
                this_s = min(_LOOK_S, self.placement_timeout_s - waited_s)
                return await self.reach(address, asyncio.shield(ready), this_s)
            except AgentStalled:
                waited_s += this_s
                told = await asyncio.to_thread(_wanting, spec, gpus)
                waits(told)
                if waited_s >= self.placement_timeout_s:
                    raise PlacementError(
                        f"agent {spec.name!r} {told} since {waited_s:g} s: free some, add a node, or ask for less in "
                        "num_gpus, num_cpus, resources"
                    ) from None


def _wanting(spec: AgentSpec, gpus: float) -> str:
    """What an agent waits for that has no place yet."""
    wants = {"GPU": gpus, "CPU": spec.num_cpus, **spec.resources}
    has, free = ray.cluster_resources(), ray.available_resources()
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    told = []
    for what, amount in wants.items():
        if amount:
            there = f"the cluster has {has.get(what, 0):g}, {free.get(what, 0):g} of them free"
            most = max((node.get(what, 0) for node in nodes), default=0)  # an actor has all of it on one node
            there += f"; no node has more than {most:g}" if most < amount <= has.get(what, 0) else ""
            told.append(f"{amount:g} {what} ({there})")
    return f"waits for {' and '.join(told) or 'a place'}"


def gpus_for(spec: AgentSpec) -> float:
    """The GPUs that an agent asks for: where its settings leave that open, one on a cluster that has any."""
    return spec.num_gpus if spec.num_gpus is not None else float("GPU" in ray.cluster_resources())


def join_cluster(address: str | None = None) -> bool:
    """Connect this process to the cluster at ``address``, or to the one that runs here; False where none does.

    A cluster that another program started for itself, and which will end with it, does not count.

    Raises:
        MeshError: nothing answers at ``address``, or at the environment's RAY_ADDRESS; or this is none of its machines.
    """
    if ray.is_initialized():
        return True
    asked = address or os.environ.get("RAY_ADDRESS")
    found = asked or read_ray_address()
    try:
        if found is not None and _answers(found):
            _init(found)
            if asked or not _is_private():
                return True
            ray.shutdown()
    except ConnectionError as error:  # it is on its way down, or wants another token
        log.warning("the Ray cluster at %s does not let us in: %s", found, error)
    except RuntimeError as error:
        raise MeshError(
            f"the Ray cluster at {found} cannot be joined from here ({error}): only its own machines can, with its "
            "versions of Ray and Python; from others use `ray exec`, `ray job submit`, or a server (`mesh serve`)"
        ) from None
    if asked:
        raise MeshError(f"no Ray cluster answers at {asked}: is its head up, the port open, the token right?")
    return False


def _answers(address: str) -> bool:
    """Whether anything listens there; Ray itself would try for minutes where a cluster has gone."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
    except (OSError, ValueError):
        return False
    return True


def _is_private() -> bool:
    """Whether the cluster was started by some program's own ``ray.init``, not by ``ray start``: whose head is another
    machine was not.
    """
    if ray.get_runtime_context().gcs_address.rpartition(":")[0] != ray.util.get_node_ip_address():
        return False
    pid = starter()
    return pid != os.getpid() and Path(f"/proc/{pid}").exists() and not is_ray_start(pid)


def starter() -> int:
    """The id of the process that started the Ray that this one is connected to, on the head's machine."""
    return int(ray._private.worker.global_worker.node.session_name.rpartition("_")[2])


def own_runtime(config: MeshConfig) -> RayRuntime:
    """A runtime for a mesh that ends with this process."""
    ensure_cluster()
    return RayRuntime(f"{config.name}-{uuid.uuid4().hex[:8]}", config)


def ensure_cluster() -> None:
    """Connect to the cluster that runs here; where none does, start one that ends with this process."""
    if not join_cluster():
        _lasting(lambda: _init("local", include_dashboard=False))


def _lasting(start: Callable[[], None]) -> None:
    """Call it in a thread that ends with this process. Linux kills Ray's processes when the *thread* that started them
    ends, and Ray kills this one a minute later: so no mesh may start them in its own, nor a caller in just any.
    """
    started: Future[None] = Future()

    def stay() -> None:
        try:
            start()
        except BaseException as error:
            started.set_exception(error)
        else:
            started.set_result(None)
            threading.Event().wait()

    threading.Thread(target=stay, name="ray", daemon=True).start()
    started.result()


def start_cluster(mark: str) -> None:
    """Start a Ray head on this machine that outlives this process, and connect to it; ``mark`` is an option of its
    ``ray start``, by which it is known again. Raises MeshError where it does not start.
    """
    cli = [sys.executable, "-m", "ray.scripts.scripts"]
    environment = {**os.environ, "RAY_AUTH_MODE": "token"}
    subprocess.run([*cli, "get-auth-token", "--generate"], env=environment, capture_output=True, check=True)
    process = subprocess.Popen(
        [*cli, "start", "--head", "--block", "--port=0", "--include-dashboard=false", "--disable-usage-stats", mark],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if process.poll() is not None:
            raise MeshError(f"Ray could not be started on this machine: `ray start --head` ended with {process.poll()}")
        if join_cluster(None):
            return
        time.sleep(0.5)
    process.terminate()
    raise MeshError("Ray could not be started on this machine: no answer within 60 s")


def _init(address: str, **options: Any) -> None:
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # it warns of each cluster's token
    if address != "local":  # Ray itself looks for a token only where the address is "auto"
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # num_gpus=0 leaves the devices as they are
    ray.init(address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR, **options)


def is_ray_start(pid: int, mark: str = "") -> bool:
    """Whether ``pid`` is a ``ray start`` that runs here, with ``mark`` among its words."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"start" in command and b"ray" in command and mark.encode() in command
