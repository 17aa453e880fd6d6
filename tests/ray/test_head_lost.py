"""With Ray's head state in Redis a mesh outlives the head's own process (Ray calls that GCS fault tolerance)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from benchmarks.served import free_port

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(400)]

OF_TWO_AGENTS = """
import os
import signal
import time

import ray
from ray.cluster_utils import Cluster

from mesh import running

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
ray.init(cluster.address, namespace="mesh", log_to_driver=False, logging_level="ERROR")
engines = {"a": {"refuse": 1.0}, "b": {"answer": "from b"}}
agents = [{"name": name, "cost": 0.5, "engine": {"kind": "scripted", **engine}} for name, engine in engines.items()]
running.up({"name": "kept", "runtime": "ray", "agents": agents})


def pids():
    return {row["agent"]: row.get("pid") for row in pool.status()}


def asked():
    print("ASKED", pool.ask("who?", deadline_s=60).text, flush=True)


with running.connect("kept") as pool:
    asked()
    begun = pids()
    cluster.head_node.kill_gcs_server()
    asked()
    cluster.head_node.start_gcs_server()
    asked()
with running.connect("kept") as pool:
    asked()
    print("SAME", pids() == begun, flush=True)
    os.kill(begun["b"], signal.SIGKILL)
    end = time.monotonic() + 60
    while pids()["b"] in (begun["b"], None) and time.monotonic() < end:
        time.sleep(0.5)
    asked()
    print("SAME", pids() == begun, flush=True)
running.down("kept")
ray.shutdown()
cluster.shutdown()
"""


@pytest.fixture
def redis() -> Iterator[str]:
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("missing: apt-get install redis-server")
    port = free_port()
    command = [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def test_a_mesh_outlives_rays_head_process(redis: str) -> None:
    """Who was asked meanwhile has answered; nobody was started anew; and who dies afterwards comes back."""
    environment = {**os.environ, "RAY_REDIS_ADDRESS": redis}
    command = [sys.executable, "-c", OF_TWO_AGENTS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=360, check=False, env=environment)
    told = [line for line in done.stdout.splitlines() if line.startswith(("ASKED ", "SAME "))]
    assert told == [*["ASKED from b"] * 4, "SAME True", "ASKED from b", "SAME False"], done.stderr[-3000:]
    assert done.returncode == 0, done.stderr[-3000:]
