"""One Ray cluster of this process's own, with five GPUs that are not there, for all tests of this folder."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import mesh


@pytest.fixture(scope="session", autouse=True)
def cluster() -> Iterator[None]:
    import ray

    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  # else what else runs on this machine starves them
    ray.init("local", num_cpus=4, num_gpus=5, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    yield
    ray.shutdown()


Opener = Callable[..., mesh.Mesh]


@pytest.fixture
def open_mesh() -> Iterator[Opener]:
    """Opens meshes of scripted agents, and closes them after the test."""
    meshes: list[mesh.Mesh] = []

    def opener(engines: dict[str, dict[str, Any]], **settings: Any) -> mesh.Mesh:
        costs = [0.1 + 0.8 * i / max(len(engines) - 1, 1) for i in range(len(engines))]
        agents = [
            {"name": name, "cost": round(cost, 3), "engine": {"kind": "scripted", **engine}}
            for (name, engine), cost in zip(engines.items(), costs, strict=True)
        ]
        config = {"name": "test", "runtime": "ray", "agents": agents, **settings}
        meshes.append(mesh.Mesh.from_yaml(config).start())
        return meshes[-1]

    yield opener
    for each in meshes:
        each.close()


def row(pool: mesh.Mesh, agent: str) -> dict[str, Any]:
    return next(each for each in pool.status() if each["agent"] == agent)


def kill(pool: mesh.Mesh, agent: str) -> int:
    """``kill -9`` an agent's process; returns its pid."""
    pid: int = row(pool, agent)["pid"]
    os.kill(pid, signal.SIGKILL)
    return pid


def until(condition: Callable[[], bool], within_s: float = 30.0) -> bool:
    """Wait for something that takes as long as the machine needs; False where it never came."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()
