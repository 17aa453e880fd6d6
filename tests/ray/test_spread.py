"""On a Ray of three nodes of its own: what runs on several machines outlives the loss of one."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

OF_SIX_AGENTS = """
import json
from collections import Counter

import ray
from ray.cluster_utils import Cluster

import mesh

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
for _ in range(2):
    cluster.add_node(num_cpus=1)
ray.init(cluster.address, namespace="mesh", log_to_driver=False, logging_level="ERROR")
agents = [{"name": f"a{n}", "cost": (n + 1) / 10, "engine": "scripted"} for n in range(6)]
with mesh.Mesh.from_yaml({"name": "spread", "runtime": "ray", "agents": agents}) as pool:
    print("ON", json.dumps(sorted(Counter(row["node"] for row in pool.status()).values())))
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.timeout(200)
def test_agents_that_ask_for_nothing_are_spread_over_the_machines() -> None:
    command = [sys.executable, "-c", OF_SIX_AGENTS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (told,) = [line.removeprefix("ON ") for line in done.stdout.splitlines() if line.startswith("ON ")]
    assert json.loads(told) == [2, 2, 2]
