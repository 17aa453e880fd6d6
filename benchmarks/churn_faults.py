"""What may go wrong with a mesh on a Ray cluster of several nodes on this machine, done to it for real."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mesh.client import Mesh

log = logging.getLogger(__name__)

KINDS = ("killed", "node lost", "stalled", "slowed", "filled", "removed", "added", "upgraded", "cut")
STALLED_S = 10.0
SLOWED_S, SLOWED_CYCLE_S = 5.0, 0.1  # a tenth of each cycle it runs
CUT_S = 6.0
GONE_S = 4.0  # until another worker node takes the place of one that was lost
WORKERS = 2  # nodes besides the head
FILLERS = 96  # queries that fill one agent's queues


def schedule(count: int, seed: str) -> list[str]:
    """So many kinds of fault in an order that follows from the seed: every kind equally often, give or take one."""
    rng = random.Random(seed)
    rounds = [rng.sample(KINDS, len(KINDS)) for _ in range(-(-count // len(KINDS)))]
    return [kind for each in rounds for kind in each][:count]


class Faults:
    """Does them to a mesh.

    Args:
        mesh: connected to the mesh.
        cluster: what it runs on.
        settings: of an agent, by its name: how one that joins or is upgraded is to be.
        core: agents that stay; others come and go.
    """

    def __init__(
        self, mesh: Mesh, cluster: Nodes, settings: Callable[[str], dict[str, Any]], core: tuple[str, ...], seed: str
    ) -> None:
        self.mesh, self.cluster, self.settings, self.core = mesh, cluster, settings, core
        self.guests: list[str] = []
        self.done: list[tuple[float, str]] = []
        self.failures: list[str] = []
        self.fillers: list[Any] = []
        self._rng = random.Random(f"faults {seed}")
        self._number = 0
        self._frozen: set[int] = set()
        self._healing: list[threading.Thread] = []
        self._nodes = threading.Lock()

    def do(self, kind: str) -> None:
        """Do one, on a thread of its own, which also heals it. Those done are in ``done``, with when; what could not be
        done, or what the mesh itself has refused to do, is in ``failures``.
        """
        work: Callable[[], None] = getattr(self, "_" + kind.replace(" ", "_"))

        def run() -> None:
            at = time.monotonic()
            try:
                work()
                self.done.append((at, kind))
            except Exception as error:  # nobody else would hear of it
                self.failures.append(f"{kind}: {error!r}")

        thread = threading.Thread(target=run, daemon=True)
        self._healing.append(thread)
        thread.start()

    def healed(self) -> None:
        """Wait until everything is as it was, give or take who has died."""
        for thread in self._healing:
            thread.join(120)
            if thread.is_alive():
                self.failures.append("a fault did not heal within 120 s")

    # ------------------------------------------------------------------ processes

    def _killed(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._replica(), signal.SIGKILL)

    def _stalled(self) -> None:
        with self._freezing([self._replica()]):
            time.sleep(STALLED_S)

    def _slowed(self) -> None:
        pid, until = self._replica(), time.monotonic() + SLOWED_S
        while time.monotonic() < until:
            with self._freezing([pid]):
                time.sleep(0.9 * SLOWED_CYCLE_S)
            time.sleep(0.1 * SLOWED_CYCLE_S)

    def _cut(self) -> None:
        """Nobody hears of a worker node, nor of what runs there, until the link is back: all of it stands still, which
        is what a cut link looks like from both of its ends.
        """
        with self._nodes:
            node = self._rng.choice(self.cluster.workers())
            with self._freezing([self.cluster.raylet(node), *children(self.cluster.raylet(node))]):
                time.sleep(CUT_S)

    def _node_lost(self) -> None:
        with self._nodes:
            node = self._rng.choice(self.cluster.workers())
            self.cluster.lose(node)
            time.sleep(GONE_S)
            while len(self.cluster.workers()) < WORKERS:
                self.cluster.add_worker()

    # ------------------------------------------------------------------ members

    def _filled(self) -> None:
        agent = self._rng.choice(self.core)
        self.fillers += [self.mesh.submit(f"fill {n}", entry=agent, max_hops=0, deadline_s=30) for n in range(FILLERS)]

    def _added(self) -> None:
        self._number += 1
        name = f"guest-{self._number}"
        self.mesh.add_agent(self.settings(name))
        self.guests.append(name)

    def _removed(self) -> None:
        if not self.guests:
            self._added()
        self.mesh.remove_agent(self.guests.pop(0))

    def _upgraded(self) -> None:
        self.mesh.upgrade_agent(self.settings(self._rng.choice(self.core)), drain_s=20)

    # ------------------------------------------------------------------ within

    def _replica(self) -> int:
        """The process of some replica that moves."""
        found = [pid for raylet in self.cluster.raylets() for pid in children(raylet) if is_replica(pid)]
        moving = sorted(set(found) - self._frozen)
        assert moving, "no replica is left that could be harmed"
        return self._rng.choice(moving)

    @contextlib.contextmanager
    def _freezing(self, pids: list[int]) -> Iterator[None]:
        self._frozen.update(pids)
        _signal(pids, signal.SIGSTOP)
        try:
            yield
        finally:
            _signal(pids, signal.SIGCONT)
            self._frozen.difference_update(pids)


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def is_replica(pid: int) -> bool:
    """Whether a process is an agent's."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::ReplicaActor")
    return False


def children(parent: int) -> list[int]:
    """The processes that one has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(path.parent.name))
    return found


class Nodes:
    """A Ray cluster of a head and worker nodes, all of them processes of this machine."""

    def __init__(self) -> None:
        import ray
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 4, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False)  # else no threads
        while len(self.workers()) < WORKERS:
            self.add_worker()
        ray.init(self._cluster.address, namespace="mesh", log_to_driver=False, logging_level=logging.ERROR)

    def add_worker(self) -> None:
        """One node more, unless it does not start, as happens on a machine that has too much to do."""
        try:
            self._cluster.add_node(num_cpus=4)
        except Exception as error:  # Ray raises no class of its own
            log.warning("a worker node did not start: %r", error)

    def lose(self, node: Any) -> None:
        """All processes of a worker node are killed."""
        self._cluster.remove_node(node, allow_graceful=False)

    def workers(self) -> list[Any]:
        """The worker nodes, oldest first."""
        return sorted(self._cluster.worker_nodes, key=self.raylet)

    def raylets(self) -> list[int]:
        """The process of each node that starts all others."""
        return [self.raylet(node) for node in self._cluster.list_all_nodes()]

    def raylet(self, node: Any) -> int:
        """The process of a node that starts all others of it."""
        return int(node.all_processes["raylet"][0].process.pid)

    def shutdown(self) -> None:
        """End all of it."""
        import ray

        ray.shutdown()
        self._cluster.shutdown()
