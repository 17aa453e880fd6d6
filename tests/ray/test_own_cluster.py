"""The Ray that a mesh starts for itself outlives that mesh: for the next one, and for this process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

CODE = """
import time
from mesh import Mesh

agents = [{"name": "a", "cost": 0.5, "engine": {"kind": "scripted", "answer": "from a"}}]
for number in range(2):
    with Mesh.from_yaml({"name": f"mesh{number}", "runtime": "ray", "agents": agents}) as mesh:
        print(mesh.ask("who?", deadline_s=60).text, flush=True)
    time.sleep(3)  # what is killed with a thread is gone by then
import ray
print(ray.cluster_resources().get("CPU", 0) > 0)
"""


def test_one_mesh_after_another_in_one_process() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=False, timeout=150, env=environment
    )
    assert done.stdout.split("\n")[:3] == ["from a", "from a", "True"], done.stderr
    assert done.returncode == 0


def test_a_mesh_that_nobody_closed_ends_quietly_with_its_process() -> None:
    code = (
        CODE.partition("for number")[0]
        + 'mesh = Mesh.from_yaml({"name": "open", "runtime": "ray", "agents": agents})\n'
    )
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", code + "print(mesh.ask('who?', deadline_s=60).text, flush=True)"],
        capture_output=True, text=True, check=False, timeout=150, env=environment,
    )  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == ("from a\n", "", 0)
